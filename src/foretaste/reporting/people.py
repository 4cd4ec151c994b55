"""Lists of a few people, the models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from foretaste.reporting.runs import ReportedRun

PEOPLE = 8
TARGETS = 12


class Line(NamedTuple):
    """An item of a list, and whether it was what came next."""

    title: str
    hit: bool


class ListOfRun(NamedTuple):
    """What one run recommended to a person."""

    title: str
    series: int
    lines: tuple[Line, ...]
    hits: int


class Person(NamedTuple):
    """What somebody chose, what came next, and what the runs recommended in between."""

    user_id: str
    history: tuple[str, ...]
    targets: tuple[str, ...]
    more_targets: int
    lists: tuple[ListOfRun, ...]


def people(runs: Sequence[ReportedRun]) -> tuple[Person, ...]:
    """The users of whom the runs wrote lists down, at most ``PEOPLE``."""
    users = list(dict.fromkeys(str(one.get("user_id")) for run in runs for one in run.lists))
    return tuple(_person(user, runs) for user in users[:PEOPLE])


def titled(runs: Sequence[ReportedRun]) -> bool:
    """Whether items have titles other than their ids."""
    lines = [line for run in runs for one in run.lists for line in one.get("recommended") or ()]
    return any(line.get("title") not in (None, "", line.get("item_id")) for line in lines)


def _person(user: str, runs: Sequence[ReportedRun]) -> Person:
    found = [(run, one) for run in runs for one in run.lists if str(one.get("user_id")) == user]
    first = found[0][1]
    targets = [str(title) for title in first.get("targets") or ()]
    return Person(
        user_id=user,
        history=tuple(str(title) for title in first.get("history") or ()),
        targets=tuple(targets[:TARGETS]),
        more_targets=max(0, len(targets) - TARGETS),
        lists=tuple(_list(run, one) for run, one in found),
    )


def _list(run: ReportedRun, one: Mapping[str, Any]) -> ListOfRun:
    lines = tuple(
        Line(str(line.get("title") or line.get("item_id") or "?"), bool(line.get("hit")))
        for line in one.get("recommended") or ()
    )
    return ListOfRun(run.title, run.series, lines, sum(line.hit for line in lines))
