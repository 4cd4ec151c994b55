"""States and logs that end by themselves, and sweeps."""

from __future__ import annotations

import time

import numpy as np
import pytest

from foretaste.serving.stores import Event
from foretaste.serving.stores.lmdb_store import LmdbStore
from foretaste.serving.stores.memory import MemoryStore

from .making import change, events, records


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_a_state_expires_by_the_clock_and_the_log_stays(kind, tmp_path):
    now = [1_000.0]
    kinds = {"memory": MemoryStore, "lmdb": lambda **more: LmdbStore(tmp_path, **more)}
    with kinds[kind](ttl=60, clock=lambda: now[0]) as store:
        store.append(events("ann", *"abc"))
        store.extend([change("ann", 0, 1, records(1))])
        now[0] += 50
        assert store.extend([change("ann", 1, 2, records(2))]) == [True]  # sixty more from here
        now[0] += 50
        assert store.read(["ann"], "model", 4, 0)[0][1].consumed == 2
        now[0] += 11
        [(log, state)] = store.read(["ann"], "model", 4, 10)
        assert (log.total, state) == (3, None)
        assert store.extend([change("ann", 2, 3, records(3))]) == [False]
        assert store.extend([change("ann", 0, 3, records(4))]) == [True]
        np.testing.assert_array_equal(store.read(["ann"], "model", 4, 0)[0][1].records, records(4))


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_a_log_expires_with_its_states_if_that_is_asked_for(kind, tmp_path):
    now = [1_000.0]
    kinds = {"memory": MemoryStore, "lmdb": lambda **more: LmdbStore(tmp_path, **more)}
    with kinds[kind](log_ttl=60, clock=lambda: now[0]) as store:
        store.append([*events("ann", *"abc"), *events("bob", *"ab")])
        store.extend([change("ann", 0, 3, records(1, 2, 3))])
        now[0] += 40
        store.append(events("bob", "c"))
        now[0] += 40
        (ann, state), (bob, _) = store.read(["ann", "bob"], "model", 4, 10)
        assert (ann.total, state, bob.total) == (0, None, 3)
        store.append(events("ann", "z"))
        [(ann, state)] = store.read(["ann"], "model", 4, 10)
        assert (ann.total, store.item_ids(ann.items), state) == (1, ["z"], None)


def test_redis_lets_states_and_logs_expire(shared_place, eventually):
    place = shared_place("redis")
    with place.open(ttl=0.5, log_ttl=1.5) as store:
        began = time.monotonic()
        store.append(events("ann", *"abc"))
        store.extend([change("ann", 0, 2, records(1, 2))])
        [(log, state)] = store.read(["ann"], "model", 4, 10)
        assert log.total == 3 or time.monotonic() - began > 1.5
        assert state is not None or time.monotonic() - began > 0.5
        eventually(lambda: store.read(["ann"], "model", 4, 10)[0][1] is None)
        assert time.monotonic() - began >= 0.5
        eventually(lambda: store.read(["ann"], "model", 4, 10)[0][0].total == 0)
        assert time.monotonic() - began >= 1.5
        assert store.size("ann") == (0, 0)
    with place.open() as store:  # without a time to live, what had one is kept again
        with place.open(ttl=100, log_ttl=100) as mortal:
            mortal.append(events("ann", "a"))
            mortal.extend([change("ann", 0, 1, records(1))])
        store.append(events("ann", "b"))
        store.extend([change("ann", 1, 2, records(2))])
        with_life = [key for key in store._client.scan_iter() if store._client.ttl(key) >= 0]
        assert with_life == []


def test_a_sweep_drops_the_states_of_models_that_are_gone(place, store):
    users = [f"u{n}" for n in range(1_500)]  # more than one step of a sweep
    store.append([Event(user, "a", 0) for user in users])
    store.extend([change(user, 0, 1, records(1)) for user in users])
    store.extend([change(user, 0, 1, records(2), model="old") for user in users[:600]])
    assert store.sweep() == 0
    assert store.sweep(gone=["old", "new"]) == 600
    assert store.sweep(gone=["old"]) == 0
    assert [s for _, s in store.read(users[:600], "old", 4, 0) if s is not None] == []
    assert len([s for _, s in store.read(users, "model", 4, 0) if s is not None]) == 1_500
    assert store.sweep(gone=["model"]) == 1_500
    assert store.size("u7").state_bytes == 0
    assert store.read(["u7"], "model", 4, 10)[0][0].total == 1
    assert store.extend([change("u7", 0, 1, records(1))]) == [True]
    assert store.forget("u7") and store.size("u7") == (0, 0)


def test_a_sweep_that_is_stopped_leaves_the_rest_to_the_next(store):
    users = [f"u{n}" for n in range(2_500)]
    store.append([Event(user, "a", 0) for user in users])
    store.extend([change(user, 0, 1, records(1)) for user in users])
    asked: list[int] = []
    dropped = store.sweep(gone=["model"], stopped=lambda: bool(asked.append(1)) or len(asked) == 2)
    assert 0 < dropped < 2_500 and len(asked) == 2
    assert store.sweep(gone=["model"]) == 2_500 - dropped


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_a_sweep_drops_what_has_expired(kind, tmp_path):
    now = [1_000.0]
    kinds = {"memory": MemoryStore, "lmdb": lambda **more: LmdbStore(tmp_path, **more)}
    with kinds[kind](ttl=60, log_ttl=600, clock=lambda: now[0]) as store:
        store.append(events("old", *"abc"))
        store.append(events("young", *"abc"))
        store.extend([change("old", 0, 1, records(1)), change("young", 0, 1, records(1))])
        now[0] += 59
        store.extend([change("young", 1, 2, records(2))])
        now[0] += 2
        assert store.sweep() == 1
        assert store.size("old").state_bytes == 0 < store.size("young").state_bytes
        assert store.size("old").log_bytes > 0
        now[0] += 300
        store.append(events("young", "d"))
        now[0] += 300
        assert store.sweep() == 1
        assert store.size("old") == (0, 0)
        assert store.size("young").state_bytes == 0
        assert store.read(["young"], "model", 4, 10)[0][0].total == 4
