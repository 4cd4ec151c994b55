"""What a person sees: progress on stderr, results on stdout, JSON alone when asked for."""

from __future__ import annotations

import json
import sys
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from foretaste.progress import Progress, Silent, Task

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.table import Table


# How Python treats what an encoding cannot write, unless PYTHONIOENCODING says otherwise.
_STRICT = ("strict", "surrogateescape")


class _BarTask:
    def __init__(self, description: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as Bars

        self.bars: Bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=Console(stderr=True),
        )
        self.number = self.bars.add_task(description, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.bars.update(self.number, advance=steps)
        if note:
            self.bars.update(self.number, note=note)

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()


class TerminalProgress:
    """Shows a bar for every task, on stderr."""

    def task(self, description: str, total: int | None = None) -> Task:
        """A bar of ``total`` steps."""
        return _BarTask(description, total)


def progress(quiet: bool, as_json: bool) -> Progress:
    """Bars, or nothing with ``--quiet`` and ``--json`` and in a helper process."""
    from foretaste.experiments.machine import main_process

    return Silent() if quiet or as_json or not main_process() else TerminalProgress()


def print_json(value: Any) -> None:
    """One JSON object on stdout and nothing else; what stdout has no sign for is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    sys.stdout.write(text + "\n")


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout; every column but the first is aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    if title:
        say(title)
    table: Table = Table(header_style="bold")
    for index, column in enumerate(columns):
        # What is too long goes on below: two names cut alike would be one.
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _escape_what_has_no_sign()
    # Titles are data: ":heart:" in one is no picture.
    Console(emoji=False).print(table, markup=False)


def say(text: str) -> None:
    """A line on stdout."""
    _escape_what_has_no_sign()
    sys.stdout.write(text + "\n")


def _escape_what_has_no_sign() -> None:
    """A title that the encoding of stdout cannot write is written as ``\\xe9``, not an error."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in _STRICT:
        sys.stdout.reconfigure(errors="backslashreplace")


def interval(figure: dict[str, float | None]) -> str:
    """``.1234 (.1190 to .1280)``."""
    if figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.4f}"
    return f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
