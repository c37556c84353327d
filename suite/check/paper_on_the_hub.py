"""The paper's models and data sets in small, as the Hub has them: names, files, configurations and columns are the published
ones; weights are random and few, texts are made up. For a rehearsal: what would break first breaks here.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from suite.tasks import made_up

Size = Literal["tiny", "real"]
"""Few layers with random weights; or the published numbers and no weights, for plans."""
WORDS = 500
"""Tokens that the tokenizers are trained to."""
END, FAR = "<|endoftext|>", 5.0


@dataclass(frozen=True)
class Published:
    """A model as it lies on the Hub."""

    kind: str  # of its configuration, in transformers
    loader: str  # the class that made it
    real: Mapping[str, Any]  # what its published configuration has beside the kind's defaults
    tiny: Mapping[str, Any]  # and, in place of it, here
    ends: Sequence[str] = (END,)  # special tokens of its tokenizer, in their order
    tokenizer: Mapping[str, Any] = field(default_factory=lambda: {"bos_token": END, "eos_token": END, "unk_token": END})
    pads_vocabulary: bool = False  # the model has more rows than the tokenizer has tokens
    weights: Sequence[Literal["safetensors", "bin"]] = ("safetensors", "bin")
    dtype: str = "float32"
    bare: bool = False  # its weights are named as those of the model without output layer


GPT_J = Published(
    "gptj", "GPTJForCausalLM", weights=("bin",), pads_vocabulary=True,
    real={"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64, "n_positions": 2048, "vocab_size": 50400,
          "tie_word_embeddings": False},
    tiny={"n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": 2048, "tie_word_embeddings": False},
)  # fmt: skip
MODELS = {
    "openai-community/gpt2-large": Published(
        "gpt2", "GPT2LMHeadModel", bare=True,
        real={"n_embd": 1280, "n_layer": 36, "n_head": 20, "n_positions": 1024, "vocab_size": 50257},
        tiny={"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 1024},
    ),
    "EleutherAI/pythia-2.8b": Published(
        "gpt_neox", "GPTNeoXForCausalLM", dtype="float16", pads_vocabulary=True, ends=(END, "<|padding|>"),
        real={"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 10240,
              "max_position_embeddings": 2048, "vocab_size": 50304, "tie_word_embeddings": False},
        tiny={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
              "max_position_embeddings": 2048, "tie_word_embeddings": False},
    ),
    "EleutherAI/gpt-j-6b": GPT_J,
    "CarperAI/openai_summarize_tldr_sft": GPT_J,
    "siebert/sentiment-roberta-large-english": Published(
        "roberta", "RobertaForSequenceClassification", weights=("bin",), ends=("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        tokenizer={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>",
                   "sep_token": "</s>", "mask_token": "<mask>", "model_max_length": 512},
        real={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
              "max_position_embeddings": 514, "vocab_size": 50265, "type_vocab_size": 1,
              "id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}},
        tiny={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
              "max_position_embeddings": 514, "type_vocab_size": 1,
              "id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}},
    ),
}  # fmt: skip
"""Hub name → model."""


def publish(folder: Path, size: Size) -> None:
    """Write every model and data set of the paper into `folder`, as `suite.check.stand_in_hub` serves them."""
    for name, model in MODELS.items():
        _publish_model(folder / "models" / name, model, size)
    for name, files in DATA.items():
        for path, rows in files.items():
            place = folder / "datasets" / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            _write_rows(place, list(rows))
        if card := CARDS.get(name):
            (folder / "datasets" / name / "README.md").write_text(card)


# models


def _publish_model(folder: Path, model: Published, size: Size) -> None:
    import torch
    import transformers

    tokenizer = _tokenizer(model)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    rows = len(tokenizer) + (143 if model.pads_vocabulary else 0)
    numbers = dict(model.real) if size == "real" else {"vocab_size": rows, **model.tiny}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = transformers.AutoConfig.for_model(model.kind, **numbers, **{k: v for k, v in ids.items() if v is not None})
    config.architectures, config.dtype = [model.loader], model.dtype
    config.save_pretrained(folder)
    if size == "real":
        return
    torch.manual_seed(0)
    made = getattr(transformers, model.loader)(config)
    with torch.no_grad():
        for weight in made.parameters():  # far from uniform
            weight.mul_(FAR if weight.dim() > 1 else 1)
    made = made.to(getattr(torch, model.dtype))
    made = made.base_model if model.bare else made
    if "bin" in model.weights:
        torch.save(made.state_dict(), folder / "pytorch_model.bin")
    if "safetensors" in model.weights:
        made.save_pretrained(folder)
        config.save_pretrained(folder)  # with its architecture again


def _tokenizer(model: Published) -> Any:
    """Byte-level BPE, as all four have it, trained on the made-up texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=list(model.ends), initial_alphabet=letters, show_progress=False
    )
    bpe.train_from_iterator(_some_texts(), trainer)
    if model.kind == "roberta":
        ids = {token: number for number, token in enumerate(model.ends)}
        ends = ("</s>", ids["</s>"]), ("<s>", ids["<s>"])
        bpe.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **model.tokenizer)


@cache
def _some_texts() -> list[str]:
    return [row["text"] for row in reviews("test")] + [row["chosen"] for row in made_up.dialogues()]


# data sets

