"""A user store on disk, in LMDB: several processes of one machine may share it.

Four databases in one environment:

- ``log``: hash of the user id -> header, user id, newest events (older ones in sealed chunks);
- ``state``: hash of the user id, hash of the model's fingerprint -> header, newest records (same);
- ``names``: number of an item -> its id; ``numbers``: hash of the id -> number, and a count.

Hashes are blake2b: 16 bytes for users and items, whose ids may be longer than a key of LMDB, and 8
for models. Times to live are counted in whole seconds.

What is freed is used again, and is not overwritten before. When a user was forgotten or a log has
expired, the first to open the folder, and the last to close it, write the file anew without them.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.serving.limits import ID_BYTES
from foretaste.serving.stores import lmdb_chunks as chunks
from foretaste.serving.stores.base import (
    LOG_RECORD,
    MODEL_BYTES,
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
from foretaste.serving.stores.lmdb_environment import Environment
from foretaste.serving.stores.lmdb_rewriting import Mark

MAP_SIZE = 1 << 28  # bytes to begin with; it doubles when it is full
_USER = 16  # bytes of a key
_EVENT = struct.Struct("<Iq")  # LOG_RECORD
_LOG = struct.Struct("<IIIH")  # birth, second of the last event, events in all, bytes of the id
_STATE = struct.Struct("<IIII")  # birth of its log, second of the last change, consumed, width
_NUMBER = struct.Struct(">I")  # big-endian, so that names lie in the order of their numbers
_STRANGERS = b"strangers"  # shorter than a hash: how many came into the dictionary as such
_REMOVED = b"removed"  # there when a log was removed since the file was written anew
_SWEPT = 1_000  # entries looked at in one transaction of a sweep: others want to write too


class _Log(NamedTuple):
    birth: int
    total: int
    opened: Any  # the newest events, bytes or memoryview


class _State(NamedTuple):
    consumed: int
    width: int
    opened: Any


class LmdbStore(UserStore):
    """A folder that several processes of one machine read and write; it survives their death.

    Opened in a process, it is of no use in a child made by ``fork``: open it there.

    Args:
        folder: where it lies; made if it is not there.
        ttl: see `UserStore`.
        log_ttl: see `UserStore`.
        sync: wait for the disk at every write, so that what was acknowledged survives a power cut.
            Without, it survives the death of the process, and a power cut may spoil the file.
        map_size: bytes of address space to begin with; it grows by itself.
        clock: the time in seconds since 1970; another one may be given for tests.

    Raises:
        InputError: the folder cannot be made or written.
        StoreError: it holds something else, or this process has it open already.
        MissingExtraError: the package ``lmdb`` is not installed.
    """

    durable = True

    def __init__(
        self,
        folder: str | Path,
        ttl: float | None = None,
        log_ttl: float | None = None,
        sync: bool = True,
        map_size: int = MAP_SIZE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the folder, making it if need be."""
        super().__init__(ttl, log_ttl)
        names = ("log", "state", "names", "numbers")
        self._environment = Environment(folder, names, map_size, sync, Mark(b"numbers", _REMOVED))
        self._log, self._state, self._names, self._numbers = self._environment.databases
        self.name, self._clock = self._environment.name, clock
        self._texts: list[str] = []
        self._learning = threading.Lock()
        overhead = _USER + _LOG.size + ID_BYTES // 8  # most user ids are short
        self._log_chunk = chunks.capacity(_EVENT.size, self._environment.page, overhead, 80)

    def ping(self) -> None:
        """Return if a transaction can be opened."""
        self._environment.read(lambda transaction: None)

    def close(self) -> None:
        """Close the environment once nobody is in it."""
        self._environment.close()

    def pages(self) -> StoreSize:
        """Bytes of the pages that all logs and all states take, with the tree above them."""

        def taken(transaction: Any, database: Any) -> int:
            stat = transaction.stat(database)
            kinds = ("leaf_pages", "branch_pages", "overflow_pages")
            return self._environment.page * sum(stat[kind] for kind in kinds)

        return self._environment.read(
            lambda transaction: StoreSize(
                taken(transaction, self._log), taken(transaction, self._state)
            )
        )

    def _append(self, users: dict[bytes, list[tuple[bytes, int]]], admission: Admission) -> None:
        # In the order of the events, so that the same events give the same numbers.
        items = dict.fromkeys(item for events in users.values() for item, _ in events)
        now, birth = int(self._clock()), secrets.randbits(31) + 1  # 0 stands for no log

        def change(transaction: Any) -> None:
            numbers = self._number(transaction, items, admission)
            for user, events in users.items():
                packed = b"".join(_EVENT.pack(numbers[item], moment) for item, moment in events)
                key = _hash(user)
                log = self._find_log(transaction, key, user)
                if log is None:  # an expired one may still lie there
                    if chunks.drop(transaction, self._log, key):
                        transaction.put(_REMOVED, b"", db=self._numbers)
                    log = _Log(birth, 0, b"")
                full = self._log_chunk * _EVENT.size
                opened = chunks.append(transaction, self._log, key, log.opened, packed, full)
                header = _LOG.pack(log.birth, now, log.total + len(events), len(user))
                transaction.put(key, header + user + opened, db=self._log)

        self._environment.write(change)

    def _number(
        self, transaction: Any, items: Iterable[bytes], admission: Admission
    ) -> dict[bytes, int]:
        """The number of each item, given now to those that have none."""
        numbers: dict[bytes, int] = {}
        following = None
        for item in items:
            key = _hash(item)
            found = transaction.get(key, db=self._numbers)
            if found is None:
                if following is None:
                    following = transaction.stat(self._names)["entries"]
                if item in admission.strangers and not self._admit(transaction, admission.room):
                    numbers[item] = NAMELESS
                    continue
                found = _NUMBER.pack(following)
                transaction.put(key, found, db=self._numbers)
                transaction.put(found, item, db=self._names, append=True)
                following += 1
            numbers[item] = _NUMBER.unpack(found)[0]
        return numbers

    def _admit(self, transaction: Any, room: int) -> bool:
        """Count one more stranger, if there is room for it."""
        known = transaction.get(_STRANGERS, db=self._numbers)
        count = 0 if known is None else _NUMBER.unpack(known)[0]
        return count < room and transaction.put(
            _STRANGERS, _NUMBER.pack(count + 1), db=self._numbers
        )

    def _read(
        self, users: list[bytes], model: bytes, window: int, limit: int
    ) -> list[tuple[UserLog, KeptState | None]]:
        def ask(transaction: Any) -> list[tuple[UserLog, KeptState | None]]:
            return [self._read_one(transaction, user, model, window, limit) for user in users]

        return self._environment.read(ask)

    def _read_one(
        self, transaction: Any, user: bytes, model: bytes, window: int, limit: int
    ) -> tuple[UserLog, KeptState | None]:
        key = _hash(user)
        log = self._find_log(transaction, key, user)
        if log is None:
            return no_log(), None
        wanted = min(limit, log.total) * _EVENT.size
        events = log_of(
            chunks.tail(transaction, self._log, key, log.opened, wanted), log.total, log.birth
        )
        state = self._find_state(transaction, key + model, log.birth)
        if state is None:
            return events, None
        wanted = min(window, state.consumed) * state.width  # there are no more records than events
        packed = chunks.tail(transaction, self._state, key + model, state.opened, wanted)
        return events, KeptState(state.consumed, records_of(packed, state.width))

    def _extend(self, changes: list[Extension]) -> list[bool]:
        now = int(self._clock())

        def change(transaction: Any) -> list[bool]:
            return [self._extend_one(transaction, one, now) for one in changes]

        return self._environment.write(change)

    def _extend_one(self, transaction: Any, change: Extension, now: int) -> bool:
        user = _hash(change.user)
        log = self._find_log(transaction, user, change.user)
        if log is None or change.birth not in (None, log.birth) or change.consumed > log.total:
            return False
        key = user + change.model
        state = self._find_state(transaction, key, log.birth)
        if change.fresh or (state is None and change.expected == 0):
            self._drop_state(transaction, key, log.birth)
            state = _State(0, change.width, b"")
        elif state is None or (state.consumed, state.width) != (change.expected, change.width):
            return False
        width, overhead = change.width, len(key) + _STATE.size
        full = width * chunks.capacity(width, self._environment.page, overhead, change.window)
        opened = chunks.append(transaction, self._state, key, state.opened, change.records, full)
        if len(opened) < len(state.opened) + len(change.records):
            # A chunk was sealed, so an older one may be of no use any more.
            chunks.trim(transaction, self._state, key, len(opened), change.window * width)
        header = _STATE.pack(log.birth, now, change.consumed, width)
        transaction.put(key, header + opened, db=self._state)
        return True

    def _forget(self, user: bytes) -> bool:
        key = _hash(user)

        def change(transaction: Any) -> bool:
            dropped = chunks.drop(transaction, self._log, key)
            dropped += chunks.drop(transaction, self._state, key)
            return dropped > 0 and transaction.put(_REMOVED, b"", db=self._numbers)

        return self._environment.write(change)

    def _size(self, user: bytes) -> StoreSize:
        """What the entries take in LMDB's pages; the free room of shared pages is nobody's."""
        key, page = _hash(user), self._environment.page
        return self._environment.read(
            lambda transaction: StoreSize(
                chunks.held(transaction, self._log, key, page),
                chunks.held(transaction, self._state, key, page),
            )
        )

    def _sweep(self, wanted: Callable[[bytes], bool]) -> Iterator[int]:
        at = b""
        while at is not None and self.log_ttl is not None:
            at = self._environment.write(
                lambda transaction, at=at: self._sweep_logs(transaction, at)
            )
            yield 0
        at = b""
        while at is not None:
            some, at = self._environment.write(
                lambda transaction, at=at: self._sweep_states(transaction, at, wanted)
            )
            yield some

    def _sweep_logs(self, transaction: Any, at: bytes) -> bytes | None:
        """Drop expired logs among the next entries; where to go on, None at the end."""
        keys, following = self._some(transaction, self._log, at)
        for key in keys:
            if len(key) == _USER:
                written = _LOG.unpack_from(transaction.get(key, db=self._log))[1]
                if self._expired(written, self.log_ttl):
                    chunks.drop(transaction, self._log, key)
                    transaction.put(_REMOVED, b"", db=self._numbers)
        return following

    def _sweep_states(
        self, transaction: Any, at: bytes, wanted: Callable[[bytes], bool]
    ) -> tuple[int, bytes | None]:
        """Drop states among the next entries: how many, and where to go on."""
        keys, following = self._some(transaction, self._state, at)
        dropped = 0
        for key in keys:
            if len(key) != _USER + MODEL_BYTES:
                continue  # a sealed chunk
            kept = wanted(key[_USER:])
            head = transaction.get(key[:_USER], db=self._log) if kept else None
            birth = 0 if head is None else _LOG.unpack_from(head)[0]
            if self._find_state(transaction, key, birth) is None:
                self._drop_state(transaction, key, birth)
                dropped += 1
        return dropped, following

    def _drop_state(self, transaction: Any, key: bytes, log: int) -> None:
        """Drop a state; of a log that is gone, as something that must leave the file too."""
        value = transaction.get(key, db=self._state)
        if value is not None and _STATE.unpack_from(value)[0] != log:
            transaction.put(_REMOVED, b"", db=self._numbers)
        chunks.drop(transaction, self._state, key)

    def _some(self, transaction: Any, database: Any, at: bytes) -> tuple[list[bytes], bytes | None]:
        """The next keys of a database, and the one after them."""
        keys: list[bytes] = []
        with transaction.cursor(database) as cursor:
            there = cursor.set_range(at) if at else cursor.first()
            while there and len(keys) < _SWEPT:
                keys.append(bytes(cursor.key()))
                there = cursor.next()
            return keys, bytes(cursor.key()) if there else None

    def _items(self, needed: int | None) -> list[str]:
        if needed is None or needed > len(self._texts):
            with self._learning:
                self._texts += self._environment.read(self._learn)
        return self._texts

    def _learn(self, transaction: Any) -> list[str]:
        """The item ids after those that are known."""
        with transaction.cursor(self._names) as cursor:
            if not cursor.set_range(_NUMBER.pack(len(self._texts))):
                return []
            return [bytes(text).decode() for text in cursor.iternext(keys=False, values=True)]

    def _find_log(self, transaction: Any, key: bytes, user: bytes) -> _Log | None:
        value = transaction.get(key, db=self._log)
        if value is None:
            return None
        birth, written, total, length = _LOG.unpack_from(value)
        begin = _LOG.size + length
        if value[_LOG.size : begin] != user:
            raise StoreError(f"{self.name}: two user ids have the same hash, one is {user[:40]!r}")
        if self._expired(written, self.log_ttl):
            return None
        return _Log(birth, total, value[begin:])

    def _find_state(self, transaction: Any, key: bytes, log: int) -> _State | None:
        """The state under a key, if it is of the log of this birth and has not expired."""
        value = transaction.get(key, db=self._state)
        if value is None:
            return None
        birth, written, consumed, width = _STATE.unpack_from(value)
        if birth != log or self._expired(written, self.ttl):
            return None
        return _State(consumed, width, value[_STATE.size :])

    def _expired(self, written: int, ttl: float | None) -> bool:
        return ttl is not None and int(self._clock()) - written > ttl


def _hash(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_USER).digest()


assert LOG_RECORD.itemsize == _EVENT.size
