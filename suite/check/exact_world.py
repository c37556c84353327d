"""The exact world: a language model so small that every completion of every prompt is enumerated.

Six tokens, EOS among them, and at most three steps: 156 completions per prompt. Whatever is estimated elsewhere (KL, expected
reward, the optimum of the RLHF objective) is a finite sum here, in float64, so estimators, losses and whole methods are held
against the truth. The one toy of the project.

Tables of log-probabilities [nats] and rewards have shape (prompts, 156), in the order of `ExactWorld.completions`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self, get_args

import torch
from torch import Tensor

from suite.data.batching import collate
from suite.data.labelling import Labels
from suite.data.preference_data import Completion, PreferencePair, Prompt, Ranking
from suite.maths.kl import kl_terms
from suite.maths.losses import dpo_loss

EOS = 0
WORDS = ("<eos>", "ant", "bee", "cat", "dog", "elk")
MAX_NEW_TOKENS = 3
PROMPTS = ((1,), (2, 3))


def word_tokenizer(words: Sequence[str] = WORDS) -> Any:
    """A Hugging Face tokenizer with one token per word; the first word is EOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[EOS]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=words[EOS], unk_token=words[EOS])


def tiny_language_model(seed: int = 0) -> Any:
    """A random GPT-2 of 13,408 parameters, far from uniform; able to represent any distribution over the completions."""
    from transformers import AutoConfig, GPT2LMHeadModel

    config: Any = AutoConfig.for_model(
        "gpt2", vocab_size=len(WORDS), n_positions=8, n_embd=32, n_layer=1, n_head=4, initializer_range=0.1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=EOS, eos_token_id=EOS, tie_word_embeddings=False,
        attn_implementation="eager",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    return model.eval()


class ExactWorld:
    """Prompts of different lengths, each with all its completions: what ends with EOS or, without it, at the length limit."""

    def __init__(self) -> None:
        self.prompts = [Prompt(f"prompt-{i}", ids, _text(ids)) for i, ids in enumerate(PROMPTS)]
        words = range(1, len(WORDS))
        every = [(EOS,), *((a, EOS) for a in words), *product(words, words, range(len(WORDS)))]
        self.completions = [[Completion(p, ids, _text(ids), truncated=ids[-1] != EOS) for ids in every] for p in self.prompts]

    @cached_property
    def _tree(self) -> tuple[Any, Tensor]:
        """Every context of two tokens as a row, and the positions of the three distributions met on the way."""
        words = range(1, len(WORDS))
        rows = [Completion(p, ids, "", truncated=True) for p in self.prompts for ids in product(words, words)]
        positions = torch.tensor([[len(r.prompt.ids) - 1 + t for t in range(MAX_NEW_TOKENS)] for r in rows])
        return collate(rows), positions

    def log_probs(self, model: Any) -> Tensor:
        """Log π(y|x) of every completion under a Hugging Face causal LM: shape (prompts, 156), with gradient, in its dtype.

        One forward pass over the 25 contexts of each prompt gives all 156; `CausalLMPolicy.log_prob` of `completions` is the
        long way to the same numbers.
        """
        batch, positions = self._tree
        batch = batch.to(model.device)
        logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
        of_next = logits[torch.arange(len(positions))[:, None], positions].log_softmax(-1)
        n = len(WORDS) - 1
        of_next = of_next.view(len(self.prompts), n, n, MAX_NEW_TOKENS, n + 1)
        first, second, third = of_next[:, 0, 0, 0], of_next[:, :, 0, 1], of_next[:, :, :, 2]
        one_word = first[:, 1:]
        two_words = one_word[:, :, None] + second[:, :, 1:]
        return torch.cat(
            [first[:, :1], one_word + second[:, :, 0], (two_words[..., None] + third).flatten(1)], dim=1
        )  # the order of `completions`: EOS; one word and EOS; two words and anything

    def random_rewards(self, seed: int, scale: float = 1.0) -> Tensor:
        """A normal reward of standard deviation `scale` for every completion. Shape (prompts, 156), float64."""
        generator = torch.Generator().manual_seed(seed)
        return scale * torch.randn(len(self.prompts), len(self.completions[0]), generator=generator, dtype=torch.float64)

    def word_rewards(self) -> Tensor:
        """A reward that is easily learned: the sum of a value per word. Shape (prompts, 156), float64."""
        values = dict(zip(range(1, len(WORDS)), (-1.0, -0.5, 0.0, 0.5, 1.0), strict=True))
        rows = [[sum(values.get(i, 0.5) for i in c.ids) for c in some] for some in self.completions]
        return torch.tensor(rows, dtype=torch.float64)

    def sample_pairs(
        self, reference: Tensor, rewards: Tensor, count: int, *, seed: int, labels: Labels = "bradley_terry"
    ) -> list[PreferencePair]:
        """Pairs of different completions drawn from π_ref, prompts taking turns: draws from `win_probabilities`.

        Each draw's prompt has an id of its own, so that training mixes them; two prompts with all pairs would be two batches.
        """
        per_prompt = -(-count // len(self.prompts))
        drawn = _draw_wins(win_probabilities(reference, rewards, labels=labels), per_prompt, seed=seed).tolist()
        pairs = []
        for i in range(count):
            which = i % len(self.prompts)
            order = divmod(drawn[which][i // len(self.prompts)], len(self.completions[which]))
            chosen, rejected = self._drawn(i, which, order)
            pairs.append(PreferencePair(chosen, rejected, *_values(rewards, which, order), *_values(reference, which, order)))
        return pairs

    def _drawn(self, draw: int, which: int, order: Sequence[int]) -> tuple[Completion, ...]:
        prompt = replace(self.prompts[which], id=f"{self.prompts[which].id}, draw {draw}")
        return tuple(replace(self.completions[which][k], prompt=prompt) for k in order)

    def sample_rankings(self, reference: Tensor, rewards: Tensor, count: int, *, seed: int, size: int = 4) -> list[Ranking]:
        """Rankings by the Plackett-Luce model of `rewards` of different completions drawn from π_ref, prompts taking turns."""
        generator = torch.Generator().manual_seed(seed)
        per_prompt = -(-count // len(self.prompts))
        drawn = [torch.multinomial(p.expand(per_prompt, -1), size, generator=generator) for p in reference.double().exp()]
        rankings = []
        for i in range(count):
            which = i % len(self.prompts)
            among = drawn[which][i // len(self.prompts)]
            gumbel = -torch.log(-torch.log(torch.rand(size, generator=generator, dtype=torch.float64)))
            order = among[(rewards[which, among] + gumbel).argsort(descending=True)].tolist()
            rankings.append(
                Ranking(self._drawn(i, which, order), _values(rewards, which, order), _values(reference, which, order))
            )
        return rankings


class TableReward:
    """A reward table as a `RewardFunction` of texts."""

    def __init__(self, table: dict[str, dict[str, float]]) -> None:
        self.table = table

    @classmethod
    def of(cls, world: ExactWorld, rewards: Tensor) -> Self:
        return cls(
            {p.text: {c.text: float(r) for c, r in zip(some, row, strict=True)}
             for p, some, row in zip(world.prompts, world.completions, rewards, strict=True)}
        )  # fmt: skip

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        return [self.table[p][c] for p, c in zip(prompts, completions, strict=True)]

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "table.json").write_text(json.dumps(self.table))

    @classmethod
    def load(cls, directory: Path) -> Self:
        return cls(json.loads((directory / "table.json").read_text()))


def optimum(reference: Tensor, rewards: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """The maximiser of E[r] - β·KL(π‖π_ref), Eq. 4 of Rafailov et al. 2023: log π* = log π_ref + r/β - log Z.

    Returns:
        log π*, shape (prompts, completions), and log Z(x), shape (prompts,). The objective's maximum is β·log Z(x).

    Raises:
        ValueError: `beta` ≤ 0.
    """
    if not beta > 0:
        raise ValueError(f"beta: expected a number > 0, got {beta}")
    scores = reference + rewards / beta
    log_partition = scores.logsumexp(-1)
    return scores - log_partition[:, None], log_partition


def expected_reward(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """E_π[r(x, y)] per prompt, in reward units. Shape (prompts,)."""
    return (log_probs.exp() * rewards).sum(-1)


def exact_kl(log_probs: Tensor, other: Tensor) -> Tensor:
    """KL(π‖π') over completions per prompt, in nats. Shape (prompts,)."""
    return kl_terms(log_probs, other, estimator="exact")


def best_of_n(reference: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Log-probs of Best-of-N: P(best reward = v) = F(v)ⁿ - F(v⁻)ⁿ with F the reference's distribution of the reward.

    Completions of equal reward share it in proportion to π_ref (the first of them is kept, whichever it is).

    Raises:
        ValueError: `n` < 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    p = reference.double().softmax(-1)
    up_to = (p[:, None, :] * (rewards[:, None, :] <= rewards[:, :, None])).sum(-1)
    before = (p[:, None, :] * (rewards[:, None, :] < rewards[:, :, None])).sum(-1)
    return (p / (up_to - before) * (up_to**n - before**n)).clamp_min(1e-300).log()


def win_probabilities(reference: Tensor, rewards: Tensor, *, labels: Labels = "bradley_terry") -> Tensor:
    """Probability that a pair drawn from π_ref is (a, b) and that a is preferred.

    With Bradley-Terry labels a is preferred with probability σ(r_a - r_b), with hard labels if its reward is larger; pairs of
    equal completions, and with hard labels of equal rewards, are not drawn. The shape is (prompts, completions, completions),
    rows the preferred; it sums to 1 per prompt.

    Raises:
        ValueError: Unknown `labels`.
    """
    if labels not in get_args(Labels):
        raise ValueError(f"labels: expected one of {', '.join(get_args(Labels))}, got {labels!r}")
    drawn = (reference[:, :, None] + reference[:, None, :]).exp()
    difference = rewards[:, :, None] - rewards[:, None, :]
    wins = drawn * (difference.sigmoid() if labels == "bradley_terry" else (difference > 0).to(drawn.dtype))
    wins = wins * (1 - torch.eye(wins.shape[1], dtype=wins.dtype))
    return wins / wins.sum((1, 2), keepdim=True)


def sample_wins(wins: Tensor, count: int, *, seed: int) -> Tensor:
    """Relative frequencies among `count` pairs per prompt drawn from `win_probabilities`: what a finite data set knows."""
    drawn = _draw_wins(wins, count, seed=seed)
    counts = torch.zeros_like(wins.flatten(1)).scatter_add(1, drawn, torch.ones(drawn.shape, dtype=wins.dtype))
    return (counts / count).view_as(wins)


def _draw_wins(wins: Tensor, count: int, *, seed: int) -> Tensor:
    """Flat indices of (preferred, other), shape (prompts, count)."""
    return torch.multinomial(wins.flatten(1), count, replacement=True, generator=torch.Generator().manual_seed(seed))


def mean_dpo_loss(policy: Tensor, reference: Tensor, wins: Tensor, *, beta: float) -> Tensor:
    """The DPO loss averaged over a table of wins: its expectation for `win_probabilities`, no sampling noise left.

    `policy` and `reference` hold log π, with gradient, and log π_ref, of shape (prompts, completions); `wins` the weight of
    "a is preferred to b", of shape (prompts, completions, completions). The scalar is the mean over prompts.
    """
    h = policy - reference
    margins = (h[:, :, None] - h[:, None, :]).flatten()
    nothing = torch.zeros_like(margins)
    losses = dpo_loss(margins, nothing, nothing, nothing, beta=beta)
    return (wins.flatten() * losses).sum() / len(policy)


def fit_exactly(world: ExactWorld, model: Any, loss: Any, *, steps: int = 2500, lr: float = 3e-3) -> Tensor:
    """Minimise `loss(log_probs)` over the model's weights by Adam with a cosine schedule; returns the final log-probs.

    For losses that are expectations: there is no data and nothing is drawn.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(world.log_probs(model)).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return world.log_probs(model).double()


def _text(ids: Sequence[int]) -> str:
    return " ".join(WORDS[i] for i in ids if i != EOS)


def _values(table: Tensor, which: int, index: Sequence[int]) -> tuple[float, ...]:
    return tuple(float(table[which, i]) for i in index)
