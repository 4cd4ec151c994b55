"""What the engine is asked and what it answers, in ids and titles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from foretaste.recommenders.core.results import RecommendedItem

Source = Literal["state", "history", "fallback"]


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks, and for what.

    Attributes:
        run: name of a loaded run.
        user: whose log is the history; None when there is no user.
        history: item ids, oldest first; the history when there is no user, nothing in the log, or
            the store is down.
        times: of ``history``, in milliseconds since 1970; None when they are not told.
        k: length of the list.
        exclude_seen: leave out items of the history.
        candidates: item ids that may be in the list; None means all.
        explain: say which events the list leans on.
    """

    run: str
    user: str | None = None
    history: tuple[str, ...] = ()
    times: tuple[int, ...] | None = None
    k: int = 10
    exclude_seen: bool = True
    candidates: tuple[str, ...] | None = None
    explain: bool = False


class Reason(NamedTuple):
    """An event of the history, and how much the mean score of the list falls without it.

    ``fall`` is None when no event would remain.
    """

    item_id: str
    title: str
    fall: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A list, and what it was made from.

    Attributes:
        items: best first.
        unknown: ids of the history and of the candidates that the catalog does not hold.
        source: a kept ``state``, the whole ``history``, or the ``fallback`` to popular items.
        fingerprint: of the model that made the list.
        degraded: the store did not answer.
        logged: events that the log holds of the user.
        state_bytes: that were read of what the store keeps of the user for this run, the log apart.
        because: the last events, the weightiest first; None when not asked for.
    """

    items: list[RecommendedItem]
    unknown: list[str]
    source: Source
    fingerprint: str
    degraded: bool = False
    logged: int = 0
    state_bytes: int = 0
    because: list[Reason] | None = None
