"""Which rows of a log stay: ratings that count, repeats, the k-core. Pure functions on frames.

Frames have ``user_id``, ``item_id`` (text, or Categorical to save the numbering of each call) and
``timestamp``; what stays keeps its order.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from foretaste.data.sequences import offsets_of

Duplicates = Literal["first", "last", "keep"]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NONE = np.zeros(0, np.int64)
_ROUNDS = 16
"""Rounds over all rows before only those are looked at that a round may change."""


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
    depend on the order of taking (Seidman 1983, Network structure and minimum degree). The time is
    that of sorting the rows (Batagelj and Zaversnik 2003), however long a chain of users and items
    that lose each other.
    """
    users, items = (codes.to_numpy().astype(np.int64) for codes in _codes(frame))
    stays = np.ones(frame.height, dtype=bool)
    for _ in range(_ROUNDS):
        enough = _enough(users, stays, k) & _enough(items, stays, k)
        done = enough.all()
        stays[stays] = enough
        if done:
            break
    else:
        _peel((_Owners.of(users, stays), _Owners.of(items, stays)), stays, k)
    return frame if stays.all() else frame.filter(pl.Series(stays))


def _enough(owners: Ints, stays: Bools, k: int) -> Bools:
    """Whether the owner of each row that stays has k of them, ``[rows that stay]``."""
    left = owners[stays]
    return np.bincount(left)[left] >= k


class _Owners(NamedTuple):
    """The users, or the items, and their rows.

    Attributes:
        of_row: ``[rows]``, the owner of each.
        rows: ``[rows]``, those of one owner together.
        offsets: ``[owners + 1]``, where the rows of each begin.
        counts: ``[owners]``, how many rows of each are left.
    """

    of_row: Ints
    rows: Ints
    offsets: Ints
    counts: Ints

    @classmethod
    def of(cls, of_row: Ints, stays: Bools) -> _Owners:
        lengths = np.bincount(of_row)
        left = np.bincount(of_row[stays], minlength=len(lengths))
        return cls(of_row, of_row.argsort(kind="stable"), offsets_of(lengths), left)

    def rows_of(self, owners: Ints) -> Ints:
        """All rows of some owners."""
        begins, lengths = self.offsets[owners], self.offsets[owners + 1] - self.offsets[owners]
        places = np.arange(lengths.sum()) + np.repeat(begins - lengths.cumsum() + lengths, lengths)
        return self.rows[places]


def _peel(sides: tuple[_Owners, _Owners], stays: Bools, k: int) -> None:
    """Take rows out of ``stays``, in place, until every owner of one has k of them.

    Wave by wave: only rows of owners that have just become rare are looked at, each row once for
    its user and once for its item.
    """
    waves = [np.flatnonzero(side.counts < k) for side in sides]
    while len(waves[0]) or len(waves[1]):
        for this, other in ((0, 1), (1, 0)):
            rows = sides[this].rows_of(waves[this])
            rows = rows[stays[rows]]
            stays[rows] = False
            hit, lost = np.unique(sides[other].of_row[rows], return_counts=True)
            before = sides[other].counts[hit]
            sides[other].counts[hit] = before - lost
            rare = hit[(before >= k) & (before - lost < k)]
            waves[this], waves[other] = _NONE, np.concatenate([waves[other], rare])


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
