"""Does a method keep the contract? Every check runs on the exact world, where the truth is known, in seconds on a CPU.

`suite check-method my_pkg.kto:KTO` prints them; the tests run them for every registered method.
"""

import contextlib
import copy
import dataclasses
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import torch
from pydantic import TypeAdapter

from suite.check.exact_world import MAX_NEW_TOKENS, TableReward, exact_kl, expected_reward, optimum
from suite.check.trial import BETA, BRIEF, NUM_SNAPSHOTS, KilledLaterRun, KilledRun, Stopped, Trial
from suite.common.registry import load
from suite.evaluation.reward_kl import check_sampler, evaluate_reward_kl
from suite.interfaces import Policy, Promise, TrainingData
from suite.study.specs import PROVIDED
from suite.study.stages.inputs import snapshots

MIN_GAIN = 0.1
"""How much the expected reward must rise, in its standard deviations under π_ref, to count as improved."""
MAX_DISTANCE = 0.15
"""How far from π* a method that follows it may end: KL(π‖π*) as a share of KL(π_ref‖π*)."""
MAX_BETA_ERROR = 1.25
"""By what factor the β it seems to follow may differ from the β it was given."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    why: str


class _Failed(Exception):
    """A check's finding, in one line."""


def contract(trial: Trial) -> str:
    """Attributes, Config and `needs` are what `suite/interfaces.py` says."""
    method, known = trial.method, {f.name for f in dataclasses.fields(TrainingData)} - {"max_new_tokens"}
    fields = getattr(method.Config, "__dataclass_fields__", {})
    if not getattr(getattr(method.Config, "__dataclass_params__", None), "frozen", False):
        raise _Failed("Config is no frozen dataclass; write @dataclass(frozen=True)")
    if not isinstance(method.evaluated_from_pool, bool):
        raise _Failed(f"evaluated_from_pool must be a bool, not {method.evaluated_from_pool!r}")
    if not isinstance(method.needs, frozenset):
        raise _Failed(f"needs must be a frozenset, not {method.needs!r}; write frozenset({{'pairs'}})")
    if unknown := method.needs - known:
        raise _Failed(f"needs names {', '.join(sorted(unknown))}; TrainingData has {', '.join(sorted(known))}")
    if method.promise not in get_args(Promise):
        raise _Failed(f"promise is {method.promise!r}; expected one of {', '.join(get_args(Promise))}")
    if method.promise == "follows_optimum" and "beta" not in fields:
        raise _Failed("it promises follows_optimum but its Config has no beta to follow")
    if trial.is_trained and "optim" not in fields:
        raise _Failed("Config has no field `optim: OptimConfig`, by which a study says how many snapshots it wants")
    try:
        method(), method.Config()
    except TypeError as error:
        raise _Failed(f"the class and its Config must work without arguments: {error}") from error
    config = trial.config()
    for name, kind in get_type_hints(method.Config).items():
        try:
            TypeAdapter(kind)
        except Exception as error:  # pydantic has several kinds for what it cannot read and write
            raise _Failed(
                f"Config: its field {name!r} cannot be written as JSON, its type is {kind!r} ({type(error).__name__}); use "
                "numbers, strings, booleans and dataclasses of them"
            ) from error
    if TypeAdapter(method.Config).validate_json(TypeAdapter(method.Config).dump_json(config)) != config:
        raise _Failed("Config does not survive JSON; use numbers, strings, booleans and dataclasses of them")
    absent = method.needs - PROVIDED - {"gold_reward", "rankings"}
    note = f"; run_imdb_frontier.py does not provide {', '.join(sorted(absent))}" if absent else ""
    return f"needs {', '.join(sorted(method.needs))}{note}"


def training(trial: Trial) -> str:
    """It trains, and returns a policy."""
    policy, _ = trial.trained
    if not isinstance(policy, Policy):
        raise _Failed(f"train returned a {type(policy).__name__}, which is no Policy (suite/interfaces.py)")
    return type(policy).__name__


