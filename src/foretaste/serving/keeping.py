"""States are written behind the answers, so that nobody waits for the disk or the network; and
what has expired is cleared away."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection, Sequence

from foretaste.serving.guarding import GuardedStore
from foretaste.serving.stores import StateChange, StoreError

CHANGE_BYTES = 500
"""What a change takes besides its records."""

MOST_BYTES = 64_000_000
"""Of records that wait to be written. Beyond it they are dropped, and made again when needed."""

TOGETHER = 64
"""Batches of changes written in one call."""

SWEEP_SECONDS = 3_600.0
"""Between two searches for states that have expired."""

logger = logging.getLogger(__name__)


class Keeper:
    """A thread that writes changes of states, all that wait in one call."""

    def __init__(self, keep: Callable[[Sequence[StateChange]], None]) -> None:
        """``keep`` writes changes. What it cannot write is made again when it is needed."""
        self._keep = keep
        self._lock = threading.Lock()
        self._bytes = 0  # of records that wait
        self._queue: queue.SimpleQueue[Sequence[StateChange] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, changes: Sequence[StateChange]) -> int:
        """Have changes written soon. Returns how many were dropped, as too much waits already."""
        size = _bytes(changes)
        with self._lock:
            if self._bytes + size > MOST_BYTES:
                return len(changes)
            self._bytes += size
        self._queue.put(changes)
        return 0

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            taken = [self._queue.get()]
            while taken[-1] is not None and len(taken) < TOGETHER:
                try:
                    taken.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            going = taken[-1] is not None
            changes = [change for part in taken if part is not None for change in part]
            try:
                if changes:
                    self._keep(changes)
            except Exception:  # as a lack of memory, which passes
                logger.exception("%d states not kept", len(changes))
            finally:
                with self._lock:
                    self._bytes -= _bytes(changes)


def _bytes(changes: Sequence[StateChange]) -> int:
    return sum(CHANGE_BYTES + change.records.nbytes for change in changes)


class Sweeper:
    """A thread that drops expired states once an hour, and those of a replaced model at once.

    States of other models that are not loaded here stay until they expire: another service may
    share the store.
    """

    def __init__(self, store: GuardedStore, seconds: float = SWEEP_SECONDS) -> None:
        """Nothing happens before ``start``."""
        self._store, self._seconds = store, seconds
        self._lock = threading.Lock()
        self._gone: set[str] = set()  # fingerprints of replaced models
        self._woken, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="sweeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def replaced(self, fingerprint: str, loaded: Collection[str]) -> None:
        """Have the states of a model dropped soon, unless it is among those that are ``loaded``.

        They are looked for again at the next hour: an answer that was under way, or another process
        that still has the old model, may have written some more.
        """
        with self._lock:
            self._gone = (self._gone | {fingerprint}) - set(loaded)
        self._woken.set()

    def close(self) -> None:
        """End, after the part of a sweep that is under way."""
        self._ended = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            woken = self._woken.wait(self._seconds)
            self._woken.clear()
            if self._ended:
                return
            with self._lock:
                gone = set(self._gone)
            try:
                dropped = self._store.sweep(gone=gone, stopped=lambda: self._ended)
            except StoreError as error:
                logger.info("not swept: %s", error)
                continue
            except Exception:
                logger.exception("not swept")
                continue
            logger.info("%d states dropped: expired, or of replaced models", dropped)
            if not woken:
                with self._lock:
                    self._gone -= gone
