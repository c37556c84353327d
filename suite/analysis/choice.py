"""Which policy of a finished study to take: the most validation reward within a budget of KL, and what is known of it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from suite.analysis.records import POINT, Results, wide
from suite.common.errors import UserError
from suite.study.plan import REFERENCE


@dataclass(frozen=True)
class Choice:
    """A trained policy of a study."""

    method: str
    setting: str
    seed: int
    step: int
    run: str  # first letters of the key of the run that trained it
    validation: dict[str, Any]  # its row of `suite.analysis.records.wide`: by which it was chosen
    test: dict[str, Any]  # likewise: what it is worth
    reference: dict[str, Any]  # of the reference on test prompts

    @property
    def name(self) -> str:
        """Method, setting, seed and step."""
        return f"{self.method} {self.setting}".strip() + f", seed {self.seed}, step {self.step}"


def best_policy(results: Results, *, max_kl: float, method: str = "") -> Choice:
    """The policy with the most validation reward among those that spend at most `max_kl` nats there.

    Args:
        results: Of a frontier study.
        max_kl: In nats per completion.
        method: As tables name it; empty for any.

    Raises:
        UserError: The results hold no validation numbers, or no policy of the method within the budget.
    """
    validation, test = (
        wide(results.records, split) if (results.records["split"] == split).any() else pd.DataFrame()
        for split in ("validation", "test")
    )
    if validation.empty or not {"kl", "reward"} <= set(validation):
        raise UserError("these results hold no rewards and KLs of validation prompts, by which a policy could be chosen")
    trained = validation[validation["method"] != REFERENCE]
    names = sorted(set(trained["method"]))
    if method and method not in names:
        raise UserError(f"--method {method!r}: these results have {', '.join(names)}")
    allowed = trained[(trained["kl"] <= max_kl) & ((trained["method"] == method) | (not method))]
    if allowed.empty:
        raise UserError(f"--kl {max_kl:g}: no policy of {method or 'any method'} spends so little; the least is "
                        f"{trained['kl'].min():.2f} nats")  # fmt: skip
    row = allowed.loc[allowed["reward"].idxmax()]
    same = (results.records[POINT] == row[POINT].to_numpy()).all(axis=1)
    measured = str(results.records.loc[same, "run_key"].iloc[0])
    runs = results.runs.get("runs", {})
    if "policy" not in runs.get(measured, {}).get("inputs", {}):
        raise UserError(f"the records do not say which run trained {row['method']} {row['setting']}; make these results again")
    return Choice(
        str(row["method"]), str(row["setting"]), int(row["seed"]), int(row["step"]), runs[measured]["inputs"]["policy"],
        validation=row.to_dict(), test=_row(test, row[POINT]), reference=_row(test, pd.Series([REFERENCE, "", 0, 0], POINT)),
    )  # fmt: skip


def _row(table: pd.DataFrame, point: pd.Series) -> dict[str, Any]:
    found = table[(table[POINT] == point.to_numpy()).all(axis=1)] if len(table) else table
    return found.iloc[0].to_dict() if len(found) else {}
