"""One transaction on a SQLite file, with errors that a user understands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretaste.errors import InputError, WriteError

WAIT = 60.0
"""Seconds for another process to finish writing."""


@contextmanager
def transaction(path: Path, what: str) -> Iterator[sqlite3.Connection]:
    """A connection for one transaction; a connection of its own works in any thread.

    Args:
        path: of the file.
        what: it is, for messages, such as ``cache of vectors``.

    Raises:
        WriteError: when the disk is full or the file cannot be opened or written.
        InputError: when it is damaged or something else.
    """
    database = None
    try:
        database = sqlite3.connect(path, timeout=WAIT)
        with database:
            yield database
    except sqlite3.OperationalError as error:
        raise WriteError(
            f"{path}: the {what} cannot be used ({error}). Free some space, or name another file."
        ) from error
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{path}: damaged or not a {what} ({error}). Delete it: it will be made again."
        ) from error
    finally:
        if database is not None:
            database.close()
