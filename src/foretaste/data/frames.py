"""Polars, pandas and Arrow frames to a Table, told by where their type comes from."""

from __future__ import annotations

import polars as pl

from foretaste.data.sources import Table, listed, plainly
from foretaste.errors import InputError

PLACE = "frame"
"""The name of a frame in messages."""


def open_frame(source: object) -> Table:
    """Open a Polars DataFrame or LazyFrame, a pandas DataFrame, or any Arrow table.

    pandas and pyarrow are imported only when the object is theirs. The index of a pandas frame
    is not a column.

    Raises:
        InputError: another type, columns named twice, or values no column can hold together.
    """
    if isinstance(source, pl.LazyFrame):
        return Table(PLACE, source)
    if isinstance(source, pl.DataFrame):
        return Table(PLACE, source.lazy())
    package = type(source).__module__.partition(".")[0]
    if package == "pandas":
        return _open_pandas(source)
    if package == "pyarrow" or hasattr(source, "__arrow_c_stream__"):
        return _open_arrow(source)
    raise InputError(
        f"{type(source).__name__} is no log. Give a path, or a Polars, pandas or Arrow frame."
    )


def _open_pandas(source: object) -> Table:
    import pandas as pd

    if not isinstance(source, pd.DataFrame):
        raise InputError(f"pandas {type(source).__name__} is no log. Give a DataFrame.")
    named = [str(name) for name in source.columns]
    _require_different(named)
    with plainly(PLACE, frame=True):
        frame = source.set_axis(named, axis="columns")
        return Table(PLACE, pl.from_pandas(frame, include_index=False).lazy())


def _open_arrow(source: object) -> Table:
    schema = getattr(source, "schema", None)
    names = getattr(schema, "names", None)
    if isinstance(names, list):
        _require_different(names)
    with plainly(PLACE, frame=True):
        # A pyarrow Dataset has no stream of its own, only a scan into a Table.
        table = source.to_table() if hasattr(source, "to_table") else source  # type: ignore
        frame = pl.from_arrow(table)  # type: ignore[arg-type]
        if not isinstance(frame, pl.DataFrame):
            raise InputError(f"Arrow {type(source).__name__} is no log. Give a table.")
        return Table(PLACE, frame.lazy())


def _require_different(names: list[str]) -> None:
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InputError(
            f"{PLACE}: columns named twice: {listed(double)} (columns: {listed(names)}). "
            "Rename one of them."
        )
