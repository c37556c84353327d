"""What is known of a model's folder without its weights, and whether a study fits into it: refused before anything runs."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from suite.common.errors import UserError, first_line
from suite.data.tokenizers import load_tokenizer
from suite.policies.adapter_config import base_of

COMBINED = "combined_reward.json"
"""File of a folder that holds two reward models (`suite.rewards.combined_reward`)."""
MOST_LAYERS, MOST_WIDTH = 1000, 2**20
POSITIONS_AFTER_PADDING = ("roberta", "camembert", "xmod", "longformer", "mpnet", "data2vec-text", "luke", "mluke", "lilt")
"""Kinds of models (and all whose name ends so) that count positions from the padding token's id onwards."""


def load_config(folder: Path | str, name: str = "") -> Any:
    """The configuration of a model's folder. Raises UserError if it cannot be read, or is of no model that exists."""
    from transformers import AutoConfig

    called = name or str(folder)
    if Path(folder).is_dir() and not (Path(folder) / "config.json").exists():
        raise UserError(f"{called}: no config.json in the folder: it holds no model")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a stranger's files: anything may be wrong with them
        raise UserError(f"{called}: its config.json cannot be read ({type(error).__name__}: {first_line(error)})") from error
    text = config.get_text_config()
    for field, most in (("num_hidden_layers", MOST_LAYERS), ("hidden_size", MOST_WIDTH), ("vocab_size", 2**24)):
        value = getattr(text, field, None)
        if value is not None and not (isinstance(value, int) and 0 < value <= most):
            raise UserError(f"{called}, config.json: {field} is {value!r}; expected a whole number from 1 to {most:,}")
    return config


def context_of(config: Any) -> int | None:
    """Tokens that a model can read at once; None where its configuration sets no limit."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    kind = str(config.model_type).removeprefix("xlm-").removesuffix("-xl").removesuffix("-prelayernorm")
    return positions - (config.pad_token_id or 0) - 1 if kind in POSITIONS_AFTER_PADDING else positions


def cached_numbers(config: Any) -> int | None:
    """Numbers that one token leaves in the cache of keys and values, all layers together; None where the configuration does
    not say.
    """
    text = config.get_text_config()
    layers, hidden, heads = (getattr(text, name, None) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    if not layers or not hidden or not heads:
        return None
    width = getattr(text, "head_dim", None) or hidden // heads
    one, names = getattr(text, "multi_query", False), ("num_key_value_heads", "num_kv_heads")
    return 2 * layers * width * (1 if one else next((n for name in names if (n := getattr(text, name, None))), heads))


def check_vocabulary(config: Any, tokenizer: Any, name: str) -> None:
    """Raise a UserError if the tokenizer has tokens for which the model has no weights."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows} if rows else {}
    special = {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    template = repr(getattr(tokenizer, "chat_template", None))
    named = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    # special tokens that nothing writes, such as those of images, are no loss
    if ids := [i for token, i in beyond.items() if i not in special or i in named or token in template]:
        raise UserError(
            f"{name}: its tokenizer has {len(ids)} tokens that the model has not (token {max(ids)}, the model has {rows:,} "
            "rows); call model.resize_token_embeddings(len(tokenizer)), and save the model again"
        )


@lru_cache(maxsize=8)
def check_language_model(folder: str, name: str, longest_prompt: int, max_new_tokens: int) -> None:
    """Whether a language model and its tokenizer fit each other and the lengths of a study, in tokens.

    Raises:
        UserError: No causal language model, no usable tokenizer, or a prompt with its answer is longer than the context.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    adapters = (Path(folder) / "adapter_config.json").exists()
    config, tokenizer = load_config(base_of(Path(folder)) if adapters else folder, name), load_tokenizer(folder, name)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or _is_something_else(config):
        raise UserError(f"{name}: a {' '.join(config.architectures or [config.model_type])} is no causal language model")
    check_vocabulary(config, tokenizer, name)
    context = context_of(config)
    if context and longest_prompt + max_new_tokens > context:
        raise UserError(
            f"{name}: prompts of up to {longest_prompt} tokens and answers of up to {max_new_tokens} do not fit into its "
            f"context of {context}; lower --max-prompt-tokens or --max-new-tokens, or take another model"
        )


@lru_cache(maxsize=8)
def check_reward_model(folder: str, name: str) -> None:
    """Whether a classifier or reward model and its tokenizer fit each other, before any text is there to be read.

    Raises:
        UserError: No model of that kind, or no usable tokenizer.
    """
    if (Path(folder) / "ngrams.safetensors").exists():
        return
    if (Path(folder) / COMBINED).exists():
        for part in ("helpfulness", "safety"):
            check_reward_model(str(Path(folder) / part), f"{name}/{part}")
        return
    config, tokenizer = load_config(folder, name), load_tokenizer(folder, name, needs_eos=False)
    if not any(kind.endswith("ForSequenceClassification") for kind in config.architectures or ()):
        raise UserError(f"{name}: a {' '.join(config.architectures or [config.model_type])} gives no rewards of texts")
    if config.num_labels > 1 and tokenizer.pad_token_id is None:
        raise UserError(f"{name}: its tokenizer has no padding token; set pad_token in tokenizer_config.json")
    check_vocabulary(config, tokenizer, name)


@lru_cache(maxsize=8)
def check_can_reward(folder: str, name: str) -> None:
    """Whether a reward model can be made of a language model's trunk. Raises UserError if transformers has none of its kind."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    adapters = (Path(folder) / "adapter_config.json").exists()
    kind = load_config(base_of(Path(folder)) if adapters else folder, name).model_type
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise UserError(f"{name}: transformers makes no reward model of a {kind}; leave out what learns or is judged by one")


def _is_something_else(config: Any) -> bool:
    """A classifier, a model that fills masks, or one that reads before it writes."""
    others = (
        "ForSequenceClassification",
        "ForTokenClassification",
        "ForMaskedLM",
        "ForPreTraining",
        "ForConditionalGeneration",
    )
    kinds = config.architectures or ()
    return any(kind.endswith(others) for kind in kinds) and not any(
        kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds
    )
