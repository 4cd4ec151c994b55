"""What every user store offers: an event log per user and, beside it, states made from the log.

The log is the truth and is kept whole; a state is a cache of it that one model made. Of a state the
store knows how many events of the log it has read (``consumed``), and nothing else of its meaning:
records are bytes of one length. A change of a state names the ``consumed`` that it was computed
from, and is left out if the state has moved on meanwhile, so that two processes never mix records.
"""

from __future__ import annotations

import hashlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np

from foretaste.errors import InputError
from foretaste.serving.limits import ID_BYTES

MODEL_BYTES = 8  # of a model's fingerprint in the keys of states: there are few models
MOST_LOGGED = 2**32 - 1  # of one user
NAMELESS = 2**32 - 1
"""Stands in a log for an item whose id was not kept; see `UserStore.append`."""
LOG_RECORD = np.dtype([("item", "<u4"), ("time", "<i8")])  # 12 bytes, packed


class StoreError(Exception):
    """The store did not do what was asked. The message is one line and names it."""


class StoreDown(StoreError):
    """The store cannot be reached, or gave no answer in time: the next call would fare no better.

    Any other ``StoreError`` comes from a store that answers: it is full, say, and still reads.
    """


class Event(NamedTuple):
    """A user took an item. ``time`` is in milliseconds since 1970."""

    user: str
    item: str
    time: int


class UserLog(NamedTuple):
    """The newest events of a user, oldest first.

    ``items``: uint32 [n], numbers of the store's own dictionary (`UserStore.item_ids`), or
    NAMELESS.
    ``times``: int64 [n], milliseconds since 1970.
    ``total``: how many events the whole log holds, also those that were not asked for.
    ``birth``: drawn when the log began, 0 where there is none; another one after `forget`.
    """

    items: np.ndarray
    times: np.ndarray
    total: int
    birth: int = 0


class KeptState(NamedTuple):
    """What a model kept of a user.

    ``consumed``: how many events of the log, from its beginning, the state has read.
    ``records``: uint8 [n, record bytes], oldest first; the last ``window`` at most.
    """

    consumed: int
    records: np.ndarray


class StateChange(NamedTuple):
    """Records to append to a user's state, or a whole new state.

    ``expected``: the ``consumed`` of the state that the records continue (not looked at if fresh).
    ``consumed``: how many events of the log have been read with them; events that leave no record
    count too.
    ``records``: uint8 [m, record bytes], oldest first; m may be 0.
    ``window``: records that still matter; older ones are dropped now and then.
    ``fresh``: replace whatever state is there.
    ``birth``: that of the log which was read. With it, a change computed before a `forget` is
    refused after it for certain; without, only if the new log is still shorter than ``consumed``.
    """

    user: str
    fingerprint: str
    expected: int
    consumed: int
    records: np.ndarray
    window: int
    fresh: bool = False
    birth: int | None = None


class StoreSize(NamedTuple):
    """Bytes that the store holds for one user, measured, with keys and headers."""

    log_bytes: int
    state_bytes: int


class Extension(NamedTuple):
    """A `StateChange` that was checked, as the stores take it."""

    user: bytes
    model: bytes
    expected: int
    consumed: int
    width: int
    records: bytes
    window: int
    fresh: bool
    birth: int | None


class Admission(NamedTuple):
    """Which new ids of items get a number: ``strangers`` only while fewer than ``room`` have."""

    strangers: frozenset[bytes]
    room: int


EVERY_ITEM = Admission(frozenset(), 0)


