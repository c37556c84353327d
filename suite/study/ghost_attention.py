"""A study of Ghost Attention: its settings, and the runs that they mean. Who is compared, and what each learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from suite.common.errors import UserError
from suite.common.sources import data_digest, resolve_model
from suite.data.instructions import Instruction, as_rows, read_instructions
from suite.data.local_files import KINDS
from suite.engine.code_hash import code_hash
from suite.engine.store import RunSpec
from suite.engine.workload import Workload
from suite.policies.model_config import check_language_model, context_of, load_config
from suite.study.stage_table import STAGES, drawn_by, made_of
from suite.study.study import Precision, Sampler, Study
from suite.training.settings import OptimConfig

GIVEN, PLAIN, GATT = "given model", "plain SFT", "GAtt"
SAMPLED_WITH = {PLAIN: "first", GATT: "every"}
"""Policy that is trained → in which user turns the instruction stood when its answers were sampled. It is trained with the
instruction in the first."""
OWN_HELPERS = tuple(f"{STAGES}.ghost_attention:{name}" for name in ("conversations", "answer_rows"))
LONGEST_PROMPT = 640
"""Tokens of a prompt where nothing is said, if the model's context has room for them."""


@dataclass(frozen=True)
class GhostAttention:
    """Model, data and sizes."""

    model: str  # folder or Hub name: who answers and is fine-tuned
    source: str  # dialogues: Hub name, folder or file
    instructions: tuple[Instruction, ...]
    optim: OptimConfig  # of both fine-tunings; one snapshot
    dialogues: int = 100  # to train on, at most
    test_dialogues: int = 48  # at most
    turns: int = 4  # user turns of every dialogue
    max_prompt_tokens: int | None = None  # longer ones are left out; None: `LONGEST_PROMPT`, or the context's room
    max_new_tokens: int = 64  # of an answer, the token that ends it included
    temperature: float = 1.0  # of all answers
    seeds: tuple[int, ...] = (1, 2, 3)  # each samples, trains and is measured on its own
    lora_rank: int = 0  # adapters of this rank are trained; 0: all weights
    attention_dialogues: int = 16  # so many test dialogues show where attention falls
    sampler_dtype: Precision = "float32"
    sampler: Sampler = "own"
    device: str = "cpu"


SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"dialogues": 8, "test_dialogues": 3, "turns": 2, "max_new_tokens": 12, "attention_dialogues": 2},
    "local": {"dialogues": 64, "test_dialogues": 32, "turns": 4, "max_new_tokens": 64, "attention_dialogues": 8},
}
"""Of a study within another, by profile."""


def ghost_attention_of(profile: str, study: Study, seeds: Sequence[int]) -> GhostAttention:
    """Ghost Attention on the model and dialogues of another study, with the package's instructions."""
    optim = replace(study.optim, lr=2e-5, batch_size=8, micro_batch_size=1, num_epochs=2, num_snapshots=1)
    return GhostAttention(
        model=study.model, source=str(study.source), instructions=read_instructions(None), optim=optim, seeds=tuple(seeds),
        lora_rank=study.lora_rank, sampler_dtype=study.sampler_dtype, sampler=study.sampler, device=study.device,
        **SIZES[profile],
    )  # fmt: skip


@dataclass(frozen=True)
class GhostAttentionPlan:
    """The runs of a study."""

    settings: GhostAttention
    user_turns: RunSpec  # what users say, for training and for testing
    dialogues: Mapping[int, RunSpec]  # seed → the answers that are learned from
    policies: Mapping[tuple[str, int], RunSpec]  # (policy, seed) → its fine-tuning
    consistency: Mapping[
        tuple[str, int], RunSpec
    ]  # (policy, seed) → its answers to the test dialogues, with the instruction and without

    @property
    def targets(self) -> list[RunSpec]:
        """What must be made."""
        return list(self.consistency.values())


