"""What the figures rest on: the data, how it was cut, the leakage check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from markupsafe import Markup

from foretaste.reporting import charts
from foretaste.reporting.runs import ReportedRun
from foretaste.reporting.tables import Fact
from foretaste.reporting.wording import day, listing, share, whole

SPLITS = {
    "global-time": "The log is cut at points in time: a model learns from what lies before a cut "
    "and is asked about what came after it, as in use.",
    "leave-last-out": "Every user's last item is asked for. Other users' later behaviour is in "
    "training, so figures are better than in use.",
    "user-time": "Every user's last impressions are asked for. Other users' later behaviour is in "
    "training, so figures are better than in use.",
}


class DataCard(NamedTuple):
    """What is known of the data and of how it was cut."""

    facts: tuple[Fact, ...]
    split_facts: tuple[Fact, ...]
    split_sentence: str
    timeline: Markup
    cut: bool
    histories: Markup
    notes: tuple[str, ...]


class Verdict(NamedTuple):
    """What the leakage check found for some runs; ``tone`` is good, warn, bad or unknown."""

    runs: str
    tone: str
    short: str
    sentence: str
    findings: tuple[Mapping[str, Any], ...]
    checks: str


def data_card(run: ReportedRun) -> DataCard:
    """The data and split that all runs of a report share, as one of them recorded it."""
    data, cut = run.section("data"), run.section("split")
    return DataCard(
        facts=tuple(_data_facts(data)),
        split_facts=tuple(_split_facts(cut)),
        split_sentence=SPLITS.get(cut.get("kind", ""), ""),
        timeline=_timeline(data, cut),
        cut=bool(cut.get("cuts_ms")),
        histories=_histories(data),
        notes=tuple(dict.fromkeys([*(data.get("notes") or ()), *(cut.get("notes") or ())])),
    )


def verdicts(runs: Sequence[ReportedRun]) -> tuple[Verdict, ...]:
    """What was found, once for all runs of which the same was found; the worst first."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault(repr(run.section("leakage")), []).append(run)
    found = [_verdict(group, len(groups) == 1) for group in groups.values()]
    return tuple(sorted(found, key=lambda one: ["bad", "warn", "unknown", "good"].index(one.tone)))


def _verdict(group: Sequence[ReportedRun], only: bool) -> Verdict:
    leakage = group[0].section("leakage")
    names = "All runs" if only and len(group) > 1 else listing([run.title for run in group])
    findings = tuple(leakage.get("findings") or ())
    checks = list(leakage.get("checks") or ())
    leaks = [one for one in findings if one.get("severity") == "leak"]
    if leaks:
        short, tone = "leaks", "bad"
        sentence = "Knowledge of the future reaches the model. Do not trust these figures."
    elif findings:
        short, tone = f"{len(findings)} warning{'s' * (len(findings) > 1)}", "warn"
        sentence = "No outright leak, but figures may be better than in use."
    elif checks:
        short, tone = "clean", "good"
        sentence = "No knowledge of the future was found in what the models learnt from."
    else:
        short, tone = "not made", "unknown"
        sentence = "No leakage check was recorded, so it is not known whether figures are honest."
    return Verdict(names, tone, short, sentence, findings, listing(checks))


def _data_facts(data: Mapping[str, Any]) -> list[Fact]:
    facts = [Fact("Name", str(data.get("name") or "not recorded"))]
    facts += [
        Fact(name.capitalize(), whole(data[name]))
        for name in ("users", "items", "interactions")
        if data.get(name) is not None
    ]
    if data.get("users") and data.get("items") and data.get("interactions") is not None:
        filled = data["interactions"] / (data["users"] * data["items"])
        facts.append(Fact("Filled cells", f"{100 * filled:.2g} %"))
    if data.get("first_time_ms") is not None:
        facts.append(Fact("From", day(data["first_time_ms"])))
        facts.append(Fact("To", day(data.get("last_time_ms"))))
    else:
        facts.append(Fact("Time", "the log has no clock"))
    facts.append(Fact("Licence", str(data.get("licence") or "not recorded")))
    return facts


def _split_facts(cut: Mapping[str, Any]) -> list[Fact]:
    facts = [Fact("Kind", str(cut.get("kind") or "not recorded"))]
    cuts = cut.get("cuts_ms")
    if cuts:
        facts += [Fact("Validation from", day(cuts[0])), Fact("Test from", day(cuts[-1]))]
    named = {
        "train_interactions": "Training interactions",
        "train_impressions": "Training impressions",
        "vocabulary": "Items in training",
        "valid_queries": "Validation users",
        "test_queries": "Test users",
    }
    facts += [
        Fact(text, whole(cut[key])) for key, text in named.items() if cut.get(key) is not None
    ]
    if cut.get("unseen_target_share") is not None:
        facts.append(Fact("Targets no model can know", share(cut["unseen_target_share"])))
    return facts


def _timeline(data: Mapping[str, Any], cut: Mapping[str, Any]) -> Markup:
    periods = data.get("events_by_period") or []
    if not periods:
        return Markup("")
    cuts = cut.get("cuts_ms") or []
    rows = [
        charts.Column(label, count, _part_of(_middle(periods, index, data), cuts))
        for index, (label, count) in enumerate(periods)
    ]
    return charts.columns(rows, title="Interactions over time")


def _middle(periods: Sequence[Sequence[Any]], index: int, data: Mapping[str, Any]) -> float:
    """The middle of a period in milliseconds; a period ends where the next one begins."""
    begin = _milliseconds(periods[index][0])
    later = index + 1 < len(periods)
    end = _milliseconds(periods[index + 1][0]) if later else data.get("last_time_ms") or begin
    return (begin + max(end, begin)) / 2


def _milliseconds(iso_date: str) -> float:
    try:
        moment = datetime.fromisoformat(iso_date)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _part_of(moment: float, cuts: Sequence[float]) -> str:
    passed = sum(moment >= cut for cut in cuts)
    return ("train", "valid", "test")[passed if len(cuts) > 1 else 2 * passed]


def _histories(data: Mapping[str, Any]) -> Markup:
    lengths = data.get("history_lengths") or {}
    rows = [charts.Bar(band, count, shown=whole(count)) for band, count in lengths.items()]
    return charts.histogram(rows, title="Users by number of interactions") if rows else Markup("")
