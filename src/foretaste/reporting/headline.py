"""What the runs come to, in sentences that do not claim more than the figures do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretaste.data.sources import counted
from foretaste.experiments.comparing import Comparison, Pair, Score
from foretaste.reporting.runs import ReportedRun
from foretaste.reporting.tables import Fact
from foretaste.reporting.wording import (
    figure,
    listing,
    metric_title,
    p_value,
    signed_span,
    span,
    whole,
)

LEVEL = 0.05
"""A difference counts when its corrected p-value is below this."""


@dataclass(frozen=True)
class Headline:
    """One sentence, the ones that qualify it, and a few figures to look at first."""

    sentence: str
    details: tuple[str, ...]
    figures: tuple[Fact, ...]


def headline(
    runs: Sequence[ReportedRun],
    part: str,
    metric: str | None,
    comparison: Comparison | None,
    verdict: str,
) -> Headline:
    """Say which run is best, by how much, and whether that can be chance.

    Args:
        runs: all of the report.
        part: ``test`` or ``valid``.
        metric: what is judged by; None when nothing was measured by all.
        comparison: the paired comparison, None when there is none.
        verdict: of the leakage check, in two or three words.
    """
    measured = [run for run in runs if run.figures(part)]
    if comparison is not None:
        sentence, details = _compared(comparison, runs)
    elif metric is not None:
        sentence, details = _unpaired(measured, part, metric)
    elif measured:
        sentence = "These runs have no measure in common, so none can be called the best."
        details = ["Evaluate them with the same metrics to compare them."]
    else:
        sentence = "No run of this report has been evaluated yet, so there is nothing to judge."
        details = [f"Finish a run with: foretaste resume {run.folder.path}" for run in runs]
    if part == "valid" and measured:
        details.append(
            "These are figures of the validation part, which may have chosen the best epoch: "
            "expect a little less on new data."
        )
    return Headline(sentence, tuple(details), _figures(runs, part, metric, comparison, verdict))


def significant(pair: Pair) -> bool:
    """Whether chance is an unlikely explanation of a difference, after Holm's correction."""
    return pair.p_holm < LEVEL


def percent_better(best: float, other: float) -> str:
    """`` (12 % more)``, or nothing where the other is 0."""
    return f" ({100 * (best / other - 1):.0f} % more)" if other > 0 else ""


def _compared(comparison: Comparison, runs: Sequence[ReportedRun]) -> tuple[str, list[str]]:
    best, second = comparison.rows[:2]
    pair = _pair(comparison, best.run, second.run)
    named = metric_title(comparison.metric)
    equal = _not_told_apart(comparison, best.run)
    if not equal:
        gain = percent_better(best.value, second.value)
        sentence = (
            f"{_name(best, runs)} is the best of {len(comparison.rows)} runs: its {named} of "
            f"{figure(best.value)} is {figure(pair.difference)} above {_name(second, runs)}{gain}, "
            "and that is more than chance explains."
        )
    elif len(equal) == len(comparison.rows) - 1:
        sentence = (
            f"No run stands out: {_name(best, runs)} has the highest {named} "
            f"({figure(best.value)}), but its lead over "
            f"{listing([_titles(runs)[run] for run in equal])} is within what chance gives."
        )
    else:
        sentence = (
            f"{_name(best, runs)} has the highest {named} ({figure(best.value)}), but its lead "
            f"over {listing([_titles(runs)[run] for run in equal])} is within what chance gives."
        )
    interval = signed_span(pair.low, pair.high)
    sure = f"{interval} (95 % interval)" if interval else "of a single user, who shows no spread"
    details = [
        f"Over {_name(second, runs)} the difference is {sure}, p {p_value(pair.p_holm)} after "
        f"Holm's correction, on the same {counted(comparison.users, 'user')}.",
        *_against_popularity(comparison, runs),
        "The intervals say how much depends on which users were asked. They do not say how "
        "another seed or another period would do.",
    ]
    return sentence, details


def _unpaired(measured: Sequence[ReportedRun], part: str, metric: str) -> tuple[str, list[str]]:
    best = max(measured, key=lambda run: run.value(part, metric) or 0.0)
    found = best.figures(part)[metric]
    users = (best.metrics.get(part) or {}).get("users")
    interval = span(found.get("low"), found.get("high"))
    sure = f" (95 % interval {interval})" if interval else ""
    if len(measured) == 1:
        sentence = (
            f"{best.title} reaches a {metric_title(metric)} of {figure(found['value'])}{sure} "
            f"on {whole(users)} users."
        )
        return sentence, [
            "One evaluated run says how good it is, not whether something simpler is as good. "
            "Put a popularity run beside it."
        ]
    sentence = (
        f"{best.title} has the highest {metric_title(metric)}, {figure(found['value'])}{sure}; "
        "whether its lead is more than chance could not be tested."
    )
    return sentence, []


def _against_popularity(comparison: Comparison, runs: Sequence[ReportedRun]) -> list[str]:
    """What has been gained over showing everybody the same list."""
    rows = [row for row in comparison.rows if row.model == "popularity"]
    if not rows:
        return [
            "No popularity run is among them, so the gain over showing everybody the same "
            "list is not known."
        ]
    base, best = rows[0], comparison.rows[0]
    if base is best:
        return ["No other run does better than showing everybody what is popular."]
    if base is comparison.rows[1]:
        return []
    pair = _pair(comparison, best.run, base.run)
    if not significant(pair):
        return ["It is not reliably better than showing everybody what is popular."]
    times = f" ({best.value / base.value:.1f} times)" if base.value > 0 else ""
    return [
        f"Showing everybody what is popular reaches {figure(base.value)}; "
        f"{_titles(runs)[best.run]} is {figure(pair.difference)} above that{times}."
    ]


def _not_told_apart(comparison: Comparison, best: str) -> list[str]:
    others = [row.run for row in comparison.rows[1:]]
    return [run for run in others if not significant(_pair(comparison, best, run))]


def _pair(comparison: Comparison, a: str, b: str) -> Pair:
    return next(pair for pair in comparison.pairs if {pair.a, pair.b} == {a, b})


def _titles(runs: Sequence[ReportedRun]) -> dict[str, str]:
    return {run.label: run.title for run in runs}


def _name(row: Score, runs: Sequence[ReportedRun]) -> str:
    return _titles(runs)[row.run]


def _figures(
    runs: Sequence[ReportedRun],
    part: str,
    metric: str | None,
    comparison: Comparison | None,
    verdict: str,
) -> tuple[Fact, ...]:
    found = []
    if metric is not None:
        values = [run.value(part, metric) or 0.0 for run in runs if run.figures(part)]
        found.append(Fact(f"Best {metric_title(metric)}", figure(max(values))))
    if comparison is not None:
        best, second = comparison.rows[:2]
        pair = _pair(comparison, best.run, second.run)
        found.append(Fact("Lead over the next", figure(pair.difference)))
        found.append(Fact("Could it be chance?", f"p {p_value(pair.p_holm)}"))
    users = max([(run.metrics.get(part) or {}).get("users") or 0 for run in runs])
    if users:
        found.append(Fact("Users asked" if part == "test" else "Users asked (valid)", whole(users)))
    return (*found, Fact("Leakage check", verdict))
