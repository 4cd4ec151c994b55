"""Looking for the future in what a click task shows and asks."""

from __future__ import annotations

import polars as pl

from foretaste.data.clicks import ClickSplit, ClickTask, Impressions
from foretaste.data.dataset import Dataset
from foretaste.data.leakage import Finding, LeakageReport, whole_log_core


def check_clicks(
    task: ClickTask, kind: ClickSplit, *, dataset: Dataset | None = None
) -> LeakageReport:
    """What an impression can see of itself or of its future.

    Looks at every impression: its history must lie before it in time, and no click of valid or
    test may be learnt from. ``rated_clicks`` and ``sampled_clicks`` give tasks without such leaks;
    how the log was cut and filtered may still make figures optimistic.

    Args:
        task: what to inspect.
        kind: how it was cut.
        dataset: where it came from; without it nothing can be said of its filters.
    """
    checks = {
        "histories before their impressions": _histories(task),
        "clicks across the cut": _clicks_across(task),
        "cut and filters": _protocol(task, kind, dataset),
    }
    findings = tuple(finding for found in checks.values() for finding in found)
    return LeakageReport(tuple(checks), findings)


def _histories(task: ClickTask) -> list[Finding]:
    found = []
    for name, part in (("train", task.train), ("valid", task.valid), ("test", task.test)):
        outside = int(((part.ends < 0) | (part.ends > task.events.lengths[part.users])).sum())
        if outside:
            message = f"{name}: {outside:,} histories end outside the user's events"
            found.append(Finding("history outside", "leak", outside, message))
            continue
        assert task.events.times is not None
        some = part.ends > 0
        last = task.events.offsets[part.users[some]] + part.ends[some] - 1
        late = int((task.events.times[last] >= part.times[some]).sum())
        if late:
            message = f"{name}: {late:,} histories reach the impression or beyond"
            found.append(Finding("late history", "leak", late, message))
    return found


def _clicks_across(task: ClickTask) -> list[Finding]:
    found, learnt = [], _clicks(task.train)
    for name, part in (("valid", task.valid), ("test", task.test)):
        both = _clicks(part).join(learnt, on=["user", "item", "time"], how="semi").height
        if both:
            message = f"{name}: {both:,} clicks are in train as well"
            found.append(Finding("clicks across the cut", "leak", both, message))
    return found


def _clicks(part: Impressions) -> pl.DataFrame:
    some = part.take(part.labels & (part.items >= 0))
    return pl.DataFrame({"user": some.users, "item": some.items, "time": some.times})


def _protocol(task: ClickTask, kind: ClickSplit, dataset: Dataset | None) -> list[Finding]:
    found = [] if dataset is None else whole_log_core(dataset)
    if kind == "user-time":
        message = "training data of some users is later than test data of others"
        found.append(Finding("user-time", "warning", len(task.test), message))
    return found