def kept_snapshots(trial: Trial) -> str:
    """As many snapshots as asked for, of different policies, the last one being the result."""
    policy, run = trial.trained
    if trial.method.evaluated_from_pool:
        return "none: it is read off the pool of reference samples"
    kept = snapshots(run.directory)
    if not trial.is_trained:
        if len(kept) != 1:
            raise _Failed(f"{len(kept)} snapshots; a method that trains nothing keeps one")
        return "one: nothing is trained"
    if len(kept) != NUM_SNAPSHOTS:
        raise _Failed(f"{len(kept)} snapshots, {NUM_SNAPSHOTS} were asked for (optim.num_snapshots); call run.snapshot")
    first, last = (trial.print_of(type(policy).load(folder)) for folder in kept)
    if not torch.allclose(last, trial.print_of(policy), atol=1e-5):
        raise _Failed("the last snapshot is not the policy that train returned")
    if torch.equal(first, last):
        raise _Failed("the snapshots are all of one policy; call run.snapshot while training, with the policy as it is then")
    return f"{len(kept)} different ones"


def measurement(trial: Trial) -> str:
    """Evaluation gives the policy the reward and the KL that it has by enumeration."""
    policy, _ = trial.trained
    world = trial.world
    if not policy.has_log_prob:
        drawn = policy.sample(world.prompts, num_samples=20, max_new_tokens=MAX_NEW_TOKENS, seed=0)
        return f"{sum(map(len, drawn))} samples; it has no log-probabilities"
    table = trial.log_probs(policy)
    totals = table.exp().sum(-1)
    if not torch.allclose(totals, torch.ones_like(totals), atol=1e-4):
        raise _Failed(
            f"probabilities of all completions sum to {totals.tolist()}, not to 1; log_prob must be summed over completion "
            "tokens, EOS included, at temperature 1"
        )
    reward = TableReward.of(world, trial.rewards)
    frame = evaluate_reward_kl(
        policy, trial.reference, reward, world.prompts, num_samples=1000, max_new_tokens=MAX_NEW_TOKENS, seed=0,
        on_batch=lambda count: None,
    )  # fmt: skip
    spelled = {c.ids: c for c in world.completions[0]}
    for row in frame.itertuples():
        right = spelled.get(tuple(row.ids))
        if right is None or (row.text, row.truncated) != (right.text, right.truncated):
            raise _Failed(f"a completion has ids {row.ids}, text {row.text!r}, truncated {row.truncated}; they do not agree")
    kl, rewards = exact_kl(table, trial.reference_table), expected_reward(table, trial.rewards)
    for i, prompt in enumerate(world.prompts):
        rows = frame[frame["prompt_id"] == prompt.id]
        for column, truths in (("reward", rewards), ("kl_k1", kl), ("kl_exact", kl)):
            truth = float(truths[i])
            mean, error = rows[column].mean(), rows[column].std() / len(rows) ** 0.5
            if not abs(mean - truth) <= 5 * error + 1e-4:
                raise _Failed(
                    f"{prompt.id}: mean {column} of samples is {mean:.3f} ± {error:.3f}, by enumeration {truth:.3f}; sample, "
                    "log_prob and next_token_log_probs are not of the same policy"
                )
    check_sampler(frame["sampler_kl"].mean())
    return "rewards and KL of samples agree with enumeration"


def promise(trial: Trial) -> str:
    """What the method says of itself is true where the truth is known."""
    policy, _ = trial.trained
    if trial.method.promise == "none":
        return "none made"
    reference, rewards = trial.reference_table, trial.rewards
    weights = reference.exp()
    centred = rewards - expected_reward(reference, rewards)[:, None]
    variance = (weights * centred.square()).sum(-1)
    if trial.method.promise == "follows_optimum":
        best, _ = optimum(reference, rewards, beta=BETA)
        table = trial.log_probs(policy)
        at_first, distance = (float(exact_kl(t, best).mean()) for t in (reference, table))
        slope = float((weights * centred * (table - reference)).sum() / variance.sum())  # of log π/π_ref on r: 1/β
        finding = f"KL(π‖π*) = {distance:.3f} nats, from {at_first:.3f} at π_ref; it seems to follow β = {1 / slope:.2f}"
        if not distance <= MAX_DISTANCE * at_first or not 1 / MAX_BETA_ERROR <= slope * BETA <= MAX_BETA_ERROR:
            raise _Failed(
                f"follows_optimum: {finding}; at most {MAX_DISTANCE * at_first:.3f} nats and β = {BETA:g} within a factor of "
                f"{MAX_BETA_ERROR} are allowed"
            )
        return finding
    if policy.has_log_prob:
        reward = expected_reward(trial.log_probs(policy), rewards)
    else:
        score = TableReward.of(trial.world, rewards)
        drawn = policy.sample(trial.world.prompts, num_samples=500, max_new_tokens=MAX_NEW_TOKENS, seed=0)
        values = [score([c.prompt.text for c in some], [c.text for c in some]) for some in drawn]
        reward = torch.tensor(values, dtype=torch.float64).mean(1)
    gain = float(((reward - expected_reward(reference, rewards)) / variance.sqrt()).mean())
    finding = f"expected reward moved by {round(gain, 2) + 0.0:+.2f} of its standard deviation"
    if not gain >= MIN_GAIN:
        raise _Failed(f"improves_reward: {finding}; at least +{MIN_GAIN} is asked for")
    return finding


