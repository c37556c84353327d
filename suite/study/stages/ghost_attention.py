"""Stages `user_turns`, `dialogues`, `gatt` and `consistency`: from what users say to who keeps instructions."""

import json
from typing import Any

import pandas as pd
from jinja2 import TemplateError
from pydantic import TypeAdapter

from suite.common.errors import UserError
from suite.data.instructions import Instruction
from suite.data.parquet import completions_from_table, completions_table, prompts_table, read_prompts
from suite.data.preference_data import Completion
from suite.engine.store import Run
from suite.evaluation.instruction_attention import attention_on, tokens_of, with_attentions
from suite.interfaces import TrainingData
from suite.methods.supervised import SFT
from suite.study.stages.inputs import load_policy, reference_policy, snapshots
from suite.tasks.dialogues import read_dialogues
from suite.tasks.ghost_attention import FORM, Conversation, Placement, converse, example_of
from suite.tasks.splits import read_rows
from suite.tasks.text_format import why

LENGTHS = ("max_prompt_tokens", "max_new_tokens", "temperature", "seed")
PLACEMENTS: tuple[Placement, ...] = ("every", "first")
"""Of answers that are learned from."""
MEASURED: dict[Placement, str] = {"first": "answers", "none": "unasked"}
"""Of answers that are measured → their table."""
ANSWERS = ["dialogue_id", "turn", "user", "answer", "cut", "kept"]


def read_user_turns(run: Run) -> None:
    """Leave `user_turns.parquet`: `split`, `dialogue_id`, `turns`, `instruction`, which is a place in the list of the settings;
    each has as many dialogues as another, or one less. And `counts.json`.
    """
    config = run.spec.config
    splits = read_rows(FORM, run.spec.where["source"])
    parts, counts = read_dialogues(splits, config["turns"], train=config["train"], test=config["test"])
    rows = [
        (split, dialogue.id, list(dialogue.turns), number % len(config["instructions"]))
        for split, dialogues in parts.items()
        for number, dialogue in enumerate(dialogues)
    ]
    run.write_table("user_turns.parquet", pd.DataFrame(rows, columns=["split", "dialogue_id", "turns", "instruction"]))
    (run.directory / "counts.json").write_text(json.dumps(counts))


def conversations(run: Run, split: str) -> list[Conversation]:
    """The dialogues of a split of the input `user_turns`, without answers."""
    known = [Instruction(**row) for row in run.spec.inputs["user_turns"].config["instructions"]]
    table = pd.read_parquet(run.input("user_turns") / "user_turns.parquet")
    rows = table[table["split"] == split].itertuples(index=False)
    return [Conversation(row.dialogue_id, known[row.instruction], tuple(row.turns)) for row in rows]


def answer_rows(talk: Conversation) -> list[tuple[str, int, str, str, bool, bool]]:
    """One row per answer, `ANSWERS`; turns from 1."""
    return [
        (talk.id, turn + 1, talk.turns[turn], answer, talk.cut[turn], talk.kept(turn))
        for turn, answer in enumerate(talk.answers)
    ]


def draw_dialogues(run: Run) -> None:
    """The model's answers to the training dialogues with the instruction in every user turn, and in the first only.

    Leaves `dialogues_….parquet` with all answers and, for training with the instruction in the first turn, the last answers as
    `texts_….parquet` after `prompts_….parquet`, of both placements for the same dialogues: one that cannot be used with one
    placement is used with neither, and is counted in `counts.json`.
    """
    config, policy = run.spec.config, reference_policy(run)
    asked = conversations(run, "train")
    counts = dict[str, int]()
    drawn, made = dict[str, dict[str, Conversation]](), dict[str, dict[str, Completion]]()
    with run.progress(2 * sum(len(talk.turns) for talk in asked), "answers") as bar:
        for placement in PLACEMENTS:
            keywords = {name: config[name] for name in LENGTHS}
            talks, left = converse(policy, asked, placement, **keywords, on_batch=bar.update)
            drawn[placement], made[placement] = {talk.id: talk for talk in talks}, {}
            for talk in talks:
                try:
                    if not talk.answers[-1]:
                        raise ValueError("empty last answer")
                    made[placement][talk.id] = example_of(talk, "first", policy.tokenizer, config["max_new_tokens"])
                except (ValueError, TemplateError) as error:
                    left[why(error)] = left.get(why(error), 0) + 1
            counts |= {f"instruction in {placement}: {reason}": count for reason, count in left.items()}
    both = [talk.id for talk in asked if all(talk.id in made[placement] for placement in PLACEMENTS)]
    if not both:
        raise UserError(f"none of {len(asked)} dialogues can be trained on ({counts}); raise --max-prompt-tokens")
    for placement in PLACEMENTS:
        rows = [row for name in both for row in answer_rows(drawn[placement][name])]
        run.write_table(f"dialogues_{placement}.parquet", pd.DataFrame(rows, columns=ANSWERS))
        texts = [made[placement][name] for name in both]
        run.write_table(f"prompts_{placement}.parquet", prompts_table([text.prompt for text in texts]))
        run.write_table(f"texts_{placement}.parquet", completions_table([[text] for text in texts]))
    if policy.sampler_kl:
        run.costs["sampler_kl"] = policy.sampler_kl
    (run.directory / "counts.json").write_text(json.dumps({"rows": len(asked), **counts, "used": len(both)}))


