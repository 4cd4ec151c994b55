"""What changes logs: events of several requests are written in one call, in their order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import NamedTuple

from foretaste.serving.guarding import GuardedStore
from foretaste.serving.stores import Event, StoreError


class Forget(NamedTuple):
    """Remove all of a user."""

    user: str


class Append(NamedTuple):
    """Add events; ``strangers`` are their item ids that no loaded run knows."""

    events: list[Event]
    strangers: Collection[str]


Write = Append | Forget


def write_all(store: GuardedStore, writes: Sequence[Write], room: int) -> list[int | Exception]:
    """Do all that is asked: events next to each other in one call of the store.

    Args:
        store: where.
        writes: in their order.
        room: strangers that the store may keep by name.

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
            results += _append(store, [one for one in together if isinstance(one, Append)], room)
    return results


def _append(store: GuardedStore, writes: list[Append], room: int) -> list[int | Exception]:
    events = [event for write in writes for event in write.events]
    strangers = {item for write in writes for item in write.strangers}
    try:
        store.append(events, strangers=strangers, room=room)
    except StoreError as error:
        return [error] * len(writes)
    return [len(write.events) for write in writes]


def _forget(store: GuardedStore, write: Forget) -> int | Exception:
    try:
        return int(store.forget(write.user))
    except StoreError as error:
        return error