def same_seed(trial: Trial) -> str:
    """Same seed, same policy, whatever the global random states are."""
    first = trial.print_of(trial.briefly_trained)
    if not torch.equal(first, trial.print_of(trial.train("again", BRIEF)[0])):
        raise _Failed("two runs of one seed differ; draw all randomness from run.seed")
    if trial.is_trained and torch.equal(first, trial.print_of(trial.train("other", BRIEF, seed=1)[0])):
        return "same policy twice, and for another seed too: nothing in it is random"
    return "same policy twice, another one for another seed"


def save_and_load(trial: Trial) -> str:
    """A saved policy is the same when loaded."""
    policy = trial.briefly_trained
    policy.save(trial.root / "saved")
    loaded = type(policy).load(trial.root / "saved")
    if not torch.allclose(trial.print_of(loaded), trial.print_of(policy), atol=1e-6):
        raise _Failed("the loaded policy differs from the one that was saved")
    return "same policy"


def resume(trial: Trial) -> str:
    """A run that is killed twice goes on from its checkpoints and ends with the weights of an uninterrupted one."""
    if not trial.is_trained:
        return "nothing is trained"
    if not getattr(trial.method, "resumable", True):
        return "not tried: it says itself that a killed run begins anew"
    for kind in (KilledRun, KilledLaterRun):
        with contextlib.suppress(Stopped):
            _, run = trial.train("killed", BRIEF, kind)
            if not (run.directory / "checkpoint.pt").exists():
                return "it writes no checkpoint: a killed run starts again"
    resumed = trial.train("killed", BRIEF)[0]
    if not torch.equal(trial.print_of(resumed), trial.print_of(trial.briefly_trained)):
        raise _Failed(
            "a run that was killed and resumed ends elsewhere; the checkpoint must hold weights, optimizer, step and whatever "
            "else decides the next step"
        )
    return "identical to an uninterrupted run"


def reference_untouched(trial: Trial) -> str:
    """Training leaves the reference as it was."""
    before = copy.deepcopy(trial.reference.model.state_dict())
    trial.train("untouched", BRIEF)
    for name, value in trial.reference.model.state_dict().items():
        if not torch.equal(value, before[name]):
            raise _Failed(f"train changed the reference ({name}); train reference.copy()")
    return "weights unchanged"


CHECKS: tuple[Callable[[Trial], str], ...] = (
    contract, training, reference_untouched, kept_snapshots, measurement, promise, same_seed, save_and_load, resume,
)  # fmt: skip
ESSENTIAL = (contract, training)


def check_method(name: str) -> Iterator[Check]:
    """Run every check on a registered method or "module:Class". What fails is a result; nothing is raised.

    After a failed contract or training the others would only repeat it and are not run.

    Raises:
        UserError: There is no such method.
    """
    method = load(name, "method")
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(method, Path(folder))
        for check in CHECKS:
            try:
                ok, why = True, check(trial)
            except (Exception, SystemExit) as error:  # whatever an outside class may raise is a finding, not a crash
                ok, why = False, str(error) if isinstance(error, _Failed) else _where(error, method)
            yield Check(check.__name__, ok, why)
            if check in ESSENTIAL and not ok:
                return


def _where(error: BaseException, method: Any) -> str:
    """An exception in one line, with the innermost place of it in the method's own file, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == getattr(sys.modules.get(method.__module__), "__file__", None)]
    place = (own or frames)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(place.filename).name}:{place.lineno})"
