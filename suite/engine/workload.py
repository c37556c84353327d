"""What a run asks of a machine, and the one formula for what that costs."""

from dataclasses import dataclass

FORWARD, TRAINED = 1, 3
"""Work of a token through the model, and of one with its backward pass (2 and 6 floating-point operations per parameter,
Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1)."""


@dataclass(frozen=True)
class Workload:
    """Sizes of a run, from its settings alone: for plans, the order of runs, progress bars and memory. Never part of a key."""

    prompt: int = 0  # tokens of a prompt, at most
    new: int = 0  # tokens of a completion, at most
    drawn: float = 0  # completions that are sampled
    scored: float = 0  # sequences that pass through a model without gradient; one that two models read counts twice
    trained: float = 0  # sequences with gradient, all epochs together
    models: int = 0  # language models in memory at a time
    batch: int = 0  # sequences drawn at a time at most, or with gradient in one forward pass
    adapters: int = 0  # rank of low-rank adapters; 0: all weights are trained
    state: int = 4  # bytes of optimizer state per trained weight
    bfloat16: bool = False  # arithmetic of the forward pass with gradient

    @property
    def tokens(self) -> float:
        """Forward tokens: (drawn + scored + 3·trained)·(prompt + new), an upper estimate."""
        return (FORWARD * (self.drawn + self.scored) + TRAINED * self.trained) * (self.prompt + self.new)
