"""A user store in Redis: any process of any machine can answer any user.

What survives the death of the Redis server is its own setting: ``appendonly yes`` with
``appendfsync always`` keeps every acknowledged event, ``everysec`` all but the last second's. It
must not evict keys without a time to live (``maxmemory-policy noeviction`` or ``volatile-*``), and
it is one server, perhaps with replicas: a Redis Cluster does not run scripts over several users.
"""

from __future__ import annotations

import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np

from foretaste.errors import InputError, MissingExtraError
from foretaste.serving.stores import redis_scripts as lua
from foretaste.serving.stores.base import (
    MODEL_BYTES,
    NAMELESS,
    Admission,
    Extension,
    KeptState,
    StoreDown,
    StoreError,
    StoreSize,
    UserLog,
    UserStore,
    log_of,
    no_log,
    records_of,
)

_EVENT = struct.Struct("<Iq")  # the place among the items sent, the time
_FIELDS = 6  # of a user in the answer to READ
# While a script runs the server does nothing else, so long calls are cut.
_CALL_EVENTS, _CALL_USERS, _CALL_ITEMS, _CALL_BYTES = 10_000, 2_000, 50_000, 4_000_000


class _Dictionary(NamedTuple):
    """Item numbers of the server -> ours, for one edition of the server's dictionary."""

    edition: bytes
    ours: np.ndarray


