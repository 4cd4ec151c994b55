"""What a log looks like once it has been read: one Polars frame and what is known beside it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class ColumnGuess:
    """Which column of the source plays which role, and why we think so.

    ``user``, ``item`` are column names of the source. ``time`` is None when the log has only an
    order (then the position within a user is the time); ``rating`` is None when there is none.
    ``guessed`` lists the roles that no option fixed, so the guess can be shown and overruled.
    """

    user: str
    item: str
    time: str | None
    rating: str | None
    guessed: tuple[str, ...] = ()

    def __str__(self) -> str:
        roles = {"user": self.user, "item": self.item, "time": self.time, "rating": self.rating}
        shown = ", ".join(
            f"{role}={name}{' (guessed)' if role in self.guessed else ''}"
            for role, name in roles.items()
            if name is not None
        )
        return shown + ("" if self.time else ", time=order of the rows")


@dataclass(frozen=True)
class Interactions:
    """A log in the user's own world: ids are text, nothing is numbered yet.

    Attributes:
        frame: ``user_id`` String, ``item_id`` String, ``timestamp`` Int64 in milliseconds since
            1970 (or the position within the user when ``has_time`` is False), then, where known,
            ``rating`` Float64 and context columns. Rows keep the order of the source; no nulls in
            the first three columns.
        items: one row per item known beside the log, or None: ``item_id`` String, and where known
            ``title`` String, ``categories`` List(String), ``text`` String.
        source: what was read, for messages.
        columns: which source column played which role.
        has_time: False when the source gave only an order of events.
        notes: one line for each thing that was changed or left out while reading (rows below a
            rating threshold, duplicates, k-core), with counts.
        k_core: the k of a k-core that was taken of the whole log, 0 for none.
    """

    frame: pl.DataFrame
    items: pl.DataFrame | None
    source: str
    columns: ColumnGuess
    has_time: bool = True
    notes: tuple[str, ...] = ()
    k_core: int = 0