def plan_ghost_attention(settings: GhostAttention) -> GhostAttentionPlan:
    """The runs of a study: user turns, and for every seed the answers that are learned from, two fine-tunings, and the answers
    of three policies. Raises UserError if there is no such model or data, or the lengths do not fit into its context.
    """
    model, digest = resolve_model(settings.model)
    longest = settings.max_prompt_tokens or _longest_prompt(model, settings)
    check_language_model(model, settings.model, longest, settings.max_new_tokens)
    _check_source(settings.source)
    where = {"model": model, "device": settings.device, "source": settings.source, "sampler": settings.sampler}

    def spec(
        stage: str, config: Mapping[str, Any], inputs: Mapping[str, RunSpec], title: str, lengths: bool = True, **sizes: Any
    ) -> RunSpec:
        work = Workload(prompt=longest, new=settings.max_new_tokens, **sizes) if lengths else Workload()
        code = made_of(stage, config, helpers=OWN_HELPERS)
        return RunSpec(stage, config, inputs, code_hash(*code), where, title, work, code[1][0], code)

    read = {
        "source": data_digest(settings.source), "turns": settings.turns, "train": settings.dialogues,
        "test": settings.test_dialogues, "instructions": as_rows(settings.instructions),
    }  # fmt: skip
    user_turns = spec("user_turns", read, {}, "user turns", lengths=False)
    dialogues: dict[int, RunSpec] = {}
    policies: dict[tuple[str, int], RunSpec] = {}
    consistency: dict[tuple[str, int], RunSpec] = {}
    answers, tested = settings.dialogues * settings.turns, settings.test_dialogues * settings.turns
    for seed in settings.seeds:
        shared = {"model": digest, "seed": seed, "sampler_dtype": settings.sampler_dtype}
        drawing = {
            **shared, **drawn_by(settings.sampler, settings.device), "max_prompt_tokens": longest,
            "max_new_tokens": settings.max_new_tokens, "temperature": settings.temperature,
        }  # fmt: skip
        said = {"user_turns": user_turns}
        dialogues[seed] = spec("dialogues", drawing, said, f"dialogues, seed {seed}", drawn=2 * answers, models=1)
        for name, placement in SAMPLED_WITH.items():
            training = {
                **shared, "placement": placement, "config": {"optim": asdict(settings.optim)}, "lora_rank": settings.lora_rank,
            }  # fmt: skip
            policies[name, seed] = spec(
                "gatt", training, {"dialogues": dialogues[seed]}, f"{name}, seed {seed}", models=2,
                trained=settings.dialogues * settings.optim.num_epochs, batch=settings.optim.micro_batch_size,
                bfloat16=settings.optim.precision == "bfloat16", adapters=settings.lora_rank,
            )  # fmt: skip
        for name in (GIVEN, *SAMPLED_WITH):
            inputs = {**said, **({"policy": policies[name, seed]} if name in SAMPLED_WITH else {})}
            measuring = {**drawing, "attention_dialogues": settings.attention_dialogues}
            consistency[name, seed] = spec(
                "consistency", measuring, inputs, f"answers of {name}, seed {seed}", drawn=2 * tested, models=1
            )
    return GhostAttentionPlan(settings, user_turns, dialogues, policies, consistency)


def _longest_prompt(model: str, settings: GhostAttention) -> int:
    context = context_of(load_config(model, settings.model)) if (Path(model) / "config.json").exists() else None
    return max(1, min(LONGEST_PROMPT, (context or LONGEST_PROMPT + settings.max_new_tokens) - settings.max_new_tokens))


def _check_source(source: str) -> None:
    for given in filter(None, map(str.strip, source.split(","))):
        local = given.startswith((".", "/", "~")) or Path(given).suffix in {*KINDS, ".gz"}
        if local and not Path(given).expanduser().exists():
            raise UserError(f"{given}: there are no dialogues; give a file, a folder or a Hub name")
