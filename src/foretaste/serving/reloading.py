"""A newer run takes the place of the loaded one while requests go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from foretaste.errors import InputError
from foretaste.serving.engine import Engine
from foretaste.serving.indexing import IndexWish
from foretaste.serving.models import ServedRun, Stamp, load_run, stamp_of

logger = logging.getLogger(__name__)


class Watcher:
    """Looks at the folders of the loaded runs, and loads those that have changed.

    The new model is loaded beside the old one and answers once before it takes over. A folder
    that is being written is left alone until two looks in a row find the same files and these
    belong together; one that cannot be read is tried again when its files change once more.
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
        self._refused: dict[str, Stamp] = {}
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
            changed = stamp not in (None, run.stamp, self._refused.get(run.name))
            if changed and stamp == before:  # nothing was written since the last look
                self._load(run, stamp)

    def _load(self, old: ServedRun, stamp: Stamp | None) -> None:
        try:
            new = load_run(old.name, old.path, self._wish)
        except InputError as error:
            logger.warning("not loaded again: %s", error)
            if stamp is not None:
                self._refused[old.name] = stamp
            return
        if self._ended.is_set():
            return
        self._engine.swap(new)
        logger.warning("%s: loaded again (%s)", new.name, new.fingerprint)
        self._swapped(old, new)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            # A folder that cannot be read today may be tomorrow; the loaded runs go on answering.
            with suppress(OSError):
                self.look()
