"""How long work tells what it is doing, without knowing who listens."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class Task(Protocol):
    """A running piece of work, used as a context manager."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """``steps`` more are done; ``note`` is a short figure to show beside the bar."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Progress(Protocol):
    """Something that shows tasks: a terminal, a log, nothing."""

    def task(self, description: str, total: int | None = None) -> Task:
        """Begin a task of ``total`` steps (None when unknown)."""
        ...


class _SilentTask:
    def advance(self, steps: int = 1, note: str = "") -> None:
        del steps, note

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class Silent:
    """Shows nothing: the default of the library, and of ``--quiet`` and ``--json``."""

    def task(self, description: str, total: int | None = None) -> Task:
        """A task that is not shown."""
        del description, total
        return _SilentTask()