class RedisStore(UserStore):
    """Logs and states in a Redis database, under keys that begin with ``ft:``.

    The item numbers given out are this object's own: should the server lose data and number
    items anew, numbers that were given out before keep their meaning.

    Args:
        url: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]``, or ``rediss://`` for TLS.
        ttl: see `UserStore`.
        log_ttl: see `UserStore`.
        timeout: seconds to wait for a connection and for an answer. After a wait in vain the
            server is left alone for as long, and calls fail at once.

    Raises:
        InputError: the address is not of this form.
        MissingExtraError: the package ``redis`` is not installed.
    """

    durable = True

    def __init__(
        self,
        url: str,
        ttl: float | None = None,
        log_ttl: float | None = None,
        timeout: float = 1.0,
    ) -> None:
        """Nothing is connected yet."""
        super().__init__(ttl, log_ttl)
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError:
            raise MissingExtraError("redis", "serve") from None
        if not 0 < timeout < 3_600:
            raise InputError(f"timeout = {timeout}: give seconds above 0")
        parts = _parts(url)
        port, database = parts.port or 6379, int(parts.path[1:] or 0)
        self.name = f"{parts.scheme}://{_bracketed(parts.hostname or '')}:{port}/{database}"
        self._errors = (redis.RedisError, OSError, ValueError)  # ValueError: what no Redis says
        self._refusal = redis.ResponseError  # full, read-only, no disk for what it keeps
        self._late, self._timeout, self._rest_until = redis.TimeoutError, timeout, 0.0
        self._client = redis.Redis(
            host=parts.hostname or "",
            port=port,
            db=database,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            ssl=parts.scheme == "rediss",
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            decode_responses=False,
            protocol=2,
            # An append that is asked again could be made twice, so nothing is asked again by
            # itself. A connection that the server closed is noticed before it is used.
            retry=Retry(NoBackoff(), 0),
        )
        scripts = (lua.APPEND, lua.READ, lua.EXTEND, lua.FORGET, lua.SIZE, lua.SWEEP, lua.LEARN)
        self._scripts = {text: self._client.register_script(text) for text in scripts}
        self._closed = False
        self._learning = threading.Lock()
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._dictionary = _Dictionary(b"", np.empty(0, np.uint32))

    def ping(self) -> None:
        """Return if the server answers within the timeout."""
        self._told(self._client.ping)

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._client.close()

    def _append(self, users: dict[bytes, list[tuple[bytes, int]]], admission: Admission) -> None:
        part: dict[bytes, list[tuple[bytes, int]]] = {}
        room = _CALL_EVENTS
        for user, events in users.items():
            while events:
                part[user], events = events[:room], events[room:]
                room -= len(part[user])
                if room == 0:
                    self._append_part(part, admission)
                    part, room = {}, _CALL_EVENTS
        if part:
            self._append_part(part, admission)

    def _append_part(
        self, users: dict[bytes, list[tuple[bytes, int]]], admission: Admission
    ) -> None:
        places: dict[bytes, int] = {}
        packed = [
            b"".join(
                _EVENT.pack(places.setdefault(item, len(places)), moment) for item, moment in events
            )
            for events in users.values()
        ]
        keys = [lua.NAMES, lua.NUMBERS, lua.STRANGERS, *(lua.LOG + user for user in users)]
        epoch, birth = secrets.token_bytes(4), secrets.token_bytes(4)
        life = _milliseconds(self.log_ttl)
        doubtful = b"".join(b"1" if item in admission.strangers else b"0" for item in places)
        given = [epoch, birth, life, len(places), admission.room, doubtful]
        self._call(lua.APPEND, keys, [*given, *places, *packed])

    def _read(
        self, users: list[bytes], model: bytes, window: int, limit: int
    ) -> list[tuple[UserLog, KeptState | None]]:
        found: list[tuple[UserLog, KeptState | None]] = []
        while len(found) < len(users):  # once, unless it is a great deal
            keys = [lua.NAMES]
            for user in users[len(found) : len(found) + _CALL_USERS]:
                keys += [lua.LOG + user, lua.STATE + model + user]
            edition, *fields = self._call(lua.READ, keys, [window, limit, _CALL_BYTES])
            rows = range(0, len(fields), _FIELDS)
            if not rows:
                raise StoreError(f"{self.name}: answered a read with nothing")
            found += [self._user(edition, *fields[at : at + _FIELDS]) for at in rows]
        return found

    def _user(
        self,
        edition: bytes,
        birth: bytes,
        total: int,
        events: bytes,
        consumed: int,
        width: int,
        records: bytes,
    ) -> tuple[UserLog, KeptState | None]:
        if not birth:
            return no_log(), None
        log = log_of(events, total, int.from_bytes(birth, "little"))
        log = log._replace(items=self._translate(edition, log.items))
        if consumed < 0:
            return log, None
        return log, KeptState(consumed, records_of(bytearray(records), width))

    def _extend(self, changes: list[Extension]) -> list[bool]:
        made: list[bool] = []
        begin = 0
        while begin < len(changes):
            end, size = begin, 0
            while end < len(changes) and end - begin < _CALL_USERS and size < _CALL_BYTES:
                size += len(changes[end].records)
                end += 1
            made += self._extend_part(changes[begin:end])
            begin = end
        return made

    def _extend_part(self, changes: list[Extension]) -> list[bool]:
        keys, given = [lua.NAMES, lua.MODELS], [_milliseconds(self.ttl)]
        for one in changes:
            keys += [lua.LOG + one.user, lua.STATE + one.model + one.user]
            birth = b"" if one.birth is None else one.birth.to_bytes(8, "little")
            numbers = (one.expected, one.consumed, one.width, one.window, int(one.fresh))
            given += [one.model, birth, *numbers, one.records]
        return [answer == 1 for answer in self._call(lua.EXTEND, keys, given)]

    def _forget(self, user: bytes) -> bool:
        keys = [lua.MODELS, lua.GOING, lua.LOG + user]
        return self._call(lua.FORGET, keys, [lua.STATE, user]) > 0

    def _size(self, user: bytes) -> StoreSize:
        """As ``MEMORY USAGE`` of Redis says: keys and allocated values, with their slack."""
        keys = [lua.MODELS, lua.GOING, lua.LOG + user]
        return StoreSize(*self._call(lua.SIZE, keys, [lua.STATE, user]))

    def _sweep(self, wanted: Callable[[bytes], bool]) -> Iterator[int]:
        # Before the states: one that is written meanwhile names its model again. Till the last has
        # gone its model is still named, or `forget` would not find those that are left.
        models = self._told(self._client.sunion, lua.MODELS, lua.GOING)
        gone = [model for model in models if not wanted(model)]
        for model in gone:
            self._told(self._client.smove, lua.MODELS, lua.GOING, model)
        cursor = 0
        while True:
            # Matched by the prefix alone; it has no characters that a pattern would take otherwise.
            cursor, states = self._told(self._client.scan, cursor, lua.STATE + b"*", 1_000)
            keys, kept = [lua.NAMES], []
            for state in states:
                name = state.removeprefix(lua.STATE)
                model, user = name[:MODEL_BYTES], name[MODEL_BYTES:]
                keys += [lua.LOG + user, state]
                kept.append(int(wanted(model)))
            yield self._call(lua.SWEEP, keys, kept) if kept else 0
            if cursor == 0:
                break
        if gone:
            self._told(self._client.srem, lua.GOING, *gone)

    def _items(self, needed: int | None) -> list[str]:
        if needed is None or needed > len(self._texts):
            self._learn()
        return self._texts

    def _translate(self, edition: bytes, numbers: np.ndarray) -> np.ndarray:
        """Our numbers for the server's."""
        named = numbers != NAMELESS
        if not named.all():
            numbers[named] = self._translate(edition, numbers[named])
            return numbers
        if not len(numbers):
            return numbers
        known = self._dictionary
        if known.edition != edition or numbers.max() >= len(known.ours):
            known = self._learn()
        if known.edition != edition or numbers.max() >= len(known.ours):
            raise StoreError(f"{self.name}: a log has item numbers that the dictionary has not")
        return known.ours[numbers]

    def _learn(self) -> _Dictionary:
        """The server's dictionary as it is now."""
        with self._learning:
            while True:
                known = self._dictionary
                given = [known.edition, len(known.ours), _CALL_ITEMS]
                edition, items = self._call(lua.LEARN, [lua.NAMES], given)
                before = known.ours if edition == known.edition else known.ours[:0]
                added = []
                for item in items:
                    text = item.decode(errors="replace")  # all that we wrote is UTF-8
                    added.append(self._numbers.setdefault(text, len(self._texts)))
                    if added[-1] == len(self._texts):
                        self._texts.append(text)
                ours = np.concatenate([before, np.array(added, np.uint32)])
                self._dictionary = _Dictionary(edition, ours)
                if len(items) < _CALL_ITEMS:
                    return self._dictionary

    def _call(self, script: str, keys: list[bytes], given: list[Any]) -> Any:
        return self._told(self._scripts[script], keys, given)

    def _told(self, ask: Any, *given: Any) -> Any:
        """The server's answer; `StoreDown` if there is none, `StoreError` if it refuses."""
        if self._closed:
            raise StoreDown(f"{self.name}: closed")
        if time.monotonic() < self._rest_until:
            raise StoreDown(f"{self.name}: gave no answer in time, asked again soon")
        try:
            return ask(*given)
        except self._late as error:
            # Left alone for a while: otherwise every request in turn would wait in vain.
            self._rest_until = time.monotonic() + self._timeout
            raise StoreDown(f"{self.name}: no answer within {self._timeout:g} s") from error
        except self._refusal as error:
            reason = " ".join(str(error).partition(" script: ")[0].split())
            raise StoreError(f"{self.name}: refuses ({reason})") from error
        except self._errors as error:
            raise StoreDown(f"{self.name}: {' '.join(str(error).split())}") from error


def _parts(url: str) -> SplitResult:
    """The parts of an address; InputError if it is not one of a Redis database."""
    message = "not of the form redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]"
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
    except ValueError:
        raise InputError(f"store: the address is {message}") from None
    database = parts.path.removeprefix("/")
    valid = valid and (not database or (database.isascii() and database.isdigit()))
    if not valid or not parts.hostname or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise InputError(f"store {shown!r}: {message}")
    return parts


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, round(1_000 * seconds))
