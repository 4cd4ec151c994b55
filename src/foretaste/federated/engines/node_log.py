"""What a node tells at home: lines of a file beside its other files. Nothing of it is sent."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "log.jsonl"


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
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
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


def _told(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / FILE
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
