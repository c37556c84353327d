"""What runs will take on GPUs that are not here: memory and hours, by formula alone, with the arithmetic to be checked.

Operations are 2 per weight and token forwards and 4 backwards (Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1), at full
lengths; a step of sampling takes at least the time to read the weights, and that to start its kernels. None of it was measured
on such a card.
"""

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tabulate import tabulate

from suite.common.errors import UserError
from suite.engine.making import closure
from suite.engine.memory import GIB, Shape, memory_of, shape_of
from suite.engine.rank_runs import ranks_of
from suite.engine.store import RunSpec
from suite.engine.workload import FORWARD, TRAINED, Workload
from suite.policies.sampling import rows_per_batch

SHARE = 0.3
"""Of the card's peak that matrix products reach: an assumption, as the next one."""
LAYER_S = 5e-4
"""Seconds in which a layer's kernels are started, in every step of sampling."""
START_S = 30.0
"""Seconds in which a run's models are read."""


@dataclass(frozen=True)
class Card:
    """A GPU by its maker's data sheet (Nvidia, A100 80GB SXM and H100 SXM)."""

    name: str
    memory: float  # bytes
    bfloat16: float  # dense operations a second
    float32: float  # and without TF32
    bandwidth: float  # bytes a second


CARDS = (
    Card("A100, 80 GB", 80e9, 312e12, 19.5e12, 2.04e12),
    Card("H100, 80 GB", 80e9, 989e12, 67e12, 3.35e12),
)  # fmt: skip


@dataclass(frozen=True)
class Forecast:
    """What some runs take on `gpus` cards of one kind."""

    hours: float  # from the first to the last, each on as few cards as hold it
    card_hours: float
    needed: Mapping[str, int]  # key → cards
    seconds: Mapping[str, float]  # key → seconds
    too_large: Sequence[RunSpec]  # no number of the cards holds them; not counted, nor what needs them


def forecast(targets: Sequence[RunSpec], card: Card, gpus: int) -> Forecast:
    """What `targets` and all they need take; what most work waits for goes first."""
    specs = [replace(spec, where={**spec.where, "device": "cuda"}) for spec in closure(targets)]
    needed, seconds, too_large, lost = dict[str, int](), dict[str, float](), list[RunSpec](), set[str]()
    for spec in specs:
        cards = cards_for(spec, card, gpus)
        if cards is None:
            too_large.append(spec)
        if cards is None or any(part.key in lost for part in spec.inputs.values()):
            lost.add(spec.key)
            continue
        needed[spec.key], seconds[spec.key] = cards, seconds_of(spec, card) / cards
    specs = [spec for spec in specs if spec.key not in lost]
    card_hours = sum(seconds[key] * needed[key] for key in seconds) / 3600
    return Forecast(_last_end(specs, needed, seconds, gpus) / 3600, card_hours, needed, seconds, too_large)


def cards_for(spec: RunSpec, card: Card, gpus: int) -> int | None:
    """How many cards hold a run: 1, 2, 4, … up to `gpus`; None if these do not."""
    cards = 1
    while cards <= gpus and ranks_of(spec, cards) == cards:
        if (memory_of(spec, cards) or 0.0) <= card.memory:
            return cards
        cards *= 2
    return None


def seconds_of(spec: RunSpec, card: Card) -> float:
    """What a run takes on one card."""
    return sum(parts_of(spec, card).values())


