"""What changes logs: events of several requests are written in one call, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from foretaste.serving.guarding import GuardedStore
from foretaste.serving.stores import Event, StoreError


class Forget(NamedTuple):
    """Remove all of a user."""

    user: str


Write = list[Event] | Forget


def write_all(store: GuardedStore, writes: Sequence[Write]) -> list[int | Exception]:
    """Do all that is asked: events next to each other in one call of the store.

    Returns:
        For each write the number of events, or 1 for a user who was forgotten and 0 for one of
        whom there was nothing; a ``StoreError`` where the store did not do it.
    """
    results: list[int | Exception] = []
    for forgets, group in groupby(writes, lambda write: isinstance(write, Forget)):
        together = list(group)
        if forgets:
            results += [_forget(store, one) for one in together if isinstance(one, Forget)]
        else:
            results += _append(store, [one for one in together if not isinstance(one, Forget)])
    return results


def _append(store: GuardedStore, writes: list[list[Event]]) -> list[int | Exception]:
    try:
        store.append([event for events in writes for event in events])
    except StoreError as error:
        return [error] * len(writes)
    return [len(events) for events in writes]


def _forget(store: GuardedStore, write: Forget) -> int | Exception:
    try:
        return int(store.forget(write.user))
    except StoreError as error:
        return error
