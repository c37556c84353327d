"""Make the embedded assets: a small GPT-2 language model of movie reviews, prefixes drawn from it, a sentiment classifier.

python experiments/assets/train_assets.py language-model --reviews stanfordnlp/imdb
python experiments/assets/train_assets.py prompts
python experiments/assets/train_assets.py classifier --reviews ../shared/data/imdb --minutes-between-saves 5
"""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from asset_tools import encode, finish, optimise, ratio_with_interval, rows_of_one_epoch
from tokenizers import ByteLevelBPETokenizer, processors
from torch.nn import functional
from tqdm import tqdm
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from suite.analysis.records import write_text
from suite.cli.options import command, run_script
from suite.data.reviews import load_reviews
from suite.policies.causal_lm import CausalLMPolicy
from suite.study.profiles import ASSETS
from suite.tasks.imdb_sentiment import PROMPTS_FILE, prompts_from_model

END = "<|endoftext|>"


@dataclass(frozen=True)
class LanguageModel:
    """Train the tokenizer and the language model (the SFT reference)."""

    reviews: str = "stanfordnlp/imdb"
    """Hub name or local path of the reviews (splits train and test)."""
    out: Path = ASSETS / "imdb-gpt2"
    """Where to write the model, its tokenizer and its card."""
    tokens: int = 16_000_000
    """Training tokens, repeats counted."""
    vocab_size: int = 8192
    width: int = 256
    layers: int = 4
    heads: int = 4
    context: int = 256
    batch_size: int = 16
    """Rows of `context` tokens a step."""
    lr: float = 3e-3
    """Peak learning rate of AdamW (embeddings, norms, biases); linear warm-up, then linear to zero."""
    muon_lr: float = 8e-3
    """Peak learning rate of Muon (weight matrices), scaled to match AdamW's root mean square update."""
    compile: bool = True
    """Use torch.compile: about 1.6 times as fast here, needs a C++ compiler."""
    minutes_between_saves: float = 5.0
    """How much work an interruption may cost."""
    seed: int = 0


@dataclass(frozen=True)
class Prompts:
    """Draw the prefixes that all studies of the language model share: sampling rounds differently on other machines."""

    language_model: Path = ASSETS / "imdb-gpt2"
    """Folder of the model; the list is left there."""
    train: int = 4096
    validation: int = 512
    test: int = 1024
    seed: int = 0


@dataclass(frozen=True)
class Classifier:
    """Train the sentiment classifier (the gold reward) on random windows of labelled reviews."""

    reviews: str = "stanfordnlp/imdb"
    """Hub name or local path of the reviews (splits train and test)."""
    language_model: Path = ASSETS / "imdb-gpt2"
    """Folder whose byte-level BPE the classifier shares and whose token embeddings it starts from."""
    out: Path = ASSETS / "imdb-sentiment"
    """Where to write the model, its tokenizer and its card."""
    steps: int = 2600
    batch_size: int = 64
    """Reviews a step; more for short windows."""
    layers: int = 2
    heads: int = 4
    shortest: int = 8
    """Shortest window, in tokens."""
    longest: int = 200
    """Longest window, in tokens."""
    lr: float = 1e-3
    minutes_between_saves: float = 5.0
    seed: int = 0


def train_tokenizer(texts: list[str], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE as in GPT-2, with one special token."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, special_tokens=[END], show_progress=False)
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, model_max_length=context, **ends)


def batches_of_rows(documents: list[list[int]], config: LanguageModel) -> Iterator[torch.Tensor]:
    """Endless batches; each epoch in an order of its own."""
    for epoch in count():
        rows = rows_of_one_epoch(documents, config.context, random.Random(f"{config.seed}/{epoch}"))
        for at in range(0, len(rows) - config.batch_size + 1, config.batch_size):
            yield torch.from_numpy(rows[at : at + config.batch_size]).long()


