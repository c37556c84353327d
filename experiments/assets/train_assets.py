"""Make the embedded assets: a small GPT-2 language model of movie reviews, prefixes drawn from it, a sentiment classifier.

python experiments/assets/train_assets.py language-model --reviews stanfordnlp/imdb
python experiments/assets/train_assets.py prompts
python experiments/assets/train_assets.py classifier --reviews ../shared/data/imdb
python experiments/assets/train_assets.py rival --reviews ../shared/data/imdb
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import sentiment
import torch
from asset_tools import encode, finish, optimise, ratio_with_interval, rows_of_one_epoch, write_card
from tokenizers import ByteLevelBPETokenizer
from torch.nn import functional
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from suite.analysis.records import write_text
from suite.cli.options import command, run_script
from suite.cli.ranges import Count, Folder, Minutes, Name, Rate, Seed, number
from suite.common.machine import bfloat16_is_native
from suite.data.reviews import load_reviews
from suite.policies.causal_lm import CausalLMPolicy
from suite.report.page import code
from suite.rewards.ngram_reward import NgramReward
from suite.rewards.reward_model import RewardModel
from suite.study.profiles import ASSETS
from suite.tasks.imdb_sentiment import PROMPTS_FILE, prompts_from_model

END = "<|endoftext|>"
Penalty = Annotated[float, number(1e-6, 1e6)]


@dataclass(frozen=True)
class LanguageModel:
    """Train the tokenizer and the language model (the SFT reference)."""

    reviews: Name = "stanfordnlp/imdb"
    """Hub name or local path of the reviews (splits train and test)."""
    out: Folder = ASSETS / "imdb-gpt2"
    """Where to write the model, its tokenizer and its card."""
    tokens: Count = 16_000_000
    """Training tokens, repeats counted."""
    vocab_size: Count = 8192
    width: Count = 256
    layers: Count = 4
    heads: Count = 4
    context: Count = 256
    batch_size: Count = 16
    """Rows of `context` tokens a step."""
    lr: Rate = 3e-3
    """Peak learning rate of AdamW (embeddings, norms, biases); linear warm-up, then linear to zero."""
    muon_lr: Rate = 8e-3
    """Peak learning rate of Muon (weight matrices), scaled to match AdamW's root mean square update."""
    compile: bool = True
    """Use torch.compile: about 1.6 times as fast here, needs a C++ compiler."""
    minutes_between_saves: Minutes = 5.0
    """How much work an interruption may cost."""
    seed: Seed = 0


@dataclass(frozen=True)
class Prompts:
    """Draw the prefixes that all studies of the language model share: sampling rounds differently on other machines."""

    language_model: Folder = ASSETS / "imdb-gpt2"
    """Folder of the model; the list is left there."""
    train: Count = 4096
    validation: Count = 512
    test: Count = 1024
    seed: Seed = 0


@dataclass(frozen=True)
class Classifier:
    """Fit the sentiment classifier (the gold reward) to random windows of labelled reviews: logistic regression on n-grams."""

    reviews: Name = "stanfordnlp/imdb"
    """Hub name or local path of the reviews (splits train and test)."""
    language_model: Folder = ASSETS / "imdb-gpt2"
    """Folder whose tokens measure lengths on the card; nothing else of it is used."""
    out: Folder = ASSETS / "imdb-sentiment"
    """Where to write the weights and their card."""
    windows: Count = 16
    """Windows of each review."""
    shortest: Count = 6
    """Shortest window, in words."""
    longest: Count = 200
    """Longest window, in words."""
    fewest: Count = 5
    """An n-gram counts if so many reviews have it."""
    penalty: Penalty = 100.0
    """L2 penalty. Three times what fits a tenth of the reviews best: it costs half a point of accuracy, and a fifth of the
    Best-of-64 completions of the language model pass 0.97 instead of a third, so that there is room above them."""
    others: tuple[Penalty, ...] = (300.0, 30.0, 10.0)
    """Penalties that the card compares it with."""
    seed: Seed = 0


