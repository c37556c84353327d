"""What finished runs left, by folder or key: policies to talk to, pairs to take elsewhere."""

from pathlib import Path
from typing import Any

import pandas as pd

from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.common.sources import resolve_model
from suite.data.parquet import pairs_from_table, read_prompts
from suite.data.preference_data import PreferencePair
from suite.engine.manifest import flaw, read_json
from suite.policies.causal_lm import CausalLMPolicy
from suite.policies.kinds import policy_class_of
from suite.study.stages.inputs import snapshots


def find_run(name: str, runs: Path) -> Path | None:
    """The folder of a run given as a path or by the first letters of its key. Raises UserError if several keys begin so, or if
    what the run left is not what lies there.
    """
    if (Path(name) / "spec.json").exists():
        return Path(name)
    found = [path.parent for path in runs.glob(f"*/{name[:16]}*/spec.json")] if name.isalnum() else []
    if len(found) > 1:
        raise UserError(f"{name!r} begins several runs of {runs}: {', '.join(sorted(path.name for path in found))}")
    if found and (problem := flaw(found[0])):
        raise UserError(f"{found[0]}: {problem}; start the study that made it again")
    return found[0] if found else None


def method_behind(run: Path | None, runs: Path) -> list[str]:
    """The method that a run trained, as module:Class, where the run is one of those that are kept in `runs`."""
    if run is None or not run.resolve().is_relative_to(runs.resolve()):
        return []
    return [str(read_json(run / "spec.json").get("config", {}).get("method", ""))]


def open_policy(name: str, runs: Path, *, device: str = "cpu") -> Any:
    """The last policy of a training run, or a model given as a folder or a Hub name. Raises UserError if there is none."""
    folder = Path(name)
    if run := find_run(name, runs):
        kept = snapshots(run)
        if not kept:
            raise UserError(f"{run}: keeps no policy; give a run of the stage policy or sft, or a model's folder")
        folder = kept[-1]
    elif not folder.is_dir():
        try:
            folder = Path(resolve_model(name)[0])
        except UserError as error:
            raise UserError(f"{name!r} is no run in {runs} (--runs), and {error}") from error
    cls = policy_class_of(folder, methods=method_behind(run, runs))
    return cls.load(folder, device=device) if cls is CausalLMPolicy else cls.load(folder)


def export_policy(run: str, step: int, out: Path, runs: Path, *, card: str) -> None:
    """One snapshot of a training run as a plain `save_pretrained` folder with tokenizer and `README.md`; adapters are merged.
    Raises UserError if the run or the snapshot is gone, or something else is at `out`.
    """
    folder = find_run(run, runs)
    kept = {int(path.name.removeprefix("step-")): path for path in snapshots(folder)} if folder else {}
    if step not in kept:
        raise UserError(
            f"the policy of run {run} is not in {runs} (--runs): weights are not kept beside results. Run the study's command, "
            "which stands on its page, again where its runs are, or here"
        )
    if out.exists():
        raise UserError(f"{out} exists already; give the name of a new folder")
    policy = policy_class_of(kept[step], methods=method_behind(folder, runs)).load(kept[step])

    def write(target: Path) -> None:
        policy.save(target)
        (target / "README.md").write_text(card)

    write_atomically(out, write)


def pairs_of(name: str, runs: Path) -> list[PreferencePair]:
    """The pairs of a run of the stage `pairs` or `reference_log_probs`. Raises UserError if it is not there or not done."""
    run = find_run(name, runs)
    if run is None or not (run / "pairs.parquet").exists():
        raise UserError(f"{name!r}: no finished run with pairs in {runs}; the plan (--dry-run) shows the keys of stage pairs")
    return pairs_from_table(pd.read_parquet(run / "pairs.parquet"), read_prompts(_prompts_behind(run)))


def _prompts_behind(run: Path) -> Path:
    """The prompts that a run's inputs were made from."""
    if (run / "prompts.parquet").exists():
        return run / "prompts.parquet"
    for place in read_json(run / "spec.json").get("inputs", {}).values():
        needed = run.parent.parent / place
        if (needed / "prompts.parquet").exists() or (needed / "samples.parquet").exists():
            return _prompts_behind(needed)
    raise UserError(f"{run}: the run that drew its prompts is gone; start the experiment again")