def parts_of(spec: RunSpec, card: Card) -> dict[str, float]:
    """Seconds of a run on one card, by what they go into."""
    work, shape = spec.work, shape_of(spec.where["model"]) if spec.work.models else None
    if work.models and shape is None:
        raise UserError(
            f"{spec.stage} {spec.title!r}: the size of the model {spec.where['model']} is not known here: it is not there"
        )
    gold = shape_of(spec.where["gold_reward"]) if work.rewarded and spec.where.get("gold_reward") else None
    if shape is None and gold is None:
        return {}
    parts = {"start": START_S}
    if shape is not None:
        reads = spec.config.get("reference_log_probs") or spec.config.get("precision") or "float32"
        parts["training"] = 2 * shape.parameters * TRAINED * work.trained * work.length / _rate(card, work.bfloat16)
        parts["scoring"] = (
            2 * shape.parameters * FORWARD * work.scored * work.length / _rate(card, work.bfloat16 or reads == "bfloat16")
        )
        at_once = spec.config.get("config", {}).get("samples_per_step", work.drawn)
        parts["sampling"] = _sampling(work, shape, card, spec.config.get("sampler_dtype") == "bfloat16", at_once)
    if gold is not None:
        parts["gold reward"] = 2 * gold.parameters * work.rewarded * work.length / _rate(card, bfloat16=False)
    return parts


def _rate(card: Card, bfloat16: bool) -> float:
    return SHARE * (card.bfloat16 if bfloat16 else card.float32)


