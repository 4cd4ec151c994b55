"""A store that goes away and comes back: a real Redis, stopped, held up and restarted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from foretaste.serving.guarding import GuardedStore
from foretaste.serving.keeping import CHANGE_BYTES, MOST_BYTES, Keeper, Sweeper
from foretaste.serving.stores import Event, StateChange, StoreDown, StoreError, open_store
from foretaste.serving.stores.memory import MemoryStore

from .stores.redis_server import RedisServer


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.kill()


def until(holds, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dead_store_costs_nothing_after_the_first_call_and_is_found_again(redis):
    failures: list[int] = []
    guard = GuardedStore(open_store(redis.url), failed=lambda: failures.append(1))
    guard.append([Event("ann", "i01", 1)])
    redis.kill()
    with pytest.raises(StoreError):
        guard.read(["ann"], "", 1, 10)
    assert not guard.up and len(failures) == 1
    begin = time.perf_counter()
    for _ in range(200):
        for call in (lambda: guard.read(["ann"], "", 1, 10), guard.ping, lambda: guard.forget("a")):
            with pytest.raises(StoreError, match="does not answer"):
                call()
    assert time.perf_counter() - begin < 1.0
    assert len(failures) == 1
    redis.start()
    until(lambda: guard.up)
    log, _ = guard.read(["ann"], "", 1, 10)[0]
    assert guard.item_ids(log.items) == ["i01"]
    guard.close()


def test_a_store_that_hangs_is_left_alone_after_one_timeout(redis):
    guard = GuardedStore(open_store(redis.url, timeout=0.3))
    guard.ping()
    redis.pause()
    begin = time.perf_counter()
    for _ in range(20):
        with pytest.raises(StoreError):
            guard.append([Event("ann", "i01", 1)])
    assert time.perf_counter() - begin < 3  # not 20 timeouts
    redis.go_on()
    until(lambda: guard.up)
    guard.append([Event("ann", "i02", 2)])
    guard.close()


def reads_go_on_while_writes_are_refused(guard: GuardedStore, reason: str, give_room) -> None:
    """From a store with events of ann that takes no more, to one that has room again."""
    for _ in range(50):
        with pytest.raises(StoreError, match=reason):
            guard.append([Event("bob", "i01", 1)])
        assert guard.up and not guard.takes
        log, _ = guard.read(["ann"], "", 1, 10)[0]
        assert guard.item_ids(log.items) == ["i01"]
        time.sleep(0.005)
    give_room()
    guard.append([Event("bob", "i02", 1)])
    assert guard.takes
    assert guard.read(["bob"], "", 1, 10)[0][0].total == 1
    guard.close()


def test_a_redis_that_is_full_goes_on_answering_reads(redis, caplog):
    guard = GuardedStore(open_store(redis.url))
    guard.append([Event("ann", "i01", 1)])
    with redis.client() as client:
        client.config_set("maxmemory", 1)

        def give_room() -> None:
            client.config_set("maxmemory", 0)

        reads_go_on_while_writes_are_refused(guard, "refuses .*maxmemory", give_room)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # once each, however many events were refused
    assert "lists go on" in said[0] and "takes events again" in said[1]


def test_an_lmdb_that_cannot_be_written_goes_on_answering_reads(tmp_path, monkeypatch):
    import lmdb

    from foretaste.serving.stores.lmdb_environment import Environment

    guard = GuardedStore(open_store(f"lmdb:{tmp_path / 'store'}"))
    guard.append([Event("ann", "i01", 1)])

    def full(*_: object) -> None:
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Environment, "_commit", full)
        reads_go_on_while_writes_are_refused(guard, "cannot be written: .*No space", patched.undo)


def test_closing_ends_the_search(redis):
    guard = GuardedStore(open_store(redis.url))
    redis.kill()
    with pytest.raises(StoreError):
        guard.ping()
    guard.close()
    redis.start()
    time.sleep(0.3)
    assert not guard.up


def test_the_keeper_writes_all_that_waits_and_no_more_than_fits(monkeypatch):
    import numpy as np

    from foretaste.serving import keeping
    from foretaste.serving.stores import StateChange

    monkeypatch.setattr(keeping, "MOST_BYTES", 10 * (100 + keeping.CHANGE_BYTES))
    written: list[str] = []
    keeper = Keeper(lambda changes: written.extend(change.user for change in changes))
    changes = [
        StateChange(f"u{number}", "f", 0, 1, np.zeros((1, 100), np.uint8), 5, True)
        for number in range(25)
    ]
    for first in range(0, 10, 5):
        assert keeper.put(changes[first : first + 5]) == 0  # the thread has not begun
    assert keeper.put(changes[10:25]) == 15
    keeper.start()
    until(lambda: keeper.put(changes[24:]) == 0)
    keeper.close()
    assert written == [*(f"u{number}" for number in range(10)), "u24"]


def test_states_of_a_replaced_model_go_at_once_and_late_ones_an_hour_later():
    guard = GuardedStore(open_store("memory"))
    guard.append([Event("ann", "i01", 1)])

    def keep(model: str) -> None:
        change = StateChange("ann", model, 0, 1, np.zeros((1, 5), np.uint8), 5, fresh=True)
        assert guard.extend([change]) == [True]

    def kept() -> list[str]:
        return [m for m in "abc" if guard.read(["ann"], m, 5, 1)[0][1] is not None]

    for model in "abc":
        keep(model)
    sweeper = Sweeper(guard, seconds=3_600)
    sweeper.start()
    sweeper.replaced("a", ["b"])
    until(lambda: kept() == ["b", "c"])  # c is another service's
    keep("a")  # an answer that was under way
    sweeper.replaced("b", ["a"])  # and back to the older model
    until(lambda: kept() == ["a", "c"])
    sweeper.close()
    hourly = Sweeper(guard, seconds=0.3)
    hourly.replaced("a", ["b"])
    hourly.start()
    until(lambda: kept() == ["c"])
    keep("a")
    until(lambda: kept() == ["c"])
    hourly.close()
    guard.close()


def test_closing_does_not_wait_for_the_rest_of_a_sweep():
    sweeping = threading.Event()

    class Endless(MemoryStore):
        def _sweep(self, wanted) -> Iterator[int]:
            while True:
                sweeping.set()
                time.sleep(0.01)
                yield 0

    sweeper = Sweeper(GuardedStore(Endless()), seconds=0.01)
    sweeper.start()
    assert sweeping.wait(10)
    begin = time.perf_counter()
    sweeper.close()
    assert time.perf_counter() - begin < 5


def test_expired_states_are_swept(tmp_path):
    store = open_store(f"lmdb:{tmp_path / 'store'}", ttl=0.05)
    guard = GuardedStore(store)
    guard.append([Event("ann", "i01", 1)])
    records = np.zeros((1, 5_000), np.uint8)
    assert guard.extend([StateChange("ann", "f", 0, 1, records, 5, True)]) == [True]
    held = store.size("ann")
    assert held.state_bytes > 5_000
    sweeper = Sweeper(guard, seconds=0.02)
    sweeper.start()
    until(lambda: store.size("ann").state_bytes == 0)
    assert store.size("ann").log_bytes == held.log_bytes
    sweeper.close()
    guard.close()


def test_a_refusal_is_told_for_a_minute_and_no_longer(monkeypatch):
    class Full(MemoryStore):
        def append(self, events, **options) -> None:
            raise StoreError("memory: is full")

    now = [100.0]
    monkeypatch.setattr("foretaste.serving.guarding.time.monotonic", lambda: now[0])
    guard = GuardedStore(Full())
    with pytest.raises(StoreError, match="full"):
        guard.append([Event("ann", "i01", 1)])
    assert not guard.takes
    now[0] += 61  # another process may have been given the events since
    assert guard.takes


class Faulty(MemoryStore):
    """Something of the machine's is missing the first times."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.faults = True, 2

    def _fail(self) -> None:
        if self.faults:
            self.faults -= 1
            raise MemoryError

    def ping(self) -> None:
        if self.down:
            self.down = False
            raise StoreDown("memory: is gone")
        self._fail()

    def sweep(self, **options) -> int:
        self._fail()
        return super().sweep(**options)


