"""A user store in the memory of this process: for trying things out, gone when it ends."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator

from foretaste.serving.stores.base import (
    LOG_RECORD,
    NAMELESS,
    Admission,
    Extension,
    KeptState,
    StoreError,
    StoreSize,
    UserLog,
    UserStore,
    log_of,
    no_log,
    records_of,
)

_SWEPT = 1_000  # users looked at by one step of a sweep: others want the lock too


class _State:
    """One model's records of one user."""

    __slots__ = ("consumed", "records", "width", "written")

    def __init__(self, change: Extension, now: float) -> None:
        self.width, self.records = change.width, bytearray(change.records)
        self.consumed, self.written = change.consumed, now


class _User:
    """One user's log and states."""

    __slots__ = ("birth", "log", "states", "written")

    def __init__(self) -> None:
        self.birth = secrets.randbits(63) | 1  # never 0, which stands for no log
        self.log, self.written = bytearray(), 0.0
        self.states: dict[bytes, _State] = {}

    @property
    def total(self) -> int:
        return len(self.log) // LOG_RECORD.itemsize


class MemoryStore(UserStore):
    """Dictionaries of byte arrays under one lock. Nothing survives the process.

    Args:
        ttl: see `UserStore`.
        log_ttl: see `UserStore`.
        clock: the time in seconds; another one may be given for tests.
    """

    name = "memory"
    durable = False

    def __init__(
        self,
        ttl: float | None = None,
        log_ttl: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An empty store."""
        super().__init__(ttl, log_ttl)
        self._clock, self._lock, self._closed = clock, threading.Lock(), False
        self._users: dict[bytes, _User] = {}
        self._numbers: dict[bytes, int] = {}
        self._texts: list[str] = []
        self._strangers = 0

    def ping(self) -> None:
        """Raise `StoreError` if the store was closed."""
        if self._closed:
            raise StoreError(f"{self.name}: closed")

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._closed = True
            self._users, self._numbers, self._texts = {}, {}, []

    def _append(self, users: dict[bytes, list[tuple[bytes, int]]], admission: Admission) -> None:
        with self._lock:
            self.ping()
            now = self._clock()
            for name, events in users.items():
                user = self._alive(name)
                if user is None:
                    user = self._users[name] = _User()
                user.written = now
                for item, moment in events:
                    number = self._number(item, admission)
                    user.log += number.to_bytes(4, "little")
                    user.log += moment.to_bytes(8, "little", signed=True)

    def _number(self, item: bytes, admission: Admission) -> int:
        """The number of an item, given now if it has none."""
        number = self._numbers.get(item)
        if number is None:
            if item in admission.strangers:
                if self._strangers >= admission.room:
                    return NAMELESS
                self._strangers += 1
            number = self._numbers[item] = len(self._texts)
            self._texts.append(item.decode())
        return number

    def _read(
        self, users: list[bytes], model: bytes, window: int, limit: int
    ) -> list[tuple[UserLog, KeptState | None]]:
        with self._lock:
            self.ping()
            return [self._read_one(name, model, window, limit) for name in users]

    def _read_one(
        self, name: bytes, model: bytes, window: int, limit: int
    ) -> tuple[UserLog, KeptState | None]:
        user = self._alive(name)
        if user is None:
            return no_log(), None
        first = max(user.total - limit, 0) * LOG_RECORD.itemsize
        log = log_of(user.log[first:], user.total, user.birth)
        state = self._alive_state(user, model)
        if state is None:
            return log, None
        first = max(len(state.records) - window * state.width, 0)
        return log, KeptState(state.consumed, records_of(state.records[first:], state.width))

    def _extend(self, changes: list[Extension]) -> list[bool]:
        with self._lock:
            self.ping()
            return [self._extend_one(change) for change in changes]

    def _extend_one(self, change: Extension) -> bool:
        user = self._alive(change.user)
        if user is None or change.birth not in (None, user.birth) or change.consumed > user.total:
            return False
        state = self._alive_state(user, change.model)
        if change.fresh or (state is None and change.expected == 0):
            user.states[change.model] = _State(change, self._clock())
            return True
        if state is None or (state.consumed, state.width) != (change.expected, change.width):
            return False
        state.records += change.records
        state.consumed, state.written = change.consumed, self._clock()
        most = change.window * state.width
        if len(state.records) > 2 * most:
            del state.records[:-most]
        return True

    def _forget(self, user: bytes) -> bool:
        with self._lock:
            self.ping()
            return self._users.pop(user, None) is not None

    def _size(self, user: bytes) -> StoreSize:
        """As Python allocated it: the buffers, with the slack they grew by, and the user's key."""
        with self._lock:
            self.ping()
            held = self._users.get(user)
            if held is None:
                return StoreSize(0, 0)
            states = held.states.values()
            return StoreSize(
                sum(map(sys.getsizeof, (user, held, held.log))),
                sum(sys.getsizeof(state) + sys.getsizeof(state.records) for state in states),
            )

    def _sweep(self, wanted: Callable[[bytes], bool]) -> Iterator[int]:
        with self._lock:
            self.ping()
            names = list(self._users)
        for first in range(0, len(names), _SWEPT):
            with self._lock:
                self.ping()
                some = [self._sweep_one(name, wanted) for name in names[first : first + _SWEPT]]
            yield sum(some)

    def _sweep_one(self, name: bytes, wanted: Callable[[bytes], bool]) -> int:
        """Drop states of one user; how many."""
        if name not in self._users:  # forgotten meanwhile
            return 0
        states = self._users[name].states
        before = len(states)
        user = self._alive(name)
        if user is None:
            return before
        for model in list(states):
            if not wanted(model):
                del states[model]
            else:
                self._alive_state(user, model)
        return before - len(states)

    def _items(self, needed: int | None) -> list[str]:
        self.ping()
        return self._texts

    def _alive(self, name: bytes) -> _User | None:
        """The user, unless the log has expired; then it goes, with its states."""
        user = self._users.get(name)
        if user is not None and self._expired(user.written, self.log_ttl):
            del self._users[name]
            return None
        return user

    def _alive_state(self, user: _User, model: bytes) -> _State | None:
        state = user.states.get(model)
        if state is not None and self._expired(state.written, self.ttl):
            del user.states[model]
            return None
        return state

    def _expired(self, written: float, ttl: float | None) -> bool:
        return ttl is not None and self._clock() - written > ttl