def _sampling(work: Workload, shape: Shape, card: Card, bfloat16: bool, at_once: float) -> float:
    """Of a run that draws at most `at_once` completions before it does something else."""
    if not work.drawn or not work.new:
        return 0.0
    rows = min(rows_per_batch(shape.cached, work.length, on_gpu=True), work.drawn, at_once)
    steps = -(-work.drawn // rows) * work.new
    return steps * _least_step(shape, card) + 2 * shape.parameters * work.drawn * work.length / _rate(card, bfloat16)


def _least_step(shape: Shape, card: Card) -> float:
    """Seconds in which the weights are read once, or every layer's kernels started."""
    return max(4 * shape.parameters / card.bandwidth, LAYER_S * shape.layers)


def _last_end(specs: Sequence[RunSpec], needed: Mapping[str, int], seconds: Mapping[str, float], gpus: int) -> float:
    """When the last of `specs` ends, inputs given first: of those that may begin when enough cards are free, the one that most
    work waits for does.
    """
    after, waiting = defaultdict[str, list[RunSpec]](list), dict[str, int]()
    for spec in specs:
        inputs = {part.key for part in spec.inputs.values()}
        waiting[spec.key] = len(inputs)
        for key in inputs:
            after[key].append(spec)
    chain = dict[str, float]()
    for spec in reversed(specs):
        chain[spec.key] = seconds[spec.key] + max((chain[s.key] for s in after[spec.key]), default=0.0)
    ready, running, now = [spec for spec in specs if not waiting[spec.key]], list[tuple[float, str]](), 0.0
    while ready or running:
        ready.sort(key=lambda spec: -chain[spec.key])
        while ready and needed[ready[0].key] <= gpus - sum(needed[key] for _, key in running):
            spec = ready.pop(0)
            heapq.heappush(running, (now + seconds[spec.key], spec.key))
        now = running[0][0]
        while running and running[0][0] <= now:
            for following in after[heapq.heappop(running)[1]]:
                waiting[following.key] -= 1
                if not waiting[following.key]:
                    ready.append(following)
    return now


def told(targets: Sequence[RunSpec], counts: Sequence[int] = (1, 8)) -> str:
    """Tables and arithmetic, for people."""
    specs = closure(targets)
    found = {(card.name, count): forecast(targets, card, count) for card in CARDS for count in counts}
    stages = defaultdict[str, list[RunSpec]](list)
    for spec in specs:
        if spec.work.models or spec.work.rewarded:
            stages[spec.stage].append(spec)
    rows = []
    for stage, some in stages.items():
        memory = [max((memory_of(_on_gpu(s), ranks_of(s, count)) or 0.0) for s in some) / GIB for count in counts]
        hours = [sum(seconds_of(s, card) for s in some) / 3600 for card in CARDS]
        rows.append((stage, len(some), sum(s.cost for s in some) / 1e6, *hours, *memory))
    headers = ["stage", "runs", "10⁶ tokens", *(f"hours, {card.name[:4]}" for card in CARDS), *(f"GiB, of {n}" for n in counts)]
    lines = [tabulate(rows, headers=headers, floatfmt=",.1f"), ""]
    for (name, count), what in found.items():
        lines.append(
            f"{count} × {name}: {what.hours:,.1f} hours from the first run to the last, {what.card_hours:,.1f} card-hours"
        )
        if spread := sum(cards > 1 for cards in what.needed.values()):
            lines[-1] += f"; {spread} runs need several cards each (--gpus {max(what.needed.values())})"
        if what.too_large:
            lines[-1] += f"; {len(what.too_large)} runs do not fit, and are not counted, nor what needs them: "
            lines[-1] += _largest_of_each_stage(what.too_large, count)
    largest = max((s for s in specs if s.work.models), key=lambda s: memory_of(_on_gpu(s)) or 0.0, default=None)
    longest = max((s for s in specs if s.work.models), key=lambda s: seconds_of(s, CARDS[0]), default=None)
    if largest and longest:
        lines += ["", _memory_told(largest), _time_told(longest, CARDS[0])]
    return "\n".join(lines)


def _largest_of_each_stage(specs: Sequence[RunSpec], count: int) -> str:
    sizes = sorted(((memory_of(spec, ranks_of(spec, count)) or 0.0, spec.stage, spec.title) for spec in specs), reverse=True)
    largest = {stage: (title, size) for size, stage, title in reversed(sizes)}
    return ", ".join(f"{stage} {title!r} ({size / GIB:.0f} GiB)" for stage, (title, size) in largest.items())


def _on_gpu(spec: RunSpec) -> RunSpec:
    return replace(spec, where={**spec.where, "device": "cuda"})


def _memory_told(spec: RunSpec) -> str:
    shape, work, total = shape_of(spec.where["model"]), spec.work, memory_of(_on_gpu(spec)) or 0.0
    if shape is None:
        return ""
    trained = work.adapters * shape.in_linear if work.adapters else shape.parameters if work.trained else 0
    weights, state = 4 * work.models * shape.parameters / GIB, (4 + work.state) * trained / GIB
    return (
        f"Memory, largest run, {spec.stage} {spec.title!r}, on one card: {work.models} models · "
        f"{shape.parameters / 1e6:,.0f} million weights · 4 bytes = {weights:.1f} GiB; gradients and the optimizer's state of "
        f"{trained / 1e6:,.0f} million · (4 + {work.state}) bytes = {state:.1f} GiB; activations of {work.batch} sequences of "
        f"{work.length} tokens or the cache, what the allocator holds beside that, and the process: "
        f"{total / GIB - weights - state:.1f} GiB; together {total / GIB:.1f} GiB."
    )


def _time_told(spec: RunSpec, card: Card) -> str:
    shape, work = shape_of(spec.where["model"]), spec.work
    if shape is None:
        return ""
    parts = "; ".join(f"{name} {seconds / 3600:.2f} h" for name, seconds in parts_of(spec, card).items() if seconds >= 36)
    rows = rows_per_batch(shape.cached, work.length, on_gpu=True)
    return (
        f"Time, longest run, {spec.stage} {spec.title!r}, on one {card.name}: {work.trained:,.0f} sequences trained, "
        f"{work.scored:,.0f} scored, {work.drawn:,.0f} drawn, of {work.prompt} + {work.new} tokens; 2 · "
        f"{shape.parameters / 1e6:,.0f} million operations a token, {TRAINED} times as many if trained, at {SHARE:.0%} of "
        f"{card.bfloat16 / 1e12:,.0f} (bfloat16) or {card.float32 / 1e12:,.1f} (float32) · 10¹² a second; a step of "
        f"sampling of {rows} rows takes at least {1e3 * _least_step(shape, card):.0f} ms: {parts}."
    )
