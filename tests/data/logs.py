"""Logs for tests, from plain tuples."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from foretaste.data.dataset import Dataset
from foretaste.data.interactions import ColumnGuess, Interactions

Event = tuple[str, str, int]
"""User, item, time."""


def interactions(events: list[Event], *, has_time: bool = True) -> Interactions:
    """The log that these events make, in this order."""
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    frame = pl.DataFrame(events, schema=schema, orient="row")
    columns = ColumnGuess("user_id", "item_id", "timestamp" if has_time else None, None)
    return Interactions(frame, None, "log", columns, has_time)


def dataset(events: list[Event], *, has_time: bool = True, k_core: int = 0) -> Dataset:
    """The data set that these events make."""
    return Dataset.from_interactions(
        replace(interactions(events, has_time=has_time), k_core=k_core)
    )
