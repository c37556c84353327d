"""The PPO that TRL had until 2024, on a job that `ppo_beside_trl.py` describes. Runs in an environment of its own.

The environment (PPOTrainer left TRL; this is its last home):
  python -m venv ENV && ENV/bin/pip install "trl==0.11.4" "transformers==4.46.*" "accelerate==1.2.*" "datasets==3.2.*" \
      "numpy<2.3" "torch>=2.10,<2.14" rich
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, set_seed
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer  # type: ignore[attr-defined]  # of 0.11.4

EOS = "<|endoftext|>"
TEXTS_PER_BATCH = 128


def load_tokenizer(folder: str) -> PreTrainedTokenizerFast:
    """From tokenizer.json alone: the configuration beside it is of a later transformers."""
    return PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"), eos_token=EOS, pad_token=EOS)


def load_reward(folder: str, logits: bool):
    """P(positive) of texts, or half its log-odds."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, torch_dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)

    @torch.inference_mode()
    def reward(texts: list[str]) -> list[float]:
        values: list[float] = []
        for at in range(0, len(texts), TEXTS_PER_BATCH):
            some = texts[at : at + TEXTS_PER_BATCH]
            batch = tokenizer(some, padding=True, truncation=True, max_length=256, return_tensors="pt")
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            odds = out[:, 1] - out[:, 0]
            values += (odds / 2 if logits else odds.sigmoid()).tolist()
        return values

    return reward


def main() -> int:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    set_seed(job["seed"])
    out = Path(job["out"])
    tokenizer = load_tokenizer(job["model"])
    models = [AutoModelForCausalLMWithValueHead.from_pretrained(job["model"], torch_dtype=torch.float32) for _ in range(2)]
    trainer = PPOTrainer(PPOConfig(**job["config"]), *models, tokenizer)
    reward = load_reward(job["gold_reward"], job["logit_rewards"])
    rows, seen = [], []
    for step, prompts in enumerate(job["prompts"], start=1):
        began = time.perf_counter()
        queries = [torch.tensor(ids) for ids in prompts]
        responses = trainer.generate(
            queries, return_prompt=False, batch_size=128, max_new_tokens=job["max_new_tokens"], min_length=-1, top_k=0.0,
            top_p=1.0, do_sample=True, pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        sampled = time.perf_counter()
        texts = [
            tokenizer.decode([*ids, *response.tolist()], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids, response in zip(prompts, responses, strict=True)
        ]
        scores = reward(texts)
        scored = time.perf_counter()
        seen += scores  # PPOConfig(use_score_scaling=True) would normalise them, but it fails in 0.11.4
        mean, spread = (statistics.fmean(seen), statistics.pstdev(seen)) if job["normalise"] else (0.0, 1.0)
        stats = trainer.step(queries, responses, [torch.tensor((score - mean) / max(spread, 1e-8)) for score in scores])
        done = time.perf_counter()
        rows.append(
            {"step": step, "mean_reward": sum(scores) / len(scores), "kl": float(stats["objective/kl"]),
             "sample": sampled - began, "reward": scored - sampled, "score": float(stats["time/ppo/forward_pass"]),
             "update": float(stats["time/ppo/optimize_step"]), "all": done - began}
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
        if step in job["snapshots"]:
            trainer.model.pretrained_model.save_pretrained(out / f"step-{step:06d}")
    (out / "steps.json").write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
