"""Writing a store of LMDB anew, so that its files hold nothing of what was removed.

LMDB never overwrites a page in place: what a transaction removed stays in pages that are free, and
in the gaps of others, until they are used again. A compacting copy holds only what is there. It can
take the place of the file while nobody has that open, which a lock on a file beside it tells.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

DATA, LOCK, COPY = "data.mdb", "open.lock", "rewriting"
ROOM = 1 << 20
"""Bytes of address space for what is written into a copy: the removal of the mark."""

logger = logging.getLogger(__name__)


class Mark(NamedTuple):
    """An entry that says that something was removed since the file was written anew.

    It is put in the transaction that removes, so that neither is there without the other.
    """

    database: bytes
    key: bytes


class Presence:
    """Tells other processes that this one has a folder open, or is about to."""

    def __init__(self, folder: Path) -> None:
        """Nothing is told yet. Where files cannot be locked, nobody is ever alone."""
        self._file: int | None = None
        with suppress(ImportError, OSError):
            import fcntl

            self._flock, self._fcntl = fcntl.flock, fcntl
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)

    def alone(self) -> bool:
        """Whether no other process has the folder open; if so they wait until ``share``."""
        if self._file is None:
            return False
        try:
            self._flock(self._file, self._fcntl.LOCK_EX | self._fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def share(self) -> None:
        """Let others in. What they do between ``alone`` and this they have done when it returns."""
        if self._file is not None:
            with suppress(OSError):
                self._flock(self._file, self._fcntl.LOCK_SH)

    def end(self) -> None:
        """The folder is open here no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def rewrite(lmdb: ModuleType, folder: Path, mark: Mark) -> None:
    """Put a compacting copy in the place of the file, if the mark is there.

    To be called only while nobody has the folder open. A crash leaves the old file or the new one.
    What cannot be copied, for lack of room say, stays as it is and is tried again the next time.
    """
    copy = folder / COPY
    try:
        shutil.rmtree(copy, ignore_errors=True)  # of a process that was killed
        if not (folder / DATA).exists() or not _copy_marked(lmdb, folder, copy, mark):
            return
        (copy / DATA).chmod(0o600)
        os.replace(copy / DATA, folder / DATA)
        _settle(folder)
    except (lmdb.Error, OSError) as error:
        reason = " ".join(str(error).split())
        logger.warning("lmdb:%s: what was forgotten is still in free pages: %s", folder, reason)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _copy_marked(lmdb: ModuleType, folder: Path, copy: Path, mark: Mark) -> bool:
    """Copy a file that has the mark, without the mark; whether it had it."""
    with lmdb.open(os.fspath(folder), readonly=True, lock=False, max_dbs=1) as old:
        try:
            database = old.open_db(mark.database, create=False)
        except (lmdb.NotFoundError, lmdb.ReadonlyError):
            return False
        with old.begin() as transaction:
            if transaction.get(mark.key, db=database) is None:
                return False
        logger.info("lmdb:%s: written anew without what was forgotten", folder)
        copy.mkdir(mode=0o700)
        old.copy(os.fspath(copy), compact=True)
    room = 2 * (copy / DATA).stat().st_size + ROOM
    with lmdb.open(os.fspath(copy), lock=False, max_dbs=1, map_size=room) as new:
        database = new.open_db(mark.database)
        with new.begin(write=True) as transaction:  # its commit waits for the disk
            transaction.delete(mark.key, db=database)
    return True


def _settle(folder: Path) -> None:
    """Wait until the folder says on the disk which file it holds."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