def test_the_search_for_a_store_outlives_what_passes(caplog):
    guard = GuardedStore(Faulty())
    with pytest.raises(StoreDown, match="is gone"):
        guard.ping()
    assert not guard.up
    until(lambda: guard.up)
    assert caplog.text.count("could not be asked") == 2


def test_a_search_that_cannot_begin_is_left_to_the_next_call(monkeypatch):
    def no_room(thread) -> None:
        raise RuntimeError("can't start new thread")

    guard = GuardedStore(Faulty())
    with monkeypatch.context() as patched, pytest.raises(StoreDown, match="is gone"):
        patched.setattr(threading.Thread, "start", no_room)
        guard.ping()
    assert guard.up


def test_sweeping_and_keeping_outlive_what_passes(caplog):
    caplog.set_level("INFO")
    store = Faulty()
    store.down = False
    sweeper = Sweeper(GuardedStore(store), seconds=0.01)
    sweeper.start()
    until(lambda: "states dropped" in caplog.text)
    sweeper.close()
    assert caplog.text.count("not swept") == 2

    tries: list[int] = []

    def keep(changes) -> None:
        tries.append(len(changes))
        if len(tries) == 1:
            raise MemoryError

    keeper = Keeper(keep)
    keeper.start()
    change = StateChange("ann", "f", 0, 1, np.zeros((1, MOST_BYTES - CHANGE_BYTES), np.uint8), 5)
    assert keeper.put([change]) == 0
    until(lambda: keeper.put([change]) == 0)  # the room of the first is free again
    keeper.close()
    assert tries == [1, 1]
