"""Processes that share a store, and processes and servers that are killed while they write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from foretaste.serving.stores import UserStore, open_store

from .writing_process import USERS, WINDOW, bring_up_to_date, records

SCRIPT = Path(__file__).parent / "writing_process.py"


class Writer:
    """A `writing_process`; ``acknowledged`` are the events that the store has confirmed to it."""

    def __init__(self, url: str, name: str, count: int) -> None:
        self.name, self.acknowledged, self.outages = name, [], 0
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), url, name, str(count)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def hear(self, until: int | None = None) -> None:
        """Listen until so many events are acknowledged, or to the end."""
        assert self.process.stdout is not None
        while until is None or len(self.acknowledged) < until:
            line = self.process.stdout.readline()
            if not line:
                break
            if not line.endswith("\n"):
                continue  # killed within a line
            if line == "down\n":
                self.outages += 1
            else:
                self.acknowledged.append(int(line))

    def kill(self) -> None:
        """SIGKILL, and hear what it still had said."""
        self.process.kill()
        self.finish()

    def finish(self) -> int:
        """Hear everything and return how it ended."""
        self.hear()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait()

    def found(self, store: UserStore) -> list[int]:
        """Its events in the store, checking that each lies with its user, in order."""
        everything = []
        for place, user in enumerate(USERS):
            [(log, _)] = store.read([user], "model", WINDOW, 100_000)
            own = [
                int(item.rpartition("-")[2])
                for item in store.item_ids(log.items)
                if item.startswith(f"{self.name}-")
            ]
            assert own == sorted(own)
            assert all(n % len(USERS) == place for n in own)
            everything += own
        return sorted(everything)


def check_states(store: UserStore) -> None:
    """Every state is exactly that of the events it says it has read."""
    for user in USERS:
        [(log, state)] = store.read([user], "model", WINDOW, 100_000)
        assert state is not None
        read = records(store.item_ids(log.items[: state.consumed])[-WINDOW:])
        np.testing.assert_array_equal(state.records, read)


def test_two_processes_lose_nothing_and_mix_nothing(lasting_place):
    writers = [Writer(lasting_place.url, name, 150) for name in ("one", "two")]
    assert [writer.finish() for writer in writers] == [0, 0]
    store = lasting_place.open()
    for writer in writers:
        assert writer.acknowledged == list(range(150)) == writer.found(store)
        assert writer.outages == 0
    check_states(store)
    for user in USERS:
        bring_up_to_date(store, user)
        [(log, state)] = store.read([user], "model", WINDOW, 0)
        assert state.consumed == log.total == 100
    check_states(store)


def test_what_was_acknowledged_survives_a_kill(lasting_place):
    killed = []
    for name, many in (("one", 20), ("two", 41), ("three", 62)):
        writer = Writer(lasting_place.url, name, 100_000)
        writer.hear(until=many)
        writer.kill()
        killed.append(writer)
        assert len(writer.acknowledged) >= many
    store = lasting_place.open()
    for writer in killed:
        found = writer.found(store)
        assert found[: len(writer.acknowledged)] == writer.acknowledged
        assert len(found) <= len(writer.acknowledged) + 1  # one may have been under way
    check_states(store)


def test_others_go_on_when_one_is_killed(lasting_place):
    doomed, survivor = (Writer(lasting_place.url, name, 10**6) for name in ("doomed", "survivor"))
    doomed.hear(until=15)
    doomed.kill()
    survivor.hear(until=len(survivor.acknowledged) + 60)
    assert survivor.process.poll() is None
    survivor.kill()
    store = lasting_place.open()
    for writer in (doomed, survivor):
        assert writer.found(store)[: len(writer.acknowledged)] == writer.acknowledged
    check_states(store)


def test_a_killed_redis_keeps_what_it_acknowledged_and_its_clients_come_back(own_redis):
    writer = Writer(own_redis.url, "one", 100_000)
    writer.hear(until=40)
    own_redis.kill()
    before = len(writer.acknowledged)
    own_redis.start()
    writer.hear(until=before + 60)  # the same process goes on by itself
    own_redis.kill()
    own_redis.start()
    writer.hear(until=before + 120)
    writer.kill()
    assert writer.outages > 0
    with open_store(own_redis.url, timeout=20) as store:
        assert set(writer.acknowledged) <= set(writer.found(store))
        check_states(store)


def test_the_dictionary_of_another_process_is_learnt(lasting_place):
    store = lasting_place.open()
    assert store.known_items() == []
    assert Writer(lasting_place.url, "one", 30).finish() == 0
    [(log, _)] = store.read(["ann"], "model", WINDOW, 100)
    assert store.item_ids(log.items) == [f"one-{n}" for n in range(0, 30, 3)]
    assert store.known_items() == [f"one-{n}" for n in range(30)]