def fine_tune_on_answers(run: Run) -> None:
    """Maximum likelihood on the last answers of the input `dialogues`, sampled with the settings' placement."""
    config, placement = run.spec.config, run.spec.config["placement"]
    prompts = read_prompts(run.input("dialogues") / f"prompts_{placement}.parquet")
    texts = completions_from_table(pd.read_parquet(run.input("dialogues") / f"texts_{placement}.parquet"), prompts)
    settings: Any = TypeAdapter(SFT.Config).validate_python(config["config"])
    policy = SFT().train(TrainingData(texts=texts), reference_policy(run), settings, run)
    run.costs["tokens_trained"] = getattr(policy, "tokens_trained", 0)


def measure_consistency(run: Run) -> None:
    """Let a policy answer the test dialogues, the instruction in the first user turn only, and once more without it.

    Leaves `answers.parquet` (`dialogue_id`, `turn`, `user`, `answer`, `cut`, `kept`), `unasked.parquet` with the answers to the
    same dialogues without the instruction, of which `kept` is checked all the same, `attention.parquet` of the first dialogues
    (`dialogue_id`, `turn`, `attention`, `largest_layer`, `even`), and `counts.json`. A dialogue that cannot be answered in one
    of the two ways is in neither.
    """
    config = run.spec.config
    policy = load_policy(run, snapshots(run.input("policy"))[-1]) if "policy" in run.spec.inputs else reference_policy(run)
    asked = conversations(run, "test")
    answered, left = dict[Placement, dict[str, Conversation]](), dict[str, int]()
    with run.progress(2 * sum(len(talk.turns) for talk in asked), "answers") as bar:
        for placement in MEASURED:
            keywords = {name: config[name] for name in LENGTHS}
            drawn, missed = converse(policy, asked, placement, **keywords, on_batch=bar.update)
            answered[placement] = {talk.id: talk for talk in drawn}
            left |= {f"instruction in {placement}: {reason}": count for reason, count in missed.items()}
    both = [talk.id for talk in asked if all(talk.id in answered[placement] for placement in MEASURED)]
    if not both:
        raise UserError(f"none of {len(asked)} test dialogues can be answered ({left}); raise --max-prompt-tokens")
    for placement, name in MEASURED.items():
        rows = [row for of in both for row in answer_rows(answered[placement][of])]
        run.write_table(f"{name}.parquet", pd.DataFrame(rows, columns=ANSWERS))
    talks = [answered["first"][of] for of in both]
    shares = []
    with with_attentions(policy.model):
        for talk in talks[: config["attention_dialogues"]]:
            for turn in range(len(talk.turns)):
                part = Conversation(talk.id, talk.instruction, talk.turns, talk.answers[: turn + 1], talk.cut[: turn + 1])
                try:
                    text = example_of(part, "first", policy.tokenizer, config["max_new_tokens"])
                except (ValueError, TemplateError) as error:  # a template that changes this answer
                    left[f"attention: {why(error)}"] = left.get(f"attention: {why(error)}", 0) + 1
                    continue
                tokens = tokens_of(talk.instruction.instruction, text.prompt, policy.tokenizer)
                if tokens and (found := attention_on(tokens, text, policy.model)):
                    shares.append((talk.id, turn + 1, *found))
    columns = ["dialogue_id", "turn", "attention", "largest_layer", "even"]
    run.write_table("attention.parquet", pd.DataFrame(shares, columns=columns))
    if policy.sampler_kl:
        run.costs["sampler_kl"] = policy.sampler_kl
    (run.directory / "counts.json").write_text(json.dumps({"rows": len(asked), **left, "used": len(both)}))
