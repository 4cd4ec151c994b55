"""A newer run takes the place of the loaded one while requests go on."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from foretaste.errors import InputError
from foretaste.serving.engine import Engine
from foretaste.serving.indexing import IndexWish
from foretaste.serving.models import ServedRun, Stamp, load_run, stamp_of

AGAIN_SECONDS = 30.0
"""Until a run is tried again that could not be loaded though its files are whole."""

logger = logging.getLogger(__name__)


class Watcher:
    """Looks at the folders of the loaded runs, and loads those that have changed.

    The new model is loaded beside the old one and answers once before it takes over. A folder
    that is being written is left alone until two looks in a row find the same files and these
    belong together; one that cannot be read is tried again when its files change once more. What
    else fails may pass, as a lack of memory does: it is tried again after a while.
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
        self._refused: dict[str, tuple[Stamp, float]] = {}  # which files, and until when
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
            refused, until = self._refused.get(run.name, (None, 0.0))
            if stamp != refused or time.monotonic() >= until:
                self._load(run, stamp)

    def _load(self, old: ServedRun, stamp: Stamp) -> None:
        try:
            new = load_run(old.name, old.path, self._wish)
        except InputError as error:
            logger.warning("not loaded again: %s", error)
            self._refused[old.name] = stamp, math.inf
            return
        except Exception:  # of any kind: the loaded run goes on answering
            logger.exception("%s: not loaded again; next try in %g s", old.name, AGAIN_SECONDS)
            self._refused[old.name] = stamp, time.monotonic() + AGAIN_SECONDS
            return
        if self._ended.is_set():
            return
        self._engine.swap(new)
        logger.warning("%s: loaded again (%s)", new.name, new.fingerprint)
        self._swapped(old, new)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.look()