class UserStore(ABC):
    """A log and states per user. Calls take many users at once and are safe from several threads.

    Ids of users and items are any text up to 512 bytes of UTF-8. All methods raise `StoreError`
    when the store does not do it (`StoreDown` when it cannot be reached; the next call tries again
    by itself) and InputError for arguments that no store could take.

    Args:
        ttl: seconds after its last change for which a state is kept; None keeps it.
        log_ttl: the same for logs, seconds after the last event; None keeps them.
    """

    name: str  # for messages: where the store is, without passwords
    durable: bool  # does an event survive `kill -9` of this process?

    def __init__(self, ttl: float | None, log_ttl: float | None) -> None:
        """Check both times."""
        for option, seconds in (("ttl", ttl), ("log_ttl", log_ttl)):
            if seconds is not None and not 0 < seconds < 1e10:
                raise InputError(f"{option} = {seconds}: give seconds above 0, or leave it out")
        self.ttl, self.log_ttl = ttl, log_ttl

    def append(
        self, events: Sequence[Event], *, strangers: Collection[str] = (), room: int = 0
    ) -> None:
        """Write events to the logs of their users, in the order given.

        They are durable when this returns (see `durable`). After a `StoreError` some, all or none
        are written: asking again may write an event twice, never lose one.

        Args:
            events: of any users and items.
            strangers: item ids that nobody vouches for. Those that the dictionary does not hold yet
                are taken into it only while fewer than ``room`` came into it as strangers. Beyond,
                their events are kept with their times, and the item is NAMELESS for good.
            room: see ``strangers``.
        """
        # The same ids come again and again in a call of many events: each is checked once.
        users: dict[str, list[tuple[bytes, int]]] = {}
        items: dict[str, bytes] = {}
        for user, item, time in events:
            known = users.get(user)
            if known is None:
                known = users[user] = []
            data = items.get(item)
            if data is None:
                data = items[item] = encoded(item, "item")
            known.append((data, _moment(time)))
        if users:
            admission = EVERY_ITEM
            if strangers:
                doubtful = frozenset(items[item] for item in strangers if item in items)
                admission = Admission(doubtful, room)
            named = {encoded(user, "user"): events for user, events in users.items()}
            self._append(named, admission)

    def read(
        self, users: Sequence[str], fingerprint: str, window: int, limit: int
    ) -> list[tuple[UserLog, KeptState | None]]:
        """Per user the last ``limit`` events and the state of this model, in one round trip.

        The state is None if there is none, if it expired, or if it belongs to a log that is gone.
        It has read at most ``total`` events of the log that comes with it. Arrays are the caller's.
        """
        if window < 1 or limit < 0:
            raise InputError(f"window = {window}, limit = {limit}: give at least 1 and 0")
        names = [encoded(user, "user") for user in users]
        return self._read(names, digest(fingerprint), window, limit) if names else []

    def extend(self, changes: Sequence[StateChange]) -> list[bool]:
        """Make the changes whose state is still the one they were computed from; which were made.

        A change is made if the kept state's ``consumed`` equals ``expected`` (no state counts as
        0), or if it is fresh. It is left out if the user's log is gone or shorter than
        ``consumed``, if ``birth`` names another log, or if the kept records have another length.
        """
        checked = [_extension(change) for change in changes]
        return self._extend(checked) if checked else []

    def forget(self, user: str) -> bool:
        """Remove a user's log and all states; True if there was something.

        The dictionary of item ids stays: it says nothing of who took them.
        """
        return self._forget(encoded(user, "user"))

    def size(self, user: str) -> StoreSize:
        """Bytes held for a user, as measured by the means of this store."""
        return self._size(encoded(user, "user"))

    def sweep(
        self,
        *,
        gone: Collection[str] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Drop what has expired and states whose log is gone; how many states went.

        Other calls go on meanwhile.

        Args:
            gone: fingerprints of models whose states go as well.
            stopped: asked after each of many small parts: whether to leave the rest.
        """
        old = {digest(text) for text in gone}
        dropped = 0
        for some in self._sweep(lambda model: model not in old):
            dropped += some
            if stopped():
                break
        return dropped

    def item_ids(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """The ids behind item numbers of this store's logs; InputError for a number not given,
        which NAMELESS is."""
        wanted = np.asarray(numbers, dtype=np.int64)
        highest = int(wanted.max(initial=-1))
        known = self._items(highest + 1)
        if highest >= len(known) or wanted.min(initial=0) < 0:
            raise InputError(
                f"item number {highest}: {self.name} has given the numbers 0 to "
                f"{len(known) - 1}; numbers of one store mean nothing in another"
            )
        return [known[number] for number in wanted.tolist()]

    def known_items(self) -> list[str]:
        """The dictionary so far: number -> item id. It only grows while this store is open."""
        return list(self._items(None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def ping(self) -> None:
        """Return if the store answers, raise `StoreError` if not."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held open; every later call raises `StoreError`."""

    @abstractmethod
    def _append(
        self, users: dict[bytes, list[tuple[bytes, int]]], admission: Admission
    ) -> None: ...

    @abstractmethod
    def _read(
        self, users: list[bytes], model: bytes, window: int, limit: int
    ) -> list[tuple[UserLog, KeptState | None]]: ...

    @abstractmethod
    def _extend(self, changes: list[Extension]) -> list[bool]: ...

    @abstractmethod
    def _forget(self, user: bytes) -> bool: ...

    @abstractmethod
    def _size(self, user: bytes) -> StoreSize: ...

    @abstractmethod
    def _sweep(self, wanted: Callable[[bytes], bool]) -> Iterator[int]:
        """Sweep part by part, each of a moment; how many states went with each."""

    @abstractmethod
    def _items(self, needed: int | None) -> list[str]:
        """Item ids by number, at least ``needed`` of them if there are so many; None: all."""


@lru_cache(64)
def digest(text: str) -> bytes:
    """A few bytes for a model's fingerprint, whatever its text; calls name the same few."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=MODEL_BYTES).digest()


def encoded(text: str, what: str) -> bytes:
    """An id as UTF-8; InputError if it is not text, has lone surrogates or is too long."""
    if not isinstance(text, str):
        raise InputError(f"{what} {text!r}: an id is text, not {type(text).__name__}")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} {text[:40]!a}: not text that UTF-8 can hold") from None
    if len(data) > ID_BYTES:
        raise InputError(
            f"{what} {text[:40]!r}...: {len(data)} bytes; an id has {ID_BYTES} at most"
        )
    return data


def log_of(packed: bytes | bytearray | memoryview, total: int, birth: int) -> UserLog:
    """A `UserLog` from 12-byte records."""
    records = np.frombuffer(packed, LOG_RECORD)
    # Copies are aligned and writable, whatever the buffer was.
    return UserLog(records["item"].copy(), records["time"].copy(), total, birth)


def records_of(packed: bytearray, width: int) -> np.ndarray:
    """Records uint8 [n, width] over a buffer that is the caller's to write."""
    return np.frombuffer(packed, np.uint8).reshape(-1, width)


def no_log() -> UserLog:
    """The log of a user of whom nothing is known."""
    return UserLog(np.empty(0, np.uint32), np.empty(0, np.int64), 0)


def _moment(time: int) -> int:
    try:
        moment = operator.index(time)
    except TypeError:
        raise InputError(f"time {time!r}: give whole milliseconds since 1970") from None
    if not -(2**63) <= moment < 2**63:
        raise InputError(f"time {time}: beyond 64 bits; give milliseconds since 1970")
    return moment


def _extension(change: StateChange) -> Extension:
    records = change.records
    if records.ndim != 2 or records.dtype != np.uint8 or records.shape[1] < 1:
        raise InputError(
            f"records {records.dtype} {list(records.shape)}: give uint8 [events, record bytes]"
        )
    if change.window < 1:
        raise InputError(f"window = {change.window}: give at least 1")
    since = 0 if change.fresh else change.expected
    if not 0 <= since <= change.consumed <= MOST_LOGGED:
        raise InputError(f"consumed = {change.consumed} after {since}: it only grows")
    if len(records) > change.consumed - since:
        raise InputError(f"{len(records)} records of {change.consumed - since} events: one each")
    if change.birth is not None and not 0 <= change.birth < 2**64:
        raise InputError(f"birth = {change.birth}: give that of the log which was read")
    return Extension(
        encoded(change.user, "user"),
        digest(change.fingerprint),
        change.expected,
        change.consumed,
        records.shape[1],
        records[-change.window :].tobytes(),
        change.window,
        change.fresh,
        change.birth,
    )
