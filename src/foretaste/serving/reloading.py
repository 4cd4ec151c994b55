"""A newer run takes the place of the loaded one while requests go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from foretaste.errors import InputError
from foretaste.serving.engine import Engine
from foretaste.serving.indexing import IndexWish
from foretaste.serving.models import ServedRun, Stamp, load_run, stamp_of

AGAIN_SECONDS, MOST_SECONDS = 30.0, 3_600.0
"""Until a run that could not be loaded is tried again: at first, and in the end."""

logger = logging.getLogger(__name__)


class _Refused(NamedTuple):
    """Files that could not be loaded, seconds since then, and the time of the next try."""

    stamp: Stamp
    pause: float
    until: float


class Watcher:
    """Looks at the folders of the loaded runs, and loads those that have changed.

    The new model is loaded beside the old one and answers once before it takes over. A folder
    that is being written is left alone until two looks in a row find the same files and these
    belong together. What fails may pass, as a lack of memory or of open files does: it is tried
    again after a while, at once when the files change, and ever more rarely when they do not.
    """

    def __init__(
        self,
        engine: Engine,
        seconds: float,
        wish: IndexWish | None,
        swapped: Callable[[ServedRun, ServedRun], None],
    ) -> None:
        """``wish`` is for the index of a new run.

        ``swapped`` is told of the old and the new run when the new one is in place.
        """
        self._engine, self._seconds, self._swapped = engine, seconds, swapped
        self._wish = wish
        self._seen: dict[str, Stamp | None] = {run.name: run.stamp for run in engine.runs}
        self._refused: dict[str, _Refused] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End; a model that is being loaded is not waited for."""
        self._ended.set()

    def look(self) -> None:
        """Look at all folders once."""
        for run in self._engine.runs:
            stamp, before = stamp_of(run.path), self._seen[run.name]
            self._seen[run.name] = stamp
            if stamp is None or stamp == run.stamp or stamp != before:  # as it was, or in writing
                continue
            refused = self._refused.get(run.name)
            if refused is None or stamp != refused.stamp or time.monotonic() >= refused.until:
                self._load(run, stamp)

    def _load(self, old: ServedRun, stamp: Stamp) -> None:
        try:
            new = load_run(old.name, old.path, self._wish)
        except InputError as error:
            pause = self._wait(old, stamp)
            logger.warning("not loaded again, next try in %g s: %s", pause, error)
            return
        except Exception:  # of any kind: the loaded run goes on answering
            pause = self._wait(old, stamp)
            logger.exception("%s: not loaded again, next try in %g s", old.name, pause)
            return
        if self._ended.is_set():
            return
        self._engine.swap(new)
        logger.warning("%s: loaded again (%s)", new.name, new.fingerprint)
        self._swapped(old, new)

    def _wait(self, run: ServedRun, stamp: Stamp) -> float:
        """Refuse these files for a while; how many seconds."""
        pause, before = AGAIN_SECONDS, self._refused.get(run.name)
        if before is not None and before.stamp == stamp:
            pause = min(2 * before.pause, MOST_SECONDS)
        self._refused[run.name] = _Refused(stamp, pause, time.monotonic() + pause)
        return pause

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.look()