WHAT = ("this film", "the movie", "that picture", "the story", "the sequel", "this comedy", "the drama", "the old western")
HOW = ("bored", "moved", "surprised", "annoyed", "delighted", "puzzled", "thrilled", "tired")
WHO = ("me", "my wife", "my friends", "the children", "our whole row", "nobody", "everybody", "us")
WHEN = ("yesterday", "last winter", "on television", "at the festival", "twice", "on a long flight", "in May", "for an hour")
MORE = (
    "The camera stays close to the faces and the music never asks for attention.",
    "Half of the jokes were told better in the trailer.",
    "I would watch the scene on the bridge again, and little else.",
    "What the two leads do with a thin script deserves a better ending.",
)  # fmt: skip


def reviews(split: str) -> Iterator[dict[str, Any]]:
    """Film reviews with labels, the longest beyond any context: `text`, `label`."""
    told = product(HOW, WHO, WHEN, WHAT) if split == "test" else product(WHAT, HOW, WHO, WHEN)
    for number, words in enumerate(told):
        if number % 3 == ("train", "test", "unsupervised").index(split):
            what, how, who, when = words if split != "test" else (words[3], *words[:3])
            first = f"{when.capitalize()} {what} {how} {who}" if split == "test" else f"{what.capitalize()} {how} {who} {when}"
            rest = " ".join(MORE[(number + k) % len(MORE)] for k in range(60 if number % 50 == 0 else 3))
            label = -1 if split == "unsupervised" else number % 2
            yield {"text": f"{first}.<br /><br />{rest}", "label": label}


def _longer(rows: Iterable[Mapping[str, str]], column: str) -> Iterator[dict[str, str]]:
    """Every tenth text beyond the longest prompt."""
    for number, row in enumerate(rows):
        yield {**row, column: row[column] + f" {' '.join(MORE * 15)}" * (number % 10 == 0)}


def _asked_again(rows: Iterable[Mapping[str, str]], *columns: str) -> Iterator[dict[str, str]]:
    """Each row three times, as the first, the second and the third of its kind."""
    for number, row in product(("first", "second", "third"), rows):
        words = ("\n\nHuman: ", f"\n\nHuman: My {number} question. "), ("POST: ", f"POST: My {number} post. ")
        changed = dict(row)
        for column, (old, new) in product(columns, words):
            changed[column] = changed[column].replace(old, new, 1)
        yield changed


def _parts(rows: Iterable[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    """Split → rows, four fifths for training and the rest for testing."""
    every = list(rows)
    return {"train": [r for k, r in enumerate(every) if k % 5], "test": [r for k, r in enumerate(every) if not k % 5]}


def _summaries() -> Iterator[dict[str, str]]:
    for row in made_up.comparisons():
        yield {"prompt": f"{row['prompt']}\nTL;DR:", "label": row["chosen"].removeprefix("TL;DR:")}


DIALOGUES = _parts(_asked_again(list(made_up.dialogues()), "chosen", "rejected"))
COMPARISONS = _parts(_longer(_asked_again(list(made_up.comparisons()), "prompt"), "prompt"))
SUMMARIES = _parts(_asked_again(list(_summaries()), "prompt"))
NEWS = _parts({**row, "id": f"{k:040x}"} for k, row in enumerate(_longer(made_up.news(), "article")))
DATA: dict[str, dict[str, Iterable[Mapping[str, Any]]]] = {
    "stanfordnlp/imdb": {
        f"plain_text/{split}-00000-of-00001.parquet": list(reviews(split)) for split in ("train", "test", "unsupervised")
    },
    "Anthropic/hh-rlhf": {
        f"{part}/{split}.jsonl.gz": DIALOGUES[split][k::4]
        for k, part in enumerate(("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"))
        for split in ("train", "test")
    } | {"red-team-attempts/red_team_attempts.jsonl.gz": [{"transcript": "\n\nHuman: Hello!", "rating": 0.0, "tags": None}]},
    "CarperAI/openai_summarize_comparisons": {
        f"data/{split}-00000-of-00001.parquet": COMPARISONS["train" if split == "train" else "test"]
        for split in ("train", "test", "valid1", "valid2")
    },
    "CarperAI/openai_summarize_tldr": {
        f"data/{split}-00000-of-00001.parquet": SUMMARIES["train" if split == "train" else "test"]
        for split in ("train", "test", "valid")
    },
    "abisee/cnn_dailymail": {
        f"{version}/{split}-00000-of-00001.parquet": NEWS["train" if split == "train" else "test"]
        for version in ("1.0.0", "2.0.0", "3.0.0")
        for split in ("train", "validation", "test")
    },
}  # fmt: skip
"""Hub name → path → rows."""


def _card(configurations: Mapping[str, Mapping[str, str]]) -> str:
    """The head of a data set's card that says which files are which split, by configuration."""
    lines = ["---", "configs:"]
    for name, splits in configurations.items():
        lines += [f'- config_name: "{name}"', "  data_files:"]
        lines += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
    return "\n".join([*lines, "---", ""])


CARDS = {
    "stanfordnlp/imdb": _card({"plain_text": {s: f"plain_text/{s}-*" for s in ("train", "test", "unsupervised")}}),
    **{
        f"CarperAI/openai_summarize_{name}": _card({"default": {split: f"data/{split}-*" for split in splits}})
        for name, splits in (("comparisons", ("train", "test", "valid1", "valid2")), ("tldr", ("train", "test", "valid")))
    },
    "abisee/cnn_dailymail": _card({
        version: {split: f"{version}/{split}-*" for split in ("train", "validation", "test")}
        for version in ("1.0.0", "2.0.0", "3.0.0")
    }),
}  # fmt: skip
"""Hub name → card, where there is one that says more than the files."""


def _write_rows(path: Path, rows: list[Mapping[str, Any]]) -> None:
    if path.suffix == ".parquet":
        import pandas as pd

        pd.DataFrame(rows).to_parquet(path, index=False)
    else:
        with gzip.open(path, "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
