"""The card of a policy that was taken out of a study."""

from collections.abc import Iterator, Mapping
from typing import Any

from suite.analysis.choice import Choice
from suite.analysis.records import Results
from suite.report.page import code, page, table
from suite.report.tables import used_words, with_interval


def policy_card(choice: Choice, results: Results, *, max_kl: float) -> str:
    """`README.md`: what it is, how it was chosen, what it is worth on prompts that did not choose it."""
    about, run = results.about, results.runs["runs"][choice.run]
    rows = [
        {"": name, "reward": with_interval(row, "reward"), "KL to the reference, nats": with_interval(row, "kl", ".2f"),
         "tokens": with_interval(row, "tokens", ".1f"), "n prompts": int(row["reward_n"])}
        for name, row in (("validation prompts", choice.validation), ("test prompts", choice.test),
                          ("the reference, test prompts", choice.reference)) if row
    ]  # fmt: skip
    settings = [{"setting": name, "value": str(value)} for name, value in _flat({**run["config"], "run": choice.run})]
    lead = (
        f"Trained from {code(about['model'])} in the study {code(about['command'])} ({about['date']}). Of {_counted(results)} "
        f"policies it has the most reward ({about['reward']}) on validation prompts among those that spend at most {max_kl:g} "
        "nats per completion there; test prompts had no part in the choice. Intervals: 95 % over prompts, for this policy."
    )
    learned = f"Learned from {used_words(about['data']['learned from'])} examples."
    return page(choice.name, [("", lead), ("", table(rows)), ("", learned), ("Settings", table(settings))])


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings within settings by their own names."""
    for name, value in config.items():
        yield from _flat(value) if isinstance(value, Mapping) else [(name, value)]


def _counted(results: Results) -> int:
    records = results.records
    rows = records[(records["split"] == "validation") & (records["metric"] == "reward") & (records["step"] > 0)]
    return len(rows)
