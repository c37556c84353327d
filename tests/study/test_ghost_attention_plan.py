"""The plan of Ghost Attention: which runs there are, what they read, and what decides their keys."""

from dataclasses import replace

import pytest

from suite.common.errors import UserError
from suite.data.instructions import read_instructions
from suite.engine.making import closure
from suite.study.ghost_attention import GATT, GIVEN, PLAIN, GhostAttention, plan_ghost_attention
from suite.study.profiles import EMBEDDED
from suite.training.settings import OptimConfig

SETTINGS = GhostAttention(
    model=EMBEDDED, source="invented", instructions=read_instructions(), optim=OptimConfig(num_snapshots=1), turns=2,
    max_new_tokens=12, seeds=(1, 2),
)  # fmt: skip


def test_three_policies_of_every_seed_and_what_they_read():
    plan = plan_ghost_attention(SETTINGS)
    assert set(plan.consistency) == {(name, seed) for name in (GIVEN, PLAIN, GATT) for seed in (1, 2)}
    assert len(closure(plan.targets)) == 1 + 2 + 4 + 6
    for (name, seed), spec in plan.consistency.items():
        assert spec.inputs["user_turns"] is plan.user_turns
        assert spec.inputs.get("policy") is plan.policies.get((name, seed))
        assert spec.config["seed"] == seed
    for (name, seed), spec in plan.policies.items():
        assert spec.inputs == {"dialogues": plan.dialogues[seed]}
        assert spec.config["placement"] == {PLAIN: "first", GATT: "every"}[name]


def test_the_control_differs_from_gatt_in_the_placement_alone():
    plan = plan_ghost_attention(SETTINGS)
    plain, gatt = (plan.policies[name, 1] for name in (PLAIN, GATT))
    assert plain.inputs == gatt.inputs
    assert {**plain.config, "placement": ""} == {**gatt.config, "placement": ""}
    assert plain.key != gatt.key


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"temperature": 0.5}, {"dialogues", "gatt", "consistency"}),
        ({"max_new_tokens": 11}, {"dialogues", "gatt", "consistency"}),
        ({"turns": 3}, {"user_turns", "dialogues", "gatt", "consistency"}),
        ({"instructions": read_instructions()[:3]}, {"user_turns", "dialogues", "gatt", "consistency"}),
        ({"optim": OptimConfig(lr=1e-4, num_snapshots=1)}, {"gatt", "consistency"}),
        ({"lora_rank": 4}, {"gatt", "consistency"}),
        ({"attention_dialogues": 3}, {"consistency"}),
        ({"device": "cuda"}, set()),
        ({"seeds": (1, 2, 3)}, set()),
    ],
)
def test_what_decides_a_key(change, changed):
    one, other = plan_ghost_attention(SETTINGS), plan_ghost_attention(replace(SETTINGS, **change))

    def keys(plan):
        return {
            "user_turns": plan.user_turns.key, "dialogues": plan.dialogues[1].key, "gatt": plan.policies[GATT, 1].key,
            "consistency": plan.consistency[GATT, 1].key,
        }  # fmt: skip

    assert {stage for stage, key in keys(one).items() if key != keys(other)[stage]} == changed


def test_prompts_have_the_room_that_answers_leave_in_the_context():
    assert plan_ghost_attention(SETTINGS).dialogues[1].config["max_prompt_tokens"] == 256 - 12
    given = replace(SETTINGS, max_prompt_tokens=100)
    assert plan_ghost_attention(given).dialogues[1].config["max_prompt_tokens"] == 100
    with pytest.raises(UserError, match="context of 256"):
        plan_ghost_attention(replace(SETTINGS, max_prompt_tokens=250))


def test_a_model_or_data_that_are_not_there_are_named():
    with pytest.raises(UserError, match=r"nothing\.jsonl: there are no dialogues"):
        plan_ghost_attention(replace(SETTINGS, source="nothing.jsonl"))
    with pytest.raises(UserError, match=r"model folder './nowhere' does not exist"):
        plan_ghost_attention(replace(SETTINGS, model="./nowhere"))
