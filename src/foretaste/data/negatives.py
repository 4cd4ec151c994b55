"""Items that a user never met, drawn at random to stand for what was shown and not chosen."""

from __future__ import annotations

from typing import Literal

import numpy as np

from foretaste.data.sequences import Sequences

NegativeSampling = Literal["uniform", "popularity"]

ROUNDS = 20
"""Draws after which what still clashes is chosen among what is left, without luck."""


class Negatives:
    """Draws items that are not in a row of ``met``, with replacement."""

    def __init__(
        self, met: Sequences, counts: np.ndarray, sampling: NegativeSampling = "uniform"
    ) -> None:
        """Nothing is drawn yet.

        Args:
            met: all items each user ever met; numbers outside ``counts`` are of no matter.
            counts: how often each item was chosen, int ``[items]``.
            sampling: ``uniform`` over the items with a count, or ``popularity``, by their counts.
        """
        weights = (counts > 0).astype(np.float64) if sampling == "uniform" else counts
        self.items = len(counts)
        self.weights = weights / max(weights.sum(), 1)
        self.cumulative = np.cumsum(self.weights)
        inside = met.where((met.items >= 0) & (met.items < self.items))
        self.pairs = np.unique(inside.rows * self.items + inside.items)
        left = np.flatnonzero(self.weights)
        of_weight = self.weights[self.pairs % max(self.items, 1)] > 0
        met_of_weight = np.bincount(self.pairs[of_weight] // self.items, minlength=len(met))
        self.exhausted = met_of_weight >= len(left)  # bool [users]

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An item for each of ``rows`` int ``[n]``: int32 ``[n]``, -1 where nothing is left."""
        drawn = np.full(len(rows), -1, np.int32)
        missing = np.flatnonzero(~self.exhausted[rows])
        for _ in range(ROUNDS):
            if not len(missing):
                return drawn
            items = np.searchsorted(self.cumulative, rng.random(len(missing)), side="right")
            items = np.minimum(items, self.items - 1)  # the last sum may fall short of 1
            good = ~self._known(rows[missing], items) & (self.weights[items] > 0)
            drawn[missing[good]] = items[good]
            missing = missing[~good]
        for place in missing:
            drawn[place] = self._among_the_rest(int(rows[place]), rng)
        return drawn

    def _known(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        wanted = rows.astype(np.int64) * self.items + items
        place = np.minimum(np.searchsorted(self.pairs, wanted), max(len(self.pairs) - 1, 0))
        return self.pairs[place] == wanted if len(self.pairs) else np.zeros(len(rows), bool)

    def _among_the_rest(self, row: int, rng: np.random.Generator) -> int:
        first, end = np.searchsorted(self.pairs, [row * self.items, (row + 1) * self.items])
        weights = self.weights.copy()
        weights[self.pairs[first:end] % self.items] = 0
        return int(rng.choice(self.items, p=weights / weights.sum()))
