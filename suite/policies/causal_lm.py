"""The policy everyone trains: a Hugging Face causal language model with its tokenizer."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from suite.common.errors import UserError, first_line
from suite.common.ranks import full_state, world_size
from suite.data.batching import collate, different, length_batches
from suite.data.chat_template import end_ids
from suite.data.preference_data import Completion, Prompt
from suite.maths.sequence_log_probs import linear_token_log_probs, token_log_probs
from suite.policies.adapter_config import base_of
from suite.policies.adapters import add_adapters, with_adapters
from suite.policies.sampling import sample_completions
from suite.policies.sharding import drawn_in_shares, in_shares, sharded, whole_copy
from suite.policies.surgery import disable_dropout, fuse_gelu, head_is_linear, load_pretrained

Sampler = Literal["own", "vllm"]
TOKENS_PER_BATCH = 4096
SAMPLER_GAP = 0.05
"""Nats by which three tokens may differ between sampler and scorer: far above rounding, also of weights in bf16."""


class CausalLMPolicy:
    """A causal language model as a policy. Dropout is off from the moment it is loaded, in training too.

    Args:
        model: Any Hugging Face causal language model.
        tokenizer: Its tokenizer; only what ends a turn and decoding are used, never re-tokenisation.
        sampler_dtype: Arithmetic (autocast) in which completions are drawn; None = the model's own. Scoring is always in the
            model's.
        sampler: Who draws: "own" (`suite.policies.sampling`), or "vllm" (`suite.policies.vllm_sampler`), with weights in
            `sampler_dtype`.
        lora_rank: Copies are trained through low-rank adapters of this rank on every linear layer (Hu et al. 2022,
            arXiv:2106.09685), with α = 2·rank, and saved as adapters; 0 trains all weights.
    """

    has_log_prob = True
    has_next_token_log_probs = True

    def __init__(
        self, model: Any, tokenizer: Any, *, sampler_dtype: torch.dtype | None = None, sampler: Sampler = "own",
        lora_rank: int = 0,
    ) -> None:  # fmt: skip
        self.model: Any = fuse_gelu(disable_dropout(model)).eval()
        self.tokenizer = tokenizer
        self.sampler_dtype, self.sampler, self.lora_rank = sampler_dtype, sampler, lora_rank
        self.end_ids = end_ids(tokenizer, getattr(model, "generation_config", None))  # the tokens that end a completion
        if not self.end_ids:
            raise UserError(f"tokenizer of {tokenizer.name_or_path!r} has no EOS token; set eos_token")
        self.whole: Any = None  # of a model whose weights are sharded over several devices (`suite.policies.sharding`)
        self.tokens_trained = 0  # tokens, prompts included, that went through a forward pass with gradient
        self.tokens_sampled = self.tokens_scored = 0  # by methods that draw samples
        self.sampler_kl = 0.0  # of an engine's completions, the largest so far

    def sample(
        self, prompts: Sequence[Prompt], *, num_samples: int, max_new_tokens: int, temperature: float = 1.0, seed: int,
        on_batch: Callable[[int], Any] | None = None,
    ) -> list[list[Completion]]:  # fmt: skip
        """Draw completions; see `suite.policies.sampling.sample_completions`."""
        lower, function = self.samples_lower, sample_completions
        # by its name, so that it is part of the keys of its own runs alone
        engine = import_module("suite.policies.vllm_sampler") if self.sampler == "vllm" else None
        if engine:
            function, lower = partial(engine.sample_completions, dtype=self.sampler_dtype or self.dtype), False
        draw = partial(
            function, self.model, num_samples=num_samples, max_new_tokens=max_new_tokens, temperature=temperature,
            seed=seed, end_ids=self.end_ids, decode=self.decode, on_batch=on_batch,
        )  # fmt: skip
        with torch.autocast(self.device.type, self.sampler_dtype, enabled=lower):
            drawn = drawn_in_shares(self.whole, draw, prompts)
        if engine and temperature == 1:
            self.sampler_kl = max(self.sampler_kl, engine.checked_kl(self, [c for some in drawn for c in some]))
        return drawn

    @property
    def samples_lower(self) -> bool:
        """Whether completions are drawn in another arithmetic than they are scored in."""
        return self.sampler_dtype not in (None, self.dtype)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, exactly as the tokens spell it."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @torch.inference_mode()
    def log_prob(self, completions: Sequence[Completion]) -> Tensor:
        """Log π(y|x) in nats at temperature 1, summed over completion tokens. Shape (len(completions),), float32."""
        values = torch.empty(len(completions), dtype=torch.float32)
        for batch in length_batches([c.length for c in completions], lambda longest: TOKENS_PER_BATCH // longest):
            values[batch] = self.completion_log_probs([completions[i] for i in batch]).cpu()
        return values

    def completion_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        """As `log_prob`, in one batch and with gradient: what the training losses are made of.

        A completion that is given several times passes through the model once, here and in the two below.
        """
        some, rows = _different(completions)
        return self._of_next(some, states=False)[0].sum(-1)[rows]

    def completion_token_log_probs(self, completions: Sequence[Completion]) -> tuple[Tensor, Tensor]:
        """Log π(y_t|x, y_<t) of every completion token, with gradient, and the mask that tells which entries are real.

        Shapes (len(completions), longest completion); column t is the completion's token t; 0 nats outside the mask.
        """
        logps, _, mask = self.completion_states(completions)
        return logps, mask

    def completion_states(self, completions: Sequence[Completion]) -> tuple[Tensor, Tensor, Tensor]:
        """As `completion_token_log_probs`, with the last hidden state before each token between the two.

        A value head reads these states; their shape is (len(completions), longest completion, hidden size).
        """
        some, rows = _different(completions)
        of_next, states = self._of_next(some, states=True)
        index, mask = _completion_positions(some, of_next.shape[1], self.device)
        return (of_next.gather(1, index) * mask)[rows], _at(states, index)[rows], mask[rows]

    @torch.inference_mode()
    def next_token_log_probs(self, completions: Sequence[Completion]) -> Tensor:
        """Log π(·|x, y_<t) for every completion token. Shape (len(completions), longest completion, vocabulary), float32."""
        return in_shares(self.whole, self._next_token_log_probs, completions)[0]

    def _next_token_log_probs(self, completions: Sequence[Completion]) -> tuple[Tensor]:
        batch = collate(completions).to(self.device)
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
        index, _ = _completion_positions(completions, batch.input_ids.shape[1], self.device)
        if self._head_is_linear:
            states = self.model.base_model(**inputs).last_hidden_state
            logits = self.model.get_output_embeddings()(_at(states, index))
        else:
            logits = _at(self.model(**inputs).logits, index)
        return (logits.float().log_softmax(-1),)

    def _of_next(self, completions: Sequence[Completion], *, states: bool) -> tuple[Tensor, ...]:
        """Log-probs of completion tokens at the positions that predict them, and the last hidden state at every position if it
        is asked for.
        """
        if torch.is_grad_enabled():
            self.tokens_trained += sum(c.length for c in completions)
        return in_shares(self.whole, lambda some: self._scored(some)[: 2 if states else 1], completions)

    def _scored(self, completions: Sequence[Completion]) -> tuple[Tensor, Tensor]:
        """No attention mask is needed, since padding on the right comes after all that is scored."""
        batch = collate(completions).to(self.device)
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
        if type(self.model.get_output_embeddings()) is nn.Linear and self._head_is_linear:
            head, states = self.model.get_output_embeddings(), self.model.base_model(**inputs).last_hidden_state
            return linear_token_log_probs(states, head.weight, head.bias, batch.input_ids, batch.completion_mask), states
        output = self.model(**inputs, output_hidden_states=True)
        return token_log_probs(output.logits, batch.input_ids, batch.completion_mask), output.hidden_states[-1]

    @cached_property
    def _head_is_linear(self) -> bool:
        return head_is_linear(self.model)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def copy(self) -> Self:
        model = whole_copy(self.model)
        if self.device.type == "cpu":
            model.set_attn_implementation("eager")  # short sequences train faster so than through sdpa's backward
        if self.lora_rank:
            add_adapters(model, self.lora_rank)
        own: dict[str, Any] = {"sampler_dtype": self.sampler_dtype, "sampler": self.sampler, "lora_rank": self.lora_rank}
        copied = type(self)(model, self.tokenizer, **own)
        if world_size() > 1:
            copied._head_is_linear = self._head_is_linear
        return copied.shared()

    def shared(self) -> Self:
        """The policy itself, of which each rank keeps a share of the weights where several make a run."""
        if world_size() > 1:
            _ = self._head_is_linear  # which is tried while the weights are whole
            self.whole = sharded(self.model)
        return self

    def save(self, directory: Path) -> None:
        """A `save_pretrained` folder; of a copy with adapters the adapters alone, which name the folder of their base."""
        self.model.save_pretrained(directory, state_dict=full_state(self.model))
        self.tokenizer.save_pretrained(directory)

    @classmethod
    def load(
        cls, directory: Path | str, *, dtype: torch.dtype = torch.float32, sampler_dtype: torch.dtype | None = None,
        device: str = "cpu", sampler: Sampler = "own", lora_rank: int = 0,
    ) -> Self:  # fmt: skip
        """Read a `save_pretrained` folder; adapters are merged into the weights of their base.

        Raises:
            UserError: The folder holds no causal language model with a tokenizer, or the base of its adapters is gone.
        """
        from transformers import AutoModelForCausalLM

        directory = Path(directory).resolve()  # adapters of copies will name it
        adapters = (directory / "adapter_config.json").exists()
        weights = base_of(directory) if adapters else directory
        what = "a causal language model"
        model, tokenizer = load_pretrained(AutoModelForCausalLM, weights, what, dtype=dtype, tokenizer=directory)
        model = with_adapters(model, directory) if adapters else model
        policy = cls(model.to(device), tokenizer, sampler_dtype=sampler_dtype, sampler=sampler, lora_rank=lora_rank)
        _check_sampler(policy, str(directory))
        return policy.shared()


@torch.inference_mode()
def _check_sampler(policy: CausalLMPolicy, name: str) -> None:
    """Draw a few tokens after prompts of two lengths: a model that reads what is to come, pays no heed to positions, or whose
    cache is of another kind does not give them the log-probs by which they were drawn. Tried, not guessed.

    Raises:
        UserError: It does not, or cannot.
    """
    rows = policy.model.get_input_embeddings().weight.shape[0]
    words = [i for i in range(min(rows, 64)) if i not in policy.end_ids][:5] or [0]
    prompts = [Prompt(f"{k}", tuple((words * 5)[:k]), "") for k in (2, 5)]
    try:
        drawn = sample_completions(
            policy.model, prompts, num_samples=1, max_new_tokens=3, temperature=1.0, seed=0, end_ids=policy.end_ids,
            decode=lambda ids: "",
        )  # fmt: skip
        completions = [some[0] for some in drawn]
        scored = policy.log_prob(completions)
    except Exception as error:
        raise UserError(
            f"{name}: completions cannot be drawn from a model of this kind ({type(error).__name__}: {first_line(error)})"
        ) from error
    gap = max(abs(c.sampler_log_prob - value) for c, value in zip(completions, scored.tolist(), strict=True))
    if not gap <= SAMPLER_GAP:
        raise UserError(
            f"{name}: its completions have other log-probs when they are read again (by {gap:.2g} nats): it reads what is to "
            "come, or positions in another way than a causal language model does"
        )


def _different(completions: Sequence[Completion]) -> tuple[list[Completion], list[int] | slice]:
    """Each completion once, and the index by which something of these gives back all."""
    first, rows = different([(c.prompt.ids, c.ids) for c in completions])
    return [completions[i] for i in first], rows


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Of (batch, length, size) those at positions (batch, time)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _completion_positions(completions: Sequence[Completion], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions whose outputs predict the completion's tokens, and which of them are real. Shapes (completions, longest)."""
    time = torch.arange(max(len(c.ids) for c in completions), device=device)
    first = torch.tensor([len(c.prompt.ids) - 1 for c in completions], device=device)  # predicts the first token
    lengths = torch.tensor([len(c.ids) for c in completions], device=device)
    return (first[:, None] + time).clamp_max(width - 1), time < lengths[:, None]
