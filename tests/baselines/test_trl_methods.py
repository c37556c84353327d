"""TRL's trainers as methods: they see our tokens, in our order, and with equal settings TRL's DPO is ours."""

import json
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch

pytest.importorskip("trl")

from baselines import trl_methods
from baselines.trl_adapter import id_tokenizer, import_trl, in_our_order, in_turns, positions_from_mask
from baselines.trl_methods import TRLDPO, TRLGRPO, TRLKTO, TRLDPOConfig, TRLKTOConfig
from suite.check.exact_world import ExactWorld, tiny_language_model, word_tokenizer
from suite.check.trial import QuietRun, Trial
from suite.common.errors import UserError
from suite.engine.store import RunSpec
from suite.interfaces import TrainingData
from suite.methods.dpo import DPO, DPOConfig
from suite.policies.causal_lm import CausalLMPolicy
from suite.training.settings import OptimConfig

WORLD = ExactWorld()
OPTIM = OptimConfig(lr=5e-4, batch_size=24, micro_batch_size=8, warmup_steps=3, num_snapshots=2)


@pytest.fixture(scope="module")
def reference():
    return CausalLMPolicy(tiny_language_model(), word_tokenizer())


@pytest.fixture(scope="module")
def pairs(reference):
    with torch.no_grad():
        table = WORLD.log_probs(reference.model).double()
    return WORLD.sample_pairs(table, WORLD.word_rewards(), 100, seed=0)


def run_in(folder, seed=0):
    run = QuietRun(folder, RunSpec("check", {"seed": seed}))
    run.directory.mkdir(parents=True)
    return run


def seen_by(method, config, pairs, reference, folder, monkeypatch):
    """The rows a trainer is about to train on."""
    found = []
    monkeypatch.setattr(trl_methods.trl_adapter, "train_and_follow", lambda trainer, *rest: found.append(trainer.train_dataset))
    method().train(TrainingData(pairs=pairs, max_new_tokens=3), reference, config, run_in(folder))
    return found[0].to_list()


def test_dpo_trains_on_exactly_our_tokens_in_our_order(pairs, reference, tmp_path, monkeypatch):
    assert {p.chosen.truncated for p in pairs} == {True, False}
    rows = seen_by(TRLDPO, TRLDPOConfig(optim=OPTIM), pairs, reference, tmp_path, monkeypatch)
    ordered = in_our_order(pairs, OPTIM, 0)
    assert ordered != list(pairs)
    assert [tuple(row["prompt_ids"]) for row in rows] == [p.chosen.prompt.ids for p in ordered]
    for side in ("chosen", "rejected"):
        assert [tuple(row[f"{side}_ids"]) for row in rows] == [getattr(p, side).ids for p in ordered]


