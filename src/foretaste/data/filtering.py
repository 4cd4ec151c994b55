"""Which rows of a log stay: ratings that count, repeats, the k-core. Pure functions on frames.

Frames have ``user_id``, ``item_id`` (text, or Categorical to save the numbering of each call) and
``timestamp``; what stays keeps its order.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

Duplicates = Literal["first", "last", "keep"]


def positives(frame: pl.DataFrame, min_rating: float) -> pl.DataFrame:
    """Rows rated ``min_rating`` or higher. A row without a rating does not stay."""
    return frame.filter(pl.col("rating") >= min_rating)


def drop_duplicates(frame: pl.DataFrame, keep: Duplicates = "first") -> pl.DataFrame:
    """One row per user and item: the earliest (``first``) or latest (``last``) by time.

    ``keep`` drops only rows that repeat user, item and time. Among equal times the order of the
    rows decides.
    """
    pairs = _codes(frame).select(pair=pl.col("user").cast(pl.UInt64) * 2**32 + pl.col("item"))
    repeated = (
        pairs.with_columns(frame["timestamp"])
        .with_row_index("row")
        .filter(pl.col("pair").is_duplicated())
    )
    if repeated.is_empty():
        return frame
    key = ["pair", "timestamp"] if keep == "keep" else ["pair"]
    one = pl.struct(key) if len(key) > 1 else pl.col("pair")
    kept = one.is_last_distinct() if keep == "last" else one.is_first_distinct()
    dropped = repeated.sort("timestamp", "row").filter(~kept).get_column("row")
    stays = pl.Series([True]).new_from_index(0, frame.height).scatter(dropped, False)
    return frame.filter(stays)


def k_core(frame: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest part of the log in which every user and every item has at least k rows.

    Rows of rare users and items are taken out until none is left to take; the result does not
    depend on the order of taking (Seidman 1983, Network structure and minimum degree).
    """
    rows = _codes(frame).with_row_index("row")
    before = -1
    while rows.height != before:
        before = rows.height
        rows = rows.filter(pl.len().over("user") >= k, pl.len().over("item") >= k)
    return frame if rows.height == frame.height else frame[rows.get_column("row")]


def numbered(ids: pl.Series) -> pl.Series:
    """Ids as a Categorical: comparing, grouping and moving them is several times faster than text.

    A random category space keeps them from growing a table shared by the process.
    """
    if isinstance(ids.dtype, pl.Categorical):
        return ids
    return ids.cast(pl.String).cast(pl.Categorical(pl.Categories.random()))


def _codes(frame: pl.DataFrame) -> pl.DataFrame:
    codes = {role: numbered(frame[f"{role}_id"]).to_physical() for role in ("user", "item")}
    return pl.DataFrame(codes)
