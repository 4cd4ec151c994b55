"""Whatever is done in whatever order, a store holds what plain lists would hold."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.serving.stores import Event, StateChange, UserStore

WINDOW = 3
WIDTHS = {"narrow": 5, "wide": 700, "other": 5}  # bytes; wide ones lie in chunks of less than 3
USERS = ("ann", "bob")


class Append(NamedTuple):
    events: list[tuple[str, int]]  # user, item


class Extend(NamedTuple):
    user: str
    model: str
    off: int  # how far the expected count is from the kept one
    made: int  # records
    silent: int  # events without a record
    fresh: bool
    remembered: bool  # name the birth of the log that was read last, perhaps before a forget


class Forget(NamedTuple):
    user: str


class Sweep(NamedTuple):
    gone: list[str]


class Reopen(NamedTuple):
    pass


users, models = st.sampled_from(USERS), st.sampled_from(list(WIDTHS))
steps = st.lists(
    st.one_of(
        st.builds(Append, st.lists(st.tuples(users, st.integers(0, 5)), max_size=6)),
        st.builds(
            Extend,
            users,
            models,
            st.sampled_from([0, 0, 0, 0, 1, -1]),
            st.integers(0, 4),
            st.integers(0, 1),
            st.sampled_from([False, False, True]),
            st.booleans(),
        ),
        st.builds(Forget, users),
        st.builds(Sweep, st.lists(models, max_size=2)),
        st.builds(Reopen),
    ),
    min_size=12,
    max_size=40,
)


class Plain:
    """The reference: lists and dictionaries."""

    def __init__(self) -> None:
        self.logs: dict[str, list[tuple[str, int]]] = {}
        self.births: dict[str, int] = {}  # how often the user's log began
        self.states: dict[tuple[str, str], tuple[int, list[bytes]]] = {}

    def append(self, user: str, item: str, time: int) -> None:
        if user not in self.logs:
            self.logs[user] = []
            self.births[user] = self.births.get(user, 0) + 1
        self.logs[user].append((item, time))

    def forget(self, user: str) -> bool:
        for key in [key for key in self.states if key[0] == user]:
            del self.states[key]
        return self.logs.pop(user, None) is not None

    def sweep(self, gone: list[str]) -> int:
        keys = [key for key in self.states if key[1] in gone]
        for key in keys:
            del self.states[key]
        return len(keys)

    def extend(self, change: StateChange, same_log: bool) -> bool:
        key = (change.user, change.fingerprint)
        consumed, records = self.states.get(key, (0, []))
        if not same_log or change.consumed > len(self.logs.get(change.user, [])):
            return False
        if not change.fresh and consumed != change.expected:
            return False
        if change.user not in self.logs:
            return False
        made = [] if change.fresh else records
        made = made + [row.tobytes() for row in change.records]
        self.states[key] = (change.consumed, made)
        return True


class Pair:
    """A store and the reference, through the same steps."""

    def __init__(self, store: UserStore, prefix: str) -> None:
        self.store, self.plain, self.prefix = store, Plain(), prefix
        # The birth that the store told with the last read, and which log that was.
        self.read_births: dict[str, tuple[int, int]] = {user: (0, 0) for user in USERS}
        self.clock = itertools.count()

    def name(self, user: str) -> str:
        return self.prefix + user

    def append(self, step: Append) -> None:
        made = [Event(self.name(u), f"item {i}", next(self.clock)) for u, i in step.events]
        for event in made:
            self.plain.append(*event)
        self.store.append(made)

    def extend(self, step: Extend) -> None:
        user = self.name(step.user)
        consumed, _ = self.plain.states.get((user, step.model), (0, []))
        expected = max(consumed + step.off, 0)
        width = WIDTHS[step.model]
        records = np.zeros((step.made, width), np.uint8)
        for row in records:  # no two records are the same
            row[:4] = np.frombuffer(np.uint32(next(self.clock)).tobytes(), np.uint8)
            row[-1] = row[0]
        birth, began = self.read_births[step.user] if step.remembered else (None, None)
        after = (0 if step.fresh else expected) + step.made + step.silent
        change = StateChange(user, step.model, expected, after, records, WINDOW, step.fresh, birth)
        same = birth is None or (user in self.plain.logs and self.plain.births[user] == began)
        assert self.store.extend([change]) == [self.plain.extend(change, same)]

    def check(self, user: str, limit: int) -> None:
        name = self.name(user)
        log = self.plain.logs.get(name, [])
        for model, width in WIDTHS.items():
            [(found, state)] = self.store.read([name], model, WINDOW, limit)
            newest = log[max(len(log) - limit, 0) :]
            assert self.store.item_ids(found.items) == [item for item, _ in newest]
            assert found.times.tolist() == [time for _, time in newest]
            assert found.total == len(log)
            consumed, records = self.plain.states.get((name, model), (None, []))
            assert (None if state is None else state.consumed) == consumed
            if state is not None:
                assert state.records.shape[1] == width
                assert [row.tobytes() for row in state.records] == records[-WINDOW:]
            self.read_births[user] = (found.birth, self.plain.births.get(name, 0))
        size = self.store.size(name)
        assert (size.log_bytes > 0) == bool(log)
        assert (size.state_bytes > 0) == any(key[0] == name for key in self.plain.states)


@pytest.mark.parametrize("kind", ["memory", "lmdb", "redis"])
def test_any_steps_leave_what_plain_lists_would_hold(kind, shared_place):
    place = shared_place(kind)
    options = {"sync": False} if kind == "lmdb" else {}
    examples = itertools.count()
    current = [place.open(**options)]

    @settings(
        max_examples=80,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(steps=steps, limits=st.lists(st.integers(0, 12), min_size=1, max_size=5))
    def run(steps, limits) -> None:
        # Users of its own for each example; the dictionary of items grows through all of them.
        pair = Pair(current[0], f"{next(examples)} ")
        for step, limit in zip(steps, itertools.cycle(limits), strict=False):
            match step:
                case Append():
                    pair.append(step)
                case Extend():
                    pair.extend(step)
                case Forget():
                    name = pair.name(step.user)
                    assert pair.store.forget(name) == pair.plain.forget(name)
                case Sweep():
                    assert pair.store.sweep(gone=step.gone) == pair.plain.sweep(step.gone)
                case Reopen() if kind != "memory":
                    pair.store.close()
                    current[0] = pair.store = place.open(**options)
            if not isinstance(step, Extend):  # births are of the last read, not of now
                pair.check(USERS[limit % 2], limit)
        for user in USERS:
            pair.check(user, 10_000)
            assert pair.store.forget(pair.name(user)) == (pair.name(user) in pair.plain.logs)

    run()
    for store in place.opened:
        store.close()
