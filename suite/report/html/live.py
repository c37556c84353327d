"""The page over a sweep that is at work: what its runs have left so far. It only reads."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from suite.analysis.costs import training_metrics
from suite.analysis.gather import gathered
from suite.analysis.records import PLACE, POINT, Results
from suite.common.errors import UserError, shown
from suite.engine.lease import at_work
from suite.engine.making import closure
from suite.engine.store import RunSpec
from suite.report.html.data import data_of, methods_of
from suite.report.html.logs import training_of
from suite.study.plan import Plan
from suite.study.plan_file import made_so_far
from suite.study.run import Finished, Options

EMPTY = {
    "records": [*POINT, *PLACE, "split", "metric", "value", "unit", "n", "ci_low", "ci_high", "git_sha", "selected"],
    "measurements": [*POINT, *PLACE, "split", "prompt_id", "sample", "metric", "value"],
    "training": POINT, "health": [],
}  # fmt: skip
"""Tables before anything is measured."""


@dataclass
class Sweep:
    """A sweep that somebody makes, looked at from outside.

    Attributes:
        root: The folder of runs.
        plans: Name → what is made.
        about: `command`, `workers`.
    """

    root: Path
    plans: Mapping[str, Plan]
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.studies = [_Study(self.root, name, plan, self.about) for name, plan in self.plans.items()]

    def look(self) -> dict[str, Any]:
        """`progress` of the runs, `studies` for the page (`data_of`), and `version`, another one if anything has changed."""
        specs = closure([target for plan in self.plans.values() for target in plan.targets])
        made = {spec.key for spec in specs if (spec.directory(self.root) / "DONE").exists()}
        folders = {spec: spec.directory(self.root) for spec in specs if spec.key not in made}
        progress = {
            "runs": len(specs), "done": len(made),
            "now": [self._now(spec) for spec, folder in folders.items() if at_work(folder)],
            "failed": [shown(spec.title, 80) for spec, folder in folders.items() if (folder / "error.log").exists()],
        }  # fmt: skip
        studies = [study.look(made) for study in self.studies]
        version = hashlib.sha256(json.dumps([progress, studies]).encode()).hexdigest()[:16]
        return {"progress": progress, "studies": studies, "version": version}

    def _now(self, spec: RunSpec) -> str:
        """A run at work, and its last step."""
        lines = _lines(spec.directory(self.root) / "metrics.jsonl")
        return shown(spec.title, 80) + (f" (step {lines[-1]['step']})" if lines else "")


@dataclass
class _Study:
    """One of its studies."""

    root: Path
    name: str
    plan: Plan
    about: Mapping[str, Any]
    _measured: tuple[frozenset[str], Results] | None = field(default=None, init=False)
    _drawn: tuple[Any, dict[str, Any]] | None = field(default=None, init=False)

    def look(self, made: set[str]) -> dict[str, Any]:
        """What the page draws of it when so many runs are made."""
        needed = {spec.key for spec in closure(self.plan.targets)}
        results = replace(self._so_far(needed, made & needed), training=self._training())
        if needed <= made:
            results.about["note"] = "All runs are made; the verdict stands in the results folder."
        return self._data(results)

    def _data(self, results: Results) -> dict[str, Any]:
        """For the page, without a verdict, which is for when all is there; made anew only if more is measured."""
        methods, about = methods_of(results), results.about
        state = (self._measured and self._measured[0], methods, about["note"])
        if self._drawn is None or self._drawn[0] != state:
            self._drawn = (state, data_of(results, self.name, verdicts=False))
        by_step = {**training_of(results, methods), "by": "step"}  # of a run at work no share is known
        return {**self._drawn[1], "training": by_step}

    def _so_far(self, needed: set[str], made: set[str]) -> Results:
        """What can be measured already; gathered again only when more runs are done."""
        known = frozenset(made)
        if self._measured is None or self._measured[0] != known:
            self._measured = (known, self._gathered(needed - made))
        return self._measured[1]

    def _gathered(self, missing: set[str]) -> Results:
        try:
            plan = made_so_far(self.plan, missing)
            if "judge" in plan.evaluator.needs:
                raise UserError("judged when all answers are there")
            options = Options(self.root, int(self.about["workers"]), command=str(self.about["command"]))
            results = gathered(Finished(plan, options), self.name)
        except (UserError, OSError, ValueError, KeyError):  # too little yet, or a file that is being written
            study = self.plan.study
            results = Results({
                "command": self.about["command"], "profile": study.profile, "task": study.task, "model": Path(study.model).name,
                "reward": study.reward_name, "metric": "reward", "seeds": sorted(self.plan.sources),
                "test_prompts": study.test_prompts, "lines": [],
            }, **{name: pd.DataFrame(columns=columns) for name, columns in EMPTY.items()})  # fmt: skip
        results.about.update(
            title=f"{self.name}, so far", note="Runs are at work: numbers change, and nothing here is a verdict."
        )
        return results

    def _training(self) -> pd.DataFrame:
        """What every run has logged so far; one that writes a line just now is looked at the next time."""
        parts = []
        for contender, spec in self.plan.trained.items():
            if _lines(spec.directory(self.root) / "metrics.jsonl"):
                with contextlib.suppress(ValueError):
                    parts.append(training_metrics(self.root, replace(self.plan, policies={contender: spec})))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=EMPTY["training"])


def _lines(path: Path) -> list[dict[str, Any]]:
    """What a run has logged; nothing if its last line is not whole."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
