"""Why a generator lists an item: its codes in words, its thoughts, and the events it rests on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from foretaste.codes.table import Codes
from foretaste.data.catalog import Catalog

EVENTS = 20
"""The last events of a history that are left out in turn."""
WORDS = 2
"""Categories or titles that stand for a group of items."""
COMMON = 0.5
"""Share of a group that has a category before the group is called by it."""


class Influence(NamedTuple):
    """An event, and how much less likely the item becomes without it (natural logarithm)."""

    item_id: str
    title: str
    fall: float


class WrittenCode(NamedTuple):
    """A code of an item.

    Attributes:
        level: which, from 0.
        code: its number.
        items: items of the catalog that share it, and the codes before it where order counts.
        words: what these items are.
        thought: what the thought before it pointed at, in words; None without thoughts.
        certainty: what the thought gives to that, 0 to 1; None without thoughts.
    """

    level: int
    code: int
    items: int
    words: str
    thought: str | None = None
    certainty: float | None = None


class Reason(NamedTuple):
    """Why an item is listed.

    Attributes:
        item_id: the item.
        title: its title.
        codes: from the first level to the last.
        events: the last events, the one that counts most first. It is the effect of one event at a
            time: two that say the same can both seem unimportant.
    """

    item_id: str
    title: str
    codes: tuple[WrittenCode, ...]
    events: tuple[Influence, ...]


class Describer:
    """Says in words what groups of items are: common categories, or else their popular titles."""

    def __init__(self, catalog: Catalog, codes: Codes, popularity: np.ndarray) -> None:
        """Of a model."""
        self.catalog, self.codes, self.popularity = catalog, codes, popularity
        self._shares = self._category_shares(np.arange(len(codes)))

    def code(self, item: int, level: int) -> WrittenCode:
        """A code of an item, as a group of items."""
        table = self.codes.table
        first = 0 if self.codes.ordered else level
        same = (table[:, first : level + 1] == table[item, first : level + 1]).all(1)
        members = np.flatnonzero(same)
        return WrittenCode(level, int(table[item, level]), len(members), self.words(members))

    def words(self, members: np.ndarray) -> str:
        """What items int ``[n]`` are.

        The categories that most of them have and that are commoner than elsewhere; where there are
        none, the most popular titles, or ids.
        """
        if not len(members):
            return "nothing"
        shares = self._category_shares(members)
        lifts = {
            name: share / self._shares[name]
            for name, share in shares.items()
            if share >= COMMON and share > self._shares[name]
        }
        if lifts:
            return ", ".join(sorted(lifts, key=lambda name: (-lifts[name], name))[:WORDS])
        order = members[np.argsort(-self.popularity[members], kind="stable")]
        titles = [self.catalog.titles[item] for item in order[:WORDS]]
        more = len(members) - len(titles)
        return " / ".join(titles) + (f" and {more:,} more" if more else "")

    def _category_shares(self, members: np.ndarray) -> dict[str, float]:
        column = self.catalog.frame["categories"].gather(members)
        names = column.list.unique().explode().drop_nulls()  # an item may have one twice
        counts = names.value_counts() if len(names) else pl.DataFrame()
        if counts.is_empty():
            return {}
        return {name: count / len(members) for name, count in counts.iter_rows()}