@dataclass(frozen=True)
class Rival:
    """Fit the language model's trunk to the same labels, and put its accuracy on the classifier's card: a gold reward is to
    know more than the reward model that learns from it could.
    """

    reviews: Name = "stanfordnlp/imdb"
    """Hub name or local path of the reviews (splits train and test)."""
    language_model: Folder = ASSETS / "imdb-gpt2"
    """Folder of the model whose trunk is fine-tuned."""
    classifier: Folder = ASSETS / "imdb-sentiment"
    """Folder whose card gets the lines."""
    out: Folder = Path("rival")
    """Where progress is kept."""
    steps: Count = 1200
    batch_size: Count = 64
    """Windows a step; more of short ones."""
    shortest: Count = 6
    longest: Count = 200
    lr: Rate = 3e-4
    minutes_between_saves: Minutes = 5.0
    seed: Seed = 0


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
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_native()):
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
    lines.append(f"| {PROMPTS_FILE} | {drawn} prefixes drawn from the model by {code(command())}, {date.today()} |")
    write_text(card, "\n".join(lines) + "\n")


def train_classifier(config: Classifier) -> None:
    began = time.monotonic()
    train, test = load_reviews(config.reviews, "train"), load_reviews(config.reviews, "test")
    known = sentiment.vocabulary(train.texts, config.fewest)
    windows = sentiment.draw_windows(
        train.texts,
        train.labels,
        known,
        each=config.windows,
        shortest=config.shortest,
        longest=config.longest,
        seed=config.seed,
    )
    reward, trained = sentiment.fit_reward(windows, known, config.penalty, config.others, config.seed)
    reward.save(config.out)
    stored, tokenizer = NgramReward.load(config.out), PreTrainedTokenizerFast.from_pretrained(config.language_model)
    found = sentiment.measured(tokenizer, lambda texts: stored.log_odds([""] * len(texts), texts), test.texts, test.labels)
    trained = {"training reviews": str(len(train.texts)), "starts from": "nothing", **trained}
    write_card(config, "Small sentiment classifier of movie reviews", time.monotonic() - began, trained, found)


def train_rival(config: Rival) -> None:
    torch.manual_seed(config.seed)
    train, test = load_reviews(config.reviews, "train"), load_reviews(config.reviews, "test")
    model = RewardModel.from_policy(CausalLMPolicy.load(config.language_model))
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=config.lr, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    batches, loss_of = sentiment.rival_batches(train.texts, train.labels, config), sentiment.rival_loss(model)
    config.out.mkdir(parents=True, exist_ok=True)
    optimise(config, model.model, [optimizer], loss_of, batches, steps=config.steps, warm_up=min(100, config.steps // 4))
    gold = NgramReward.load(config.classifier)
    found = sentiment.beside(
        model.tokenizer,
        lambda texts: np.array(model([""] * len(texts), texts)),
        lambda texts: gold.log_odds([""] * len(texts), texts),
        test.texts,
        test.labels,
    )
    (config.out / "progress.pt").unlink(missing_ok=True)
    card = config.classifier / "README.md"
    lines = [line for line in card.read_text().splitlines() if not line.startswith("| trunk")]
    lines.append(f"| trunk of {config.language_model.name} | fitted to the same labels by {code(command())}, {date.today()} |")
    lines += [f"| trunk, {name} | {value} |" for name, value in found.items()]
    write_text(card, "\n".join(lines) + "\n")
    print("\n".join(lines))


def main(config: Any) -> int:
    making: dict[type, Any] = {
        LanguageModel: train_language_model, Prompts: draw_prompts, Classifier: train_classifier, Rival: train_rival,
    }  # fmt: skip
    making[type(config)](config)
    return 0


if __name__ == "__main__":
    run_script(main, LanguageModel | Prompts | Classifier | Rival, __doc__)  # type: ignore[arg-type]
