"""Tables as the template lays them out."""

from __future__ import annotations

from typing import NamedTuple


class Cell(NamedTuple):
    """A figure, a smaller note below it, and whether it is the best of its column."""

    text: str
    note: str = ""
    strong: bool = False


class Row(NamedTuple):
    """A line of a table; ``series`` is the colour of its run, None for a line of another kind."""

    label: str
    cells: tuple[Cell, ...]
    series: int | None = None


class Table(NamedTuple):
    """``head`` names the first column and then those of the cells."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str


class Fact(NamedTuple):
    """A term and what it comes to."""

    term: str
    text: str
