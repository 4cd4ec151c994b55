"""An LMDB environment whose map grows by itself and whose writes are committed in groups.

LMDB lets one transaction write at a time, and a commit that waits for the disk takes far longer
than the change itself. Threads that want to write therefore queue up; the one whose turn it is
makes the changes of all that wait in one transaction.

The map may only be resized while no transaction of this process is open, so every transaction
passes a gate that a resize can close. Whoever needs both waits for his turn first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from foretaste.errors import InputError, MissingExtraError
from foretaste.serving.stores.base import StoreDown, StoreError
from foretaste.serving.stores.lmdb_rewriting import Mark, Presence, rewrite

Answer = TypeVar("Answer")


class Gate:
    """Many may be inside, or one alone."""

    def __init__(self) -> None:
        """An open gate."""
        self._changed = threading.Condition()
        self._inside, self._alone = 0, False

    def __enter__(self) -> None:
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if not self._inside:
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody in, wait until those inside have left. Not to be called from inside."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True  # set first, or a stream of others would keep us out
            while self._inside:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class _Waiting(Generic[Answer]):
    """A change that waits for its turn, then what became of it."""

    __slots__ = ("answer", "change", "done", "error")

    def __init__(self, change: Callable[[Any], Answer]) -> None:
        self.change, self.done = change, False
        self.answer: Answer | None = None
        self.error: StoreError | None = None


class Environment:
    """One LMDB folder, open in this process. Several processes may have it open at once.

    The first to open it and the last to close it write its file anew if it bears a mark, so that
    nothing is left on the disk of what was removed.

    Args:
        folder: where it lies; made if it is not there.
        databases: the names of its databases, which are made.
        map_size: bytes of address space to begin with; it doubles when the data outgrow it.
        sync: wait for the disk at every commit.
        mark: stands in one of the databases when something was removed for good.

    Raises:
        InputError: the folder cannot be made or written.
        StoreError: what lies there is not an environment, or this process has it open already.
        MissingExtraError: the package ``lmdb`` is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        databases: tuple[str, ...],
        map_size: int,
        sync: bool,
        mark: Mark | None = None,
    ) -> None:
        """Open it, and clear what killed processes left in the table of readers."""
        try:
            import lmdb
        except ModuleNotFoundError:
            raise MissingExtraError("lmdb", "serve") from None
        self._lmdb = lmdb
        self.name = f"lmdb:{folder}"
        self._gate, self._turn, self._queueing = Gate(), threading.Lock(), threading.Lock()
        self._queue: list[_Waiting[Any]] = []
        self._environment: Any = None
        self._path, self._mark = Path(folder).expanduser(), mark
        _make(self._path, self.name)
        self._presence = Presence(self._path)
        self._rewrite_if_alone()
        self._presence.share()  # before it is opened: who is alone may put another file there
        try:
            self._open_here(databases, map_size, sync)
        except BaseException:
            self._presence.end()
            raise

    def _open_here(self, databases: tuple[str, ...], map_size: int, sync: bool) -> None:
        with self._told(StoreDown):
            self._environment = self._lmdb.open(
                os.fspath(self._path),
                map_size=map_size,
                max_dbs=len(databases),
                max_readers=1024,
                sync=sync,
                metasync=sync,
                mode=0o600,  # what people took is nobody else's business
            )
            self._environment.reader_check()
            self.databases = [self._environment.open_db(name.encode()) for name in databases]
            self.page = int(self._environment.stat()["psize"])

    def close(self) -> None:
        """Wait for the transactions that are under way, then close."""
        with self._turn, self._gate.alone():
            if self._environment is not None:
                self._environment.close()
                self._environment = None
                self._rewrite_if_alone()
                self._presence.end()

    def read(self, ask: Callable[[Any], Answer]) -> Answer:
        """What ``ask`` makes of a transaction on one snapshot; its buffers end with the call."""
        while True:
            with self._told(StoreDown), self._gate:
                try:
                    with self._open().begin(buffers=True) as transaction:
                        return ask(transaction)
                except self._lmdb.MapResizedError:
                    pass  # by another process
            with self._told(StoreDown), self._turn, self._gate.alone():
                self._open().set_mapsize(0)

    def write(self, change: Callable[[Any], Answer]) -> Answer:
        """Commit what ``change`` does in a transaction, together with what other threads do.

        ``change`` may be called more than once (after the map was full): it must depend on the
        transaction alone and leave no trace elsewhere.
        """
        mine = _Waiting(change)
        with self._queueing:
            self._queue.append(mine)
        with self._turn:
            if not mine.done:
                with self._queueing:
                    group, self._queue = self._queue, []
                self._settle(group)
        if mine.error is not None:
            raise type(mine.error)(str(mine.error)) from mine.error
        return mine.answer  # type: ignore[return-value]

    def _rewrite_if_alone(self) -> None:
        if self._mark is not None and self._presence.alone():
            rewrite(self._lmdb, self._path, self._mark)

    def _settle(self, group: list[_Waiting[Any]]) -> None:
        """Commit a group; if that fails, everybody in it hears so."""
        failure = StoreError(f"{self.name}: interrupted while writing")
        try:
            with self._told(StoreError, "cannot be written: "):
                answers = self._commit(group)
            for one, answer in zip(group, answers, strict=True):
                one.answer, one.done = answer, True
        except StoreError as error:
            failure = error
        finally:  # of any other exception too, or the others would wait for nobody
            for one in group:
                if not one.done:
                    one.error, one.done = failure, True

    def _commit(self, group: list[_Waiting[Any]]) -> list[Any]:
        """Make the changes of a group, enlarging the map as often as it takes. Has the turn."""
        while True:
            transaction, size = None, 0
            with self._gate:
                environment = self._open()
                try:
                    size = environment.info()["map_size"]
                    transaction = environment.begin(write=True)
                    answers = [one.change(transaction) for one in group]
                    transaction.commit()
                    return answers
                except BaseException as error:
                    failure = error
            # lmdb waits with an abort until no other thread is busy with the environment, which
            # may take for ever while many read; alone, there is nothing to wait for.
            with self._gate.alone():
                if transaction is not None:
                    transaction.abort()
                if isinstance(failure, self._lmdb.MapResizedError):
                    environment.set_mapsize(0)  # take over what another process has made it
                elif isinstance(failure, self._lmdb.MapFullError):
                    environment.reader_check()  # pages that killed readers hold are free again
                    environment.set_mapsize(2 * size)
                else:
                    raise failure

    def _open(self) -> Any:
        if self._environment is None:
            raise StoreDown(f"{self.name}: closed")
        return self._environment

    @contextmanager
    def _told(self, kind: type[StoreError], what: str = "") -> Iterator[None]:
        """Errors of LMDB as ``kind``, with the place. What cannot be written can still be read."""
        try:
            yield
        except self._lmdb.Error as error:
            raise kind(f"{self.name}: {what}{' '.join(str(error).split())}") from error


def _make(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{name}: {reason}. Name a folder that can be written") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{name}: cannot be written. Name another folder")