def test_kto_trains_on_exactly_our_tokens_and_takes_its_kl_from_other_prompts(pairs, reference, tmp_path, monkeypatch):
    """Ten pairs of each of ten prompts, which our own loop would keep together."""
    prompts = [replace(p.prompt, id=f"p{k}") for k, p in enumerate(pairs[:10])]
    pairs = [
        replace(p, chosen=replace(p.chosen, prompt=prompts[k // 10]), rejected=replace(p.rejected, prompt=prompts[k // 10]))
        for k, p in enumerate(pairs)
    ]
    rows = seen_by(TRLKTO, TRLKTOConfig(optim=OPTIM), pairs, reference, tmp_path, monkeypatch)
    ordered, sides = in_turns(pairs, OPTIM, 0), []
    assert Counter(map(id, ordered)) == Counter(map(id, pairs))
    for at in range(0, len(ordered), OPTIM.micro_batch_size):
        some = ordered[at : at + OPTIM.micro_batch_size]
        sides += [(p, p.chosen, True) for p in some] + [(p, p.rejected, False) for p in some]
    assert [tuple(row["completion_ids"]) for row in rows] == [side.ids for _, side, _ in sides]
    assert [row["label"] for row in rows] == [label for _, _, label in sides]
    for k in range(0, len(rows), 2 * OPTIM.micro_batch_size):  # the completion before it in the micro-batch: of another prompt
        batch = range(k, min(k + 2 * OPTIM.micro_batch_size, len(rows)))
        for at in batch:
            other = at - 1 if at > k else batch[-1]
            assert tuple(rows[at]["KL_completion_ids"]) == sides[other][1].ids
            assert sides[other][0].prompt.id != sides[at][0].prompt.id
    with pytest.raises(UserError, match="2 or more"):
        TRLKTO().train(
            TrainingData(pairs=pairs),
            reference,
            TRLKTOConfig(optim=replace(OPTIM, micro_batch_size=1)),
            run_in(tmp_path / "one"),
        )


def test_eos_inside_a_prompt_stays_there(pairs, reference, tmp_path, monkeypatch):
    """Chat templates end every turn with it."""
    eos = reference.tokenizer.eos_token_id
    pair = pairs[0]
    prompt = replace(pair.chosen.prompt, ids=(3, eos, *pair.chosen.prompt.ids))
    talk = replace(pair, chosen=replace(pair.chosen, prompt=prompt), rejected=replace(pair.rejected, prompt=prompt))
    rows = seen_by(TRLDPO, TRLDPOConfig(optim=OPTIM), [talk] * 24, reference, tmp_path, monkeypatch)
    assert {tuple(row["prompt_ids"]) for row in rows} == {prompt.ids}


def test_positions_count_from_the_first_real_token():
    """As TRL calls a model on prompts that are padded on the left."""
    model = tiny_language_model(0).eval()
    assert model.config.model_type == "gpt2"  # learned positions
    ids = torch.tensor([[1, 2, 3]])
    padded, mask = torch.tensor([[0, 0, 1, 2, 3]]), torch.tensor([[0, 0, 1, 1, 1]])
    with torch.no_grad():
        right = model(input_ids=ids).logits
        assert not torch.allclose(model(input_ids=padded, attention_mask=mask).logits[:, 2:], right, atol=1e-4)
        positions_from_mask(model)
        assert torch.allclose(model(input_ids=padded, attention_mask=mask).logits[:, 2:], right, atol=1e-5)


def test_with_equal_settings_trls_dpo_is_ours(pairs, reference, tmp_path):
    """Micro-batches, truncated completions, warm-up and clipping included; batches of equal size, as TRL cuts them."""
    data = TrainingData(pairs=pairs[: 4 * OPTIM.batch_size], max_new_tokens=3)
    optim = replace(OPTIM, num_epochs=1)
    ours = DPO().train(data, reference, DPOConfig(beta=0.5, optim=optim), run_in(tmp_path / "ours"))
    theirs = TRLDPO().train(data, reference, TRLDPOConfig(beta=0.5, optim=optim), run_in(tmp_path / "theirs"))
    every = [c for some in WORLD.completions for c in some]
    moved = (ours.log_prob(every) - reference.log_prob(every)).abs().max()
    assert moved > 0.02
    assert (ours.log_prob(every) - theirs.log_prob(every)).abs().max() < 0.02 * moved
    assert ours.tokens_trained < theirs.tokens_trained  # ours reads a completion once that stands in several pairs


def test_grpos_reward_is_asked_for_decoded_text_without_eos(tmp_path):
    trial = Trial(TRLGRPO, tmp_path)
    asked = []

    def score(prompts, completions):
        asked.extend(zip(prompts, completions, strict=True))
        return [float(len(text)) for text in completions]

    config = TRLGRPO.Config(num_steps=1, samples_per_step=16, num_generations=4, optim=replace(OPTIM, num_snapshots=1))
    data = TrainingData(prompts=trial.world.prompts, reward=score, max_new_tokens=3)
    policy = TRLGRPO().train(data, trial.reference, config, run_in(tmp_path / "run"))
    spelled = {c.text for some in trial.world.completions for c in some}
    assert len(asked) == 16
    assert {text for _, text in asked} <= spelled
    assert {prompt for prompt, _ in asked} <= {p.text for p in trial.world.prompts}
    assert policy.tokens_sampled >= 16


def test_samples_that_make_no_whole_groups_are_refused(tmp_path):
    trial = Trial(TRLGRPO, tmp_path)
    with pytest.raises(UserError, match="no multiple of num_generations"):
        TRLGRPO().train(
            TrainingData(prompts=trial.world.prompts, reward=lambda p, c: [0.0] * len(c), max_new_tokens=3), trial.reference,
            TRLGRPO.Config(samples_per_step=10, num_generations=4), run_in(tmp_path / "run"),
        )  # fmt: skip


def test_a_model_whose_turns_end_in_several_ways_is_refused(tmp_path):
    trial = Trial(TRLGRPO, tmp_path)
    trial.reference.tokenizer.add_tokens(["<turn>"], special_tokens=True)
    trial.reference.model.generation_config.eos_token_id = [0, len(trial.reference.tokenizer) - 1]
    data = TrainingData(prompts=trial.world.prompts, reward=lambda p, c: [0.0] * len(c), max_new_tokens=3)
    with pytest.raises(UserError, match="TRL ends a completion at one token alone, this model at 2"):
        TRLGRPO().train(data, trial.reference, TRLGRPO.Config(), run_in(tmp_path / "run"))


def test_without_trl_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(UserError, match="pip install"):
        import_trl()


def test_the_id_tokenizer_reads_back_what_it_writes(reference):
    tokenizer = id_tokenizer(reference)
    eos = reference.tokenizer.eos_token_id
    others = [i for i in range(reference.model.config.vocab_size) if i != eos]
    assert tokenizer(" ".join(map(str, others)) + " <eos>")["input_ids"] == [*others, eos]
    assert tokenizer.eos_token_id == eos


def test_a_killed_run_leaves_no_rows_behind(pairs, reference, tmp_path):
    """It starts again, and its log is that of one run."""
    run = run_in(tmp_path)
    run.log(77, {"loss": 1.0})
    TRLDPO().train(TrainingData(pairs=pairs, max_new_tokens=3), reference, TRLDPOConfig(optim=OPTIM), run)
    steps = [json.loads(line)["step"] for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]