def train_language_model(config: LanguageModel) -> None:
    torch.manual_seed(config.seed)
    train, test = load_reviews(config.reviews, "train"), load_reviews(config.reviews, "test")
    tokenizer = train_tokenizer(train.texts, config.vocab_size, config.context)
    tokenizer.save_pretrained(config.out)
    eos = tokenizer.eos_token_id
    documents = [[*ids, eos] for ids in encode(tokenizer, train.texts)]
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=config.context, n_embd=config.width, n_layer=config.layers,
            n_head=config.heads, bos_token_id=eos, eos_token_id=eos, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".h." in name)]
    optimizers = [
        torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(rows[:, :-1], use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())

    steps = config.tokens // (config.batch_size * config.context)
    batches = batches_of_rows(documents, config)
    fast_loss_of = torch.compile(loss_of) if config.compile else loss_of
    seconds = optimise(config, model, optimizers, fast_loss_of, batches, steps=steps, warm_up=min(100, steps // 4))
    trained = {"training tokens": steps * config.batch_size * config.context, "training reviews": len(documents)}
    measure = partial(measure_language_model, config.out, tokenizer, test.texts)
    finish(config, "Small GPT-2 language model of movie reviews", model, seconds, trained, measure, limit=2 * 8_000_000)


@torch.no_grad()
def measure_language_model(folder: Path, tokenizer, texts: list[str]) -> dict[str, str]:
    """Nats per token of the stored (bf16-rounded) weights on whole test reviews, in fp32, with an interval over reviews."""
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    context = model.config.n_positions
    documents = [[*ids, tokenizer.eos_token_id] for ids in encode(tokenizer, texts[:: max(1, len(texts) // 2000)])]
    blocks = [
        (i, at, torch.tensor(d[at : at + context + 1])) for i, d in enumerate(documents) for at in range(0, len(d) - 1, context)
    ]
    blocks.sort(key=lambda block: len(block[2]))
    nats, count, early = np.zeros(len(documents)), np.zeros(len(documents)), []
    for first in tqdm(range(0, len(blocks), 32), desc="measuring", mininterval=10):
        batch = blocks[first : first + 32]
        rows = torch.nn.utils.rnn.pad_sequence([ids for *_, ids in batch], batch_first=True, padding_value=-100)
        logits = model(rows[:, :-1].clamp_min(0), use_cache=False).logits  # padding is on the right and causal: harmless
        losses = functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], ignore_index=-100, reduction="none")
        for (index, at, ids), values in zip(batch, losses, strict=True):
            nats[index] += values.sum().item()
            count[index] += len(ids) - 1
            if at == 0:
                early.append((values[4:40].sum().item(), min(len(ids) - 1, 40) - 4))
    return {
        f"test nats per token, whole reviews in blocks of {context}": ratio_with_interval(nats, count),
        "test nats per token, tokens 5 to 40 of a review": ratio_with_interval(*np.array(early).T),
    }


def draw_prompts(config: Prompts) -> None:
    policy = CausalLMPolicy.load(config.language_model)
    sizes = {"train": config.train, "validation": config.validation, "test": config.test}
    parts = []
    for split, size in tqdm(sizes.items(), desc="drawing", unit="split"):
        prompts = prompts_from_model(policy, split, size, seed=config.seed)  # type: ignore[arg-type]
        parts.append(f'"{split}": [\n' + ",\n".join(json.dumps(list(prompt.ids)) for prompt in prompts) + "\n]")
    write_text(config.language_model / PROMPTS_FILE, "{\n" + ",\n".join(parts) + "\n}\n")
    card = config.language_model / "README.md"
    lines = [line for line in card.read_text().splitlines() if not line.startswith(f"| {PROMPTS_FILE} ")]
    drawn = ", ".join(f"{size:,} {split}" for split, size in sizes.items())
    lines.append(f"| {PROMPTS_FILE} | {drawn} prefixes drawn from the model by `{command()}`, {date.today()} |")
    write_text(card, "\n".join(lines) + "\n")


def batches_of_windows(documents: list[list[int]], labels: list[int], tokenizer, config: Classifier) -> Iterator:
    """Endless batches of windows of one length each, log-uniform between shortest and longest; 30 % are beginnings."""
    for step in count():
        rng = random.Random(f"{config.seed}/{step}")
        length = round(math.exp(rng.uniform(math.log(config.shortest), math.log(config.longest))))
        chosen = rng.choices(range(len(documents)), k=config.batch_size * max(1, min(4, 100 // length)))
        rows = []
        for index in chosen:
            ids = documents[index]
            start = rng.randrange(max(1, len(ids) - length + 1)) if rng.random() < 0.7 else 0
            rows.append([tokenizer.cls_token_id, *ids[start : start + length]])
        yield tokenizer.pad({"input_ids": rows}, return_tensors="pt"), torch.tensor([labels[i] for i in chosen])


def train_classifier(config: Classifier) -> None:
    torch.manual_seed(config.seed)
    train, test = load_reviews(config.reviews, "train"), load_reviews(config.reviews, "test")
    bpe = PreTrainedTokenizerFast.from_pretrained(config.language_model)._tokenizer
    bpe.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, bpe.token_to_id(END))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, cls_token=END, pad_token=END, unk_token=END, model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.save_pretrained(config.out)
    embeddings: Any = GPT2LMHeadModel.from_pretrained(config.language_model, dtype=torch.float32).get_input_embeddings().weight
    width = embeddings.shape[1]
    model: Any = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, intermediate_size=4 * width, max_position_embeddings=256,
            type_vocab_size=1, pad_token_id=tokenizer.pad_token_id, hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.0, id2label={0: "NEGATIVE", 1: "POSITIVE"},
            label2id={"NEGATIVE": 0, "POSITIVE": 1},
        )
    )  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(embeddings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.05, betas=(0.9, 0.98), fused=True)

    def loss_of(batch) -> torch.Tensor:
        inputs, labels = batch
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits
        return functional.cross_entropy(logits.float(), labels)

    documents = encode(tokenizer, train.texts)
    batches = batches_of_windows(documents, train.labels, tokenizer, config)
    steps, warm_up = config.steps, min(200, config.steps // 4)
    seconds = optimise(config, model.train(), [optimizer], loss_of, batches, steps=steps, warm_up=warm_up)
    trained = {
        "training reviews": len(documents),
        "starts from": f"token embeddings of {config.language_model.name}, so not wholly independent of it",
    }
    measure = partial(measure_classifier, config.out, tokenizer, test.texts, test.labels)
    finish(config, "Small sentiment classifier of movie reviews", model, seconds, trained, measure, limit=10_000_000)


@torch.no_grad()
def measure_classifier(folder: Path, tokenizer, texts: list[str], labels: list[int]) -> dict[str, str]:
    """Accuracy and expected calibration error of the stored weights on beginnings of 4,000 test reviews."""
    model = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    every = max(1, len(texts) // 4000)
    documents, truth = encode(tokenizer, texts[::every]), np.array(labels[::every])
    measured = {}
    for name, length in {"16 tokens": 16, "32 tokens": 32, "64 tokens": 64, "whole reviews (first 255 tokens)": 255}.items():
        usable = [i for i, ids in enumerate(documents) if length == 255 or len(ids) >= length]
        positive = np.empty(len(usable))
        for at in tqdm(range(0, len(usable), 64), desc=f"measuring {name}", mininterval=10):
            rows = [[tokenizer.cls_token_id, *documents[i][:length]] for i in usable[at : at + 64]]
            batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
            positive[at : at + 64] = model(**batch).logits.softmax(-1)[:, 1].numpy()
        right = (positive > 0.5) == truth[usable]
        bins = np.minimum((positive * 10).astype(int), 9)
        error = np.abs(np.bincount(bins, weights=positive - truth[usable])).sum() / len(usable)
        interval = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / len(right))
        measured[f"test accuracy, {name}"] = f"{right.mean():.3f} ± {interval:.3f} (95 %, n = {len(right)} reviews)"
        measured[f"expected calibration error (10 bins), {name}"] = f"{error:.3f}"
    return measured


def main(config: Any) -> int:
    making: dict[type, Any] = {
        LanguageModel: train_language_model, Prompts: draw_prompts, Classifier: train_classifier,
    }  # fmt: skip
    making[type(config)](config)
    return 0


if __name__ == "__main__":
    run_script(main, LanguageModel | Prompts | Classifier, __doc__)  # type: ignore[arg-type]
