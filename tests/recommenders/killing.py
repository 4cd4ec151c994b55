"""Training that ends as if its process had been killed."""

from __future__ import annotations

from types import TracebackType


class Killed(Exception):
    """Raised by a progress bar, as if the process had been ended there."""


class KilledAfter:
    """A progress that raises after so many finished epochs (of this process)."""

    def __init__(self, epochs: int):
        self.left = epochs

    def task(self, description: str, total: int | None = None) -> KilledAfter:
        self.training = description == "training"
        return self

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.training and note:
            self.left -= 1
            if self.left == 0:
                raise Killed

    def __enter__(self) -> KilledAfter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None
