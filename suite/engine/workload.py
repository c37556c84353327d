"""What a run asks of a machine, and the one formula for what that costs."""

from dataclasses import dataclass

FORWARD, TRAINED = 1, 3
"""Work of a token through the model, and of one with its backward pass (2 and 6 floating-point operations per parameter,
Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1)."""


@dataclass(frozen=True)
class Workload:
    """Sizes of a run, from its settings alone: for plans, the order of runs, progress and memory. Never part of a key."""

    prompt: int = 0  # tokens of a prompt, at most
    new: int = 0  # tokens of a completion, at most
    drawn: float = 0  # completions that are sampled
    scored: float = 0  # sequences that pass through a model without gradient; one that two models read counts twice
    trained: float = 0  # sequences with gradient, all epochs together
    rewarded: float = 0  # texts that the gold reward reads
    models: int = 0  # language models in memory at a time
    batch: int = 0  # sequences drawn at a time at most, or with gradient in one forward pass
    adapters: int = 0  # rank of low-rank adapters; 0: all weights are trained
    state: int = 4  # bytes of optimizer state per trained weight
    bfloat16: bool = False  # arithmetic of the forward pass with gradient
    one_process: bool = False  # what is trained cannot be sharded over several

    @property
    def length(self) -> int:
        """Tokens of a sequence, at most."""
        return self.prompt + self.new

    @property
    def tokens(self) -> float:
        """Forward tokens: (drawn + scored + 3·trained)·(prompt + new), an upper estimate."""
        return (FORWARD * (self.drawn + self.scored) + TRAINED * self.trained) * self.length


@dataclass(frozen=True)
class Speed:
    """Tokens a second, prompts included, of one worker process."""

    drawn: float
    scored: float
    trained: float
    rewarded: float
    start: float = 0.5  # seconds to load models, whatever is done with them

    def seconds(self, work: Workload) -> float:
        """What a run of such sizes takes, full lengths assumed."""
        parts = ((work.drawn, self.drawn), (work.scored, self.scored), (work.trained, self.trained),
                 (work.rewarded, self.rewarded))  # fmt: skip
        return self.start * min(1, work.models) + sum(count * work.length / rate for count, rate in parts)


def assumed_speed(parameters: float, *, on_gpu: bool) -> Speed:
    """Before anything is measured: 30 GFLOP/s, or 30 TFLOP/s on a GPU, half of it while sampling."""
    scored = (3e13 if on_gpu else 3e10) / (2 * max(1.0, parameters))
    return Speed(scored / 2, scored, scored / TRAINED, scored)
