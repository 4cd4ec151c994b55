"""A store that may be down: it is asked only while it answers, and found again when it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import numpy as np

from foretaste.serving.stores import (
    Event,
    KeptState,
    StateChange,
    StoreDown,
    StoreError,
    UserLog,
    UserStore,
)

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two tries to reach a store that is down."""

REFUSED_SECONDS = 60.0
"""For which a refusal of events is told. Another worker may be the one that they are taken from."""

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class GuardedStore:
    """A circuit breaker: the call that fails waits for the store's own timeout, the next do not.

    After a ``StoreDown`` every call raises one at once, and a thread of its own asks the store
    until it answers. Any other ``StoreError`` is a refusal, which is quick and tells nothing of
    other calls: a store that is full goes on answering reads. Calls may come from several threads.
    """

    def __init__(self, store: UserStore, failed: Callable[[], None] = lambda: None) -> None:
        """``failed`` is called for every call that the store did not do."""
        self.store = store
        self._failed = failed
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._up = True
        self._refused: float | None = None  # when events were, and none were taken since

    @property
    def up(self) -> bool:
        """Whether the last that is known of the store is that it answers."""
        return self._up

    @property
    def takes(self) -> bool:
        """Whether no events were refused in the last minute, as a full store does, or were since
        taken."""
        return self._refused is None or time.monotonic() - self._refused >= REFUSED_SECONDS

    def append(
        self, events: Sequence[Event], *, strangers: Collection[str] = (), room: int = 0
    ) -> None:
        """As of ``UserStore``."""
        try:
            self._call(lambda: self.store.append(events, strangers=strangers, room=room))
        except StoreDown:
            raise
        except StoreError as error:
            if self._refused is None:
                logger.warning("%s; events are refused until it takes them, lists go on", error)
            self._refused = time.monotonic()
            raise
        if self._refused is not None:
            logger.warning("%s: takes events again", self.store.name)
        self._refused = None

    def read(
        self, users: Sequence[str], fingerprint: str, window: int, limit: int
    ) -> list[tuple[UserLog, KeptState | None]]:
        """As of ``UserStore``."""
        return self._call(lambda: self.store.read(users, fingerprint, window, limit))

    def extend(self, changes: Sequence[StateChange]) -> list[bool]:
        """As of ``UserStore``."""
        return self._call(lambda: self.store.extend(changes))

    def forget(self, user: str) -> bool:
        """As of ``UserStore``."""
        return self._call(lambda: self.store.forget(user))

    def sweep(
        self,
        *,
        gone: Collection[str] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """As of ``UserStore``."""
        return self._call(lambda: self.store.sweep(gone=gone, stopped=stopped))

    def item_ids(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """As of ``UserStore``."""
        return self._call(lambda: self.store.item_ids(numbers))

    def ping(self) -> None:
        """As of ``UserStore``."""
        self._call(self.store.ping)

    def close(self) -> None:
        """End the search for a lost store, and close it."""
        self._closed.set()
        self.store.close()

    def _call(self, ask: Callable[[], Result]) -> Result:
        if not self._up:
            raise StoreDown(f"{self.store.name}: does not answer; it is asked again shortly")
        try:
            return ask()
        except StoreError as error:
            self._failed()
            if isinstance(error, StoreDown):
                self._lose(error)
            raise

    def _lose(self, error: StoreDown) -> None:
        with self._lock:
            if not self._up or self._closed.is_set():
                return
            self._up = False
        logger.warning("%s; until it answers, events are refused and lists come without it", error)
        try:
            threading.Thread(target=self._search, name="store-search", daemon=True).start()
        except RuntimeError:  # no room for a thread: the next call finds out for itself
            logger.exception("%s: cannot be searched for", self.store.name)
            self._up = True

    def _search(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.wait(pause):
            try:
                self.store.ping()
            except StoreError:
                pass
            except Exception:  # as a lack of memory, which passes
                logger.exception("%s: could not be asked", self.store.name)
            else:
                self._up = True
                logger.warning("%s: answers again", self.store.name)
                return
            pause = min(2 * pause, LONGEST_PAUSE)
