"""What a node tells at home: lines of a file beside its other files. Nothing of it is sent."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foretaste.progress import Progress, Task

FILE = "log.jsonl"
EVERY = 1.0
"""Seconds between looks at what nodes have told."""


class _Lines(logging.Handler):
    """Adds a line of JSON for each message; several processes may share the file.

    A message whose arguments are a mapping has these as fields too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        facts = record.args if isinstance(record.args, Mapping) else {}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"at": at, "level": record.levelname.lower(), "said": self.format(record), **facts}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:  # a line in one go, beside others'
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        except OSError:
            self.handleError(record)


@contextmanager
def node_log(folder: Path | None) -> Iterator[None]:
    """Meanwhile all that Foretaste logs goes into the folder's ``log.jsonl``, warnings to stderr.

    Without a folder warnings go to stderr alone.
    """
    logger = logging.getLogger("foretaste")
    before, handlers = logger.level, []
    if folder is not None:
        handlers.append(_Lines(folder / FILE))
        if not logger.hasHandlers() and logging.lastResort is not None:
            handlers.append(logging.lastResort)  # or the file would take its place
        logger.setLevel(logging.INFO)
    for one in handlers:
        logger.addHandler(one)
    try:
        yield
    finally:
        for one in handlers:
            logger.removeHandler(one)
        logger.setLevel(before)


def last_warning(folder: Path) -> str:
    """What nodes that keep their files in ``folder`` warned of last, and where it stands."""
    said = [one["said"] for one in _told(folder) if one["level"] != "info"]
    return f"{' '.join(said[-1].split())[:300]} (told in {folder / FILE})" if said else ""


def counted(folder: Path) -> dict[str, int]:
    """Sums of the counts that nodes that keep their files in ``folder`` told, by name."""
    sums: Counter[str] = Counter()
    for one in _told(folder):
        sums.update({name: value for name, value in one.items() if isinstance(value, int)})
    return dict(sums)


class Watching:
    """Progress of rounds whose nodes are other processes of this machine.

    Beside the bar it shows how many histories they have made views of, which may take them long.
    """

    def __init__(self, progress: Progress, folder: Path) -> None:
        """``folder``: where the nodes' log is."""
        self.progress, self.folder = progress, folder

    def task(self, description: str, total: int | None = None) -> Task:
        """As of ``Progress``."""
        return _WatchedTask(self.progress.task(description, total), self.folder)


class _WatchedTask:
    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.task.advance(steps, note)

    def __enter__(self) -> Self:
        self.task.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self.task.__exit__(kind, error, trace)

    def _watch(self) -> None:
        seen = 0
        while not self._over.wait(EVERY):
            if (made := counted(self.folder).get("made", 0)) > seen:
                self.task.advance(0, f"views of {made:,} histories made")
                seen = made


def _told(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / FILE
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(json.JSONDecodeError):  # a process that was killed may leave half a line
                yield json.loads(line)
