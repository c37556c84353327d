"""The evaluator of win rates: answers → one judgment per prompt, as numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import pandas as pd
from tqdm import tqdm

from suite.data.comparisons import Comparison
from suite.evaluation.win_rate import NUMBERS, ask, numbers_of
from suite.interfaces import Contender, Context, Metric, Point
from suite.judges.judging import LEARNED, OWN_JUDGE


@dataclass(frozen=True)
class WinRateEvaluator:
    """Win rates under a judge against reference answers, or against a policy; see `suite.interfaces.Evaluator`.

    Attributes:
        temperatures: At which every last policy is sampled; Best-of-N is not at 0, where all samples are equal.
        training_temperatures: At which the policies of `training_of` are sampled over their training.
        training_of: Name of the method whose training is followed.
        sizes: N of Best-of-N, which then is all that is sampled, at the one temperature.
    """

    temperatures: tuple[float, ...] = (1.0,)
    training_temperatures: tuple[float, ...] = ()
    training_of: str = "DPO"
    sizes: tuple[int, ...] = ()

    name: ClassVar[str] = "win_rate"
    needs: ClassVar[frozenset[str]] = frozenset({"reference_answers", "judge"})
    metrics: ClassVar[Mapping[str, Metric]] = {
        "win": Metric("share", "1 won, ½ tie or orders that contradict each other, 0 lost", True),
        "same_position": Metric("share", "both orders name the same position"),
        "decisive": Metric("verdicts", "of answers of different length"),
        "longer_wins": Metric("verdicts", "of the decisive ones, for the longer answer"),
        "policy_length": Metric("characters", "counted"), "opponent_length": Metric("characters", "counted"),
        **{name: Metric("verdicts", "counted") for name in ("asked", "valid", "tie", "invalid", "failed")},
    }  # fmt: skip

    def points(self, contender: Contender) -> list[Point]:
        """The last policy at every temperature; every policy of the method whose training is followed; or every N."""
        if self.sizes:
            return [Point("best_of_n", contender.n, self.temperatures[0], samples=max(self.sizes))]
        count, n = contender.snapshots, contender.n
        last = count - 1 if count else None
        found = [Point("temperature", t, t, last, n) for t in self.temperatures if t > 0 or n == 1]
        if contender.method == self.training_of and count:
            for t in self.training_temperatures:
                found += [Point("training", (k + 1) / count, t, k if k >= 0 else None) for k in range(-1, count)]
        return found

    def measure(self, samples: pd.DataFrame, context: Context) -> pd.DataFrame:
        """`NUMBERS` of every point and prompt; keeps the verdicts. All are asked at once: a limit on cost is one limit.

        People and language models read the prompt in plain words and the whole reference answer; the study's own reward models,
        fitted on what policies see, the prompt as it is continued and both answers cut at the same length.
        """
        judge = context.judge
        assert judge is not None
        as_policies_see = judge.name in (OWN_JUDGE, LEARNED)
        asked = {point: _comparisons(part, as_policies_see) for point, part in samples.groupby("point", sort=False)}
        number = {comparison: k for k, comparison in enumerate(dict.fromkeys(chain(*asked.values())))}  # equal answers: once
        with tqdm(total=2 * len(number), unit="verdict", desc=judge.name) as bar:
            verdicts = ask(judge, list(number), context.store, seed=context.seed, on_answer=bar.update)
        rows, given = [], []
        labels = samples.groupby("point")["label"].first()
        for point, of_point in asked.items():
            part = verdicts[verdicts["comparison"].isin([number[comparison] for comparison in of_point])]
            found = (
                numbers_of(part).melt("prompt_id", list(NUMBERS), var_name="metric").assign(point=point, split="test", sample=0)
            )
            rows.append(found.dropna(subset="value"))
            given.append(part.drop(columns="stored").assign(matchup=labels[point], judge=judge.name))
        context.keep("verdicts", pd.concat(given, ignore_index=True))
        return pd.concat(rows, ignore_index=True)[["point", "split", "prompt_id", "sample", "metric", "value"]]


def _comparisons(table: pd.DataFrame, as_policies_see: bool) -> list[Comparison]:
    columns = ("prompt_text", "text", "answer_cut") if as_policies_see else ("shown", "text", "answer")
    prompts, texts, answers = (table[column] for column in columns)
    if not as_policies_see:
        texts = texts.str.strip()
    return [Comparison(*row) for row in zip(table["prompt_id"], prompts, texts, answers, strict=True)]
