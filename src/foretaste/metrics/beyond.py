"""What a set of lists does beyond being right: how new, how varied, how evenly spread.

Lists arrive in blocks and are forgotten; what is kept is one count per item. Two kinds of number
come out. Some belong to a list and have a value per query (novelty, intra-list diversity). Others
exist only for all lists together (coverage, Gini, popularity lift, share of the head).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from foretaste.metrics.slices import head_items

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# 64-bit words of category bits compared at a time: 8 MB, whatever the number of queries.
_WORDS_AT_A_TIME = 1_000_000


class ListMetrics:
    """Accumulates recommendation lists of one length, block by block.

    Per query, from ``update``:

    - ``novelty@k``: mean self-information of the listed items in bits, ``-log2 p(item)`` with
      ``p = (count + 1) / (total + N)`` from training (Zhou et al., PNAS 2010; the added 1 is ours,
      so that an item never chosen is surprising, not infinitely so).
    - ``ild@k``: intra-list diversity, the mean Jaccard distance between the category sets of two
      listed items (Ziegler et al., WWW 2005, as a distance). Items without a category take no
      part: nothing is known of their likeness. Absent when the catalog has no categories.

    Over all lists, from ``summary``:

    - ``coverage@k``: share of the catalog that is in at least one list.
    - ``gini@k``: inequality of how often each item of the *whole* catalog is listed; 0 when all
      are listed equally often, ``(N - 1) / N`` when one item has every place.
    - ``popularity_lift@k``: mean training count of a listed item over the mean training count of
      the item of a training interaction, ``sum(c^2) / sum(c)``. Above 1, lists are more popular
      than what people choose by themselves. After the group average popularity of Abdollahpouri
      et al. (RMSE workshop, 2019), as a ratio and with all interactions as the profile, so that it
      does not depend on which users are asked.
    - ``head_share@k``: share of the listed places that hold items of the head (``head_items``).

    Memory: a few numbers per item, and ``distinct category sets x categories / 8`` bytes.

    Args:
        catalog_size: N, at least 1.
        popularity: ``int [N]``, interactions of each item in training.
        categories: the categories of each item (N lists, some may be empty), or None.
        k: the length of every list.

    Raises:
        ValueError: the sizes do not fit, a count is negative, or k is below 1.
    """

    def __init__(
        self,
        catalog_size: int,
        popularity: npt.ArrayLike,
        categories: Sequence[Sequence[str]] | None,
        k: int,
    ) -> None:
        """Begin with no lists; the arguments are described on the class."""
        counts = np.asarray(popularity, dtype=np.int64)
        if catalog_size < 1 or k < 1:
            raise ValueError(f"catalog_size and k must be at least 1, got {catalog_size} and {k}.")
        if counts.shape != (catalog_size,) or (counts < 0).any():
            raise ValueError(
                f"popularity must be {catalog_size} counts, none negative, got shape "
                f"{list(counts.shape)}."
            )
        if categories is not None and len(categories) != catalog_size:
            raise ValueError(f"categories has {len(categories)} lists for {catalog_size} items.")
        self.k = k
        self._popularity = counts
        self._surprise = -np.log2((counts + 1) / (counts.sum() + catalog_size))  # [N]
        self._listed = np.zeros(catalog_size, dtype=np.int64)  # [N], times each item was listed
        known = categories is not None and any(len(of_item) for of_item in categories)
        self._categories = _CategorySets(categories) if categories and known else None

    def update(self, lists: npt.ArrayLike) -> dict[str, Floats]:
        """Add a block of lists and return the metrics that each list has by itself.

        Args:
            lists: ``int [Q, k]`` item numbers; ``-1`` fills the places of a list that is short.

        Returns:
            ``novelty@k`` and, with categories, ``ild@k``, each ``float64 [Q]``. NaN where the
            value does not exist: novelty of an empty list, diversity of a list with fewer than two
            items that have categories. The values do not depend on how queries are blocked.

        Raises:
            ValueError: lists of another length, or an item outside the catalog.
        """
        # Contiguous, because the order in which a row is summed follows its layout in memory.
        block = np.ascontiguousarray(lists, dtype=np.int64)  # [Q, k]
        catalog = len(self._listed)
        if block.ndim != 2 or block.shape[1] != self.k:
            raise ValueError(f"lists must be [queries, {self.k}], got {list(block.shape)}.")
        if block.size and (block.min() < -1 or block.max() >= catalog):
            raise ValueError(f"lists must hold items 0..{catalog - 1}, or -1 for an empty place.")
        filled = block >= 0  # [Q, k]
        np.add.at(self._listed, block[filled], 1)

        surprise = np.where(filled, self._surprise[block], 0.0)  # [Q, k]
        values = {f"novelty@{self.k}": _ratio(surprise.sum(axis=1), filled.sum(axis=1))}
        if self._categories is not None:
            values[f"ild@{self.k}"] = self._categories.mean_distance(block)
        return values

    @property
    def places(self) -> int:
        """How many items have been listed, over all lists."""
        return int(self._listed.sum())

    def summary(self) -> dict[str, float]:
        """The metrics of all lists together.

        Returns:
            ``coverage@k``, ``gini@k``, ``popularity_lift@k`` (NaN when training had no
            interactions) and ``head_share@k``.

        Raises:
            ValueError: no item has been listed yet.
        """
        places = self.places
        if places == 0:
            raise ValueError("no item has been listed yet: call update with lists first.")
        chosen = self._popularity.astype(np.float64)
        listed_popularity = float(self._listed @ chosen) / places
        chosen_popularity = float(chosen @ chosen) / chosen.sum() if chosen.any() else np.nan
        return {
            f"coverage@{self.k}": float(np.count_nonzero(self._listed) / len(self._listed)),
            f"gini@{self.k}": gini(self._listed),
            f"popularity_lift@{self.k}": float(listed_popularity / chosen_popularity),
            f"head_share@{self.k}": float(self._listed[head_items(chosen)].sum() / places),
        }


def gini(counts: npt.ArrayLike) -> float:
    """Gini coefficient of non-negative counts, zeros included.

    ``sum((2 i - n - 1) x_i) / (n sum(x))`` with x in ascending order and i from 1: 0 when all are
    equal, ``(n - 1) / n`` when one has everything.

    Args:
        counts: ``[n]``, how often each item was listed.

    Raises:
        ValueError: there is nothing to share out, or a count is negative.
    """
    ascending = np.sort(np.asarray(counts, dtype=np.float64))
    total = ascending.sum()
    if not total > 0 or ascending[0] < 0:
        raise ValueError("gini needs counts that are not negative and not all zero.")
    weights = 2.0 * np.arange(1, len(ascending) + 1) - len(ascending) - 1
    return float(weights @ ascending / (len(ascending) * total))


def _ratio(above: npt.NDArray, below: npt.NDArray) -> Floats:
    """``above / below``, NaN where ``below`` is 0."""
    result = np.full(len(above), np.nan)
    return np.divide(above, below, out=result, where=below > 0)


class _CategorySets:
    """The category set of each item as bits, held once for all items that share it."""

    def __init__(self, categories: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        sets: dict[frozenset[int], int] = {frozenset(): 0}  # set 0: no category, or no item
        set_of_item = np.zeros(len(categories) + 1, dtype=np.int64)  # the last one answers for -1
        for item, names in enumerate(categories):
            members = frozenset(numbers.setdefault(name, len(numbers)) for name in names)
            set_of_item[item] = sets.setdefault(members, len(sets))
        bits = np.zeros((len(sets), -(-len(numbers) // 64)), dtype=np.uint64)  # [S, W]
        for members, row in sets.items():
            for number in members:
                bits[row, number // 64] |= np.uint64(1 << (number % 64))
        self._set_of_item = set_of_item
        self._bits = bits
        self._sizes = np.array([len(members) for members in sets], dtype=np.int64)  # [S]

    def mean_distance(self, block: Ints) -> Floats:
        """Mean Jaccard distance over the pairs of each list ``[Q, k]``: ``[Q]``, or NaN."""
        rows = max(1, _WORDS_AT_A_TIME // (block.shape[1] * self._bits.shape[1]))
        parts = [
            self._mean_distance(block[start : start + rows]) for start in range(0, len(block), rows)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _mean_distance(self, block: Ints) -> Floats:
        sets = self._set_of_item[block]  # [b, k]
        bits, sizes = self._bits[sets], self._sizes[sets]  # [b, k, W], [b, k]
        distance = np.zeros(len(block))
        pairs = np.zeros(len(block), dtype=np.int64)
        # Pairs whose places are 1 apart, then 2, and so on: the whole [b, k, k, W] of pairs at once
        # would not fit in a cache, nor for long lists in memory.
        for apart in range(1, block.shape[1]):
            one, other = sizes[:, :-apart], sizes[:, apart:]  # [b, k - apart]
            both = np.bitwise_count(bits[:, :-apart] & bits[:, apart:]).sum(axis=2, dtype=np.int64)
            either = one + other - both
            known = (one > 0) & (other > 0)
            unlike = np.where(known, 1.0 - both / np.maximum(either, 1), 0.0)
            distance += unlike.sum(axis=1)
            pairs += known.sum(axis=1)
        return _ratio(distance, pairs)
