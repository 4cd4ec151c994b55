"""Accuracy of a ranking, query by query, with tied scores counted by expectation.

A model that scores half the catalog 0 has not ranked it. Breaking such ties by item number rewards
whoever numbered the items; breaking them in the target's favour rewards the tie. So a metric here
is its mean over all orders of the tied items, each as likely as the others, in closed form:
F. McSherry and M. Najork, "Computing Information Retrieval Performance Measures Efficiently in the
Presence of Tied Scores", ECIR 2008. Without ties it is the ordinary value.

Gains are binary. With R targets, of which those unknown to the model count too, and a list of k:

    hr          1 if any target is in the list
    recall      targets in the list / R
    precision   targets in the list / k
    ndcg        sum of 1/log2(1 + rank) over targets in the list / the same for a perfect list
    mrr         1 / rank of the first target, 0 if it is not in the list
    map         sum of (targets up to rank / rank) over targets in the list / min(R, k)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foretaste.errors import InputError
from foretaste.metrics.positions import TargetPositions, target_positions

__all__ = [
    "RANKING_METRICS",
    "RankingMetric",
    "TargetPositions",
    "parse_metric",
    "query_metrics",
    "target_positions",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST = 1_000_000
"""The longest list that a metric looks at."""

# What other libraries call the same thing, so that the error can name ours.
_ALIASES = {
    "hit": "hr",
    "hits": "hr",
    "hitrate": "hr",
    "success": "hr",
    "r": "recall",
    "p": "precision",
    "rr": "mrr",
    "ap": "map",
}


class RankingMetric(NamedTuple):
    """A metric's name taken apart: ``ndcg@10`` is ``RankingMetric("ndcg", 10)``."""

    kind: str
    k: int


def parse_metric(name: str) -> RankingMetric:
    """Read a name like ``"ndcg@10"``.

    Raises:
        InputError: no such metric; the message proposes the nearest one. k is above ``MOST``.
    """
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", name)
    if match and match[1] in RANKING_METRICS:
        # Python refuses to read numbers of thousands of digits.
        if len(match[2]) > len(str(MOST)) or int(match[2]) > MOST:
            raise InputError(f"{match[1]}@{match[2][:20]}: k may be at most {MOST:,}. Lower it.")
        return RankingMetric(match[1], int(match[2]))
    word, _, cutoff = name.lower().partition("@")
    word = re.sub(r"[^a-z]", "", word)
    known = [*RANKING_METRICS, *_ALIASES]
    nearest = next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.0)), "ndcg")
    k = re.sub(r"\D", "", cutoff).lstrip("0")[:7] or "10"
    raise InputError(
        f"no metric is called {name!r}: did you mean {_ALIASES.get(nearest, nearest)}@{k}? "
        f"Known: {', '.join(f'{kind}@k' for kind in RANKING_METRICS)}, k from 1."
    )


def query_metrics(
    positions: TargetPositions, target_rows: npt.ArrayLike, queries: int, names: Sequence[str]
) -> dict[str, Floats]:
    """Each named metric for each query, expected over the orders of tied items.

    A query's values do not depend, to the last bit, on the other queries given in the same call.

    Args:
        positions: where each of T targets stands; see ``target_positions``.
        target_rows: ``int [T]`` in ``0..queries-1``, in any order: the query of each target.
        queries: Q, how many queries there are.
        names: for example ``["ndcg@10", "hr@5"]``; the kinds are ``RANKING_METRICS``.

    Returns:
        ``float64 [Q]`` in 0..1 for each name, in the order of the names.

    Raises:
        InputError: a name is unknown.
        ValueError: a query has no target, for then no metric is defined; a row is out of range;
            more targets claim the same tied positions than there are.
    """
    parsed = {name: parse_metric(name) for name in names}
    rows = np.asarray(target_rows, dtype=np.int64)
    targets = _targets_per_query(positions, rows, queries)
    groups = _tie_groups(positions, rows)
    return {
        name: RANKING_METRICS[metric.kind](_Listed.cut(groups, targets, positions.items, metric.k))
        for name, metric in parsed.items()
    }


def _targets_per_query(positions: TargetPositions, rows: Ints, queries: int) -> Ints:
    """How many targets each query has, ``int64 [Q]``, every one at least 1."""
    if not rows.shape == positions.greater.shape == positions.equal.shape or rows.ndim != 1:
        raise ValueError(
            f"target_rows {list(rows.shape)} and positions {list(positions.greater.shape)}, "
            f"{list(positions.equal.shape)} must all be [T]."
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= queries):
        raise ValueError(f"target_rows must be in 0..{queries - 1}, the queries.")
    targets = np.bincount(rows, minlength=queries)
    if not targets.all():
        raise ValueError(
            f"query {int(np.argmin(targets))} has no target, so no metric is defined for it. "
            "Leave queries without targets out."
        )
    return targets


class _TieGroups(NamedTuple):
    """The runs of equal scores that hold targets, in the order of rows and then of rank."""

    row: Ints  # [G]
    start: Ints  # [G], items ranked before the group
    size: Ints  # [G], items in it
    relevant: Ints  # [G], targets among them
    before: Ints  # [G], targets of the same row in earlier groups
    leads: npt.NDArray[np.bool_]  # [G], the first group of its row

    def where(self, chosen: npt.NDArray[np.bool_]) -> _TieGroups:
        """Only the groups that a ``bool [G]`` chooses."""
        return _TieGroups._make(column[chosen] for column in self)


def _tie_groups(positions: TargetPositions, rows: Ints) -> _TieGroups:
    """Gather the targets of one row and one score. Targets never found are left out."""
    found = positions.greater < positions.items
    row, start, size = rows[found], positions.greater[found], positions.equal[found] + 1
    relevant = np.ones_like(row)
    if not (row[1:] > row[:-1]).all():
        order = np.lexsort((start, row))
        row, start, size = row[order], start[order], size[order]
        opens = np.ones(len(row), dtype=bool)
        opens[1:] = (row[1:] != row[:-1]) | (start[1:] != start[:-1])
        first = np.flatnonzero(opens)
        relevant = np.diff(first, append=len(row))
        row, start, size = row[first], start[first], size[first]
    if (relevant > size).any():
        bad = int(np.argmax(relevant > size))
        raise ValueError(
            f"query {row[bad]} has {relevant[bad]} targets in the {size[bad]} positions after "
            f"rank {start[bad]}. Give each target once."
        )
    leads = np.ones(len(row), dtype=bool)
    leads[1:] = row[1:] != row[:-1]
    earlier = np.cumsum(relevant) - relevant  # targets in earlier groups of all rows
    before = earlier - np.repeat(earlier[leads], np.diff(np.flatnonzero(leads), append=len(row)))
    return _TieGroups(row, start, size, relevant, before, leads)


class _Listed(NamedTuple):
    """The tie groups that reach into a list of k, each with the part of it that is listed."""

    groups: _TieGroups
    end: Ints  # [G], the last rank of the group that is still in the list
    targets: Ints  # [Q], targets of each query
    k: int

    @classmethod
    def cut(cls, groups: _TieGroups, targets: Ints, items: int, k: int) -> _Listed:
        """Keep the groups that begin within the first k of ``items`` ranks."""
        listed = min(k, items)
        inside = groups.start < listed
        kept = groups.where(inside)
        return cls(kept, np.minimum(kept.start + kept.size, listed), targets, k)

    @property
    def slots(self) -> Ints:
        """``[G]``, how many of the group's ranks are in the list."""
        return self.end - self.groups.start

    @property
    def share(self) -> Floats:
        """``[G]``, the chance that any one rank of the group holds a target."""
        return self.groups.relevant / self.groups.size

    def per_query(self, values: Floats) -> Floats:
        """Sum ``[G]`` over each query's groups: ``[Q]``, one after the other, best group first."""
        summed = np.bincount(self.groups.row, weights=values, minlength=len(self.targets))
        return summed.astype(np.float64, copy=False)

    def per_query_lead(self, values: Floats) -> Floats:
        """Each query's value for its best group: ``[Q]``, 0 where none is listed."""
        leads = self.groups.leads
        result = np.zeros(len(self.targets))
        result[self.groups.row[leads]] = values[leads]
        return result


def _logarithmic(deepest: int) -> Floats:
    """The discount of NDCG for ranks 1 to ``deepest``."""
    return 1.0 / np.log2(np.arange(2, deepest + 2))


def _reciprocal(deepest: int) -> Floats:
    """One over the rank for ranks 1 to ``deepest``."""
    return 1.0 / np.arange(1, deepest + 1)


def _running_sum(discount: Floats) -> Floats:
    """``[n + 1]``: entry r is the sum of the discounts of ranks 1..r."""
    return np.concatenate(([0.0], np.cumsum(discount)))


def _summed_discounts(discount: Floats, listed: _Listed) -> Floats:
    """The discounts of the listed ranks of each group, ``[G]``.

    A difference of running sums, except for a single rank, whose discount is at hand unrounded.
    """
    running = _running_sum(discount)
    runs = running[listed.end] - running[listed.groups.start]
    return np.where(listed.slots == 1, discount[listed.end - 1], runs)


def _expected_hits(listed: _Listed) -> Floats:
    """Expected targets in the list, ``[Q]``."""
    return listed.per_query(listed.groups.relevant * listed.slots / listed.groups.size)


def _recall(listed: _Listed) -> Floats:
    return _expected_hits(listed) / listed.targets


def _precision(listed: _Listed) -> Floats:
    return _expected_hits(listed) / listed.k


def _ndcg(listed: _Listed) -> Floats:
    """Each rank of a group carries its discount times the chance of a target."""
    perfect = np.minimum(listed.targets, listed.k)  # [Q], targets in a perfect list
    deepest = max(int(listed.end.max(initial=0)), int(perfect.max(initial=0)))
    discount = _logarithmic(deepest)
    gain = listed.per_query(listed.share * _summed_discounts(discount, listed))
    return _within_one(gain / _running_sum(discount)[perfect])


def _average_precision(listed: _Listed) -> Floats:
    """Sum over listed ranks p of P(p is a target) * E[targets up to p | p is one] / p.

    In a group of n items with r targets, starting after s ranks and c targets, that expectation is
    1 + c + (p - s - 1) (r - 1) / (n - 1): the other r - 1 targets are spread evenly over the other
    n - 1 ranks. It is linear in p, so the sum over p needs only harmonic numbers.
    """
    groups = listed.groups
    reciprocals = _summed_discounts(_reciprocal(int(listed.end.max(initial=0))), listed)
    density = (groups.relevant - 1) / np.maximum(groups.size - 1, 1)  # 0 where the group is one
    constant = 1 + groups.before - (groups.start + 1) * density
    summed = constant * reciprocals + density * listed.slots
    total = listed.per_query(listed.share * summed)
    return _within_one(total / np.minimum(listed.targets, listed.k))


def _hit_rate(listed: _Listed) -> Floats:
    """Only the best group matters: it is all in the list, or it is the last one in the list.

    With m slots for n items of which r are targets, none is listed with the chance
    C(n - r, m) / C(n, m), a product of min(r, m) factors because r and m may change places.
    """
    groups, slots = listed.groups, listed.slots
    fewer, more = np.minimum(groups.relevant, slots), np.maximum(groups.relevant, slots)
    missed = (groups.size - more) / groups.size
    for step in range(1, int(fewer[groups.leads].max(initial=0))):
        left = np.maximum(groups.size - more - step, 0) / np.maximum(groups.size - step, 1)
        missed = np.where(step < fewer, missed * left, missed)
    # One factor is the whole answer; written directly it equals recall to the last bit.
    hit = np.where(fewer == 1, more / groups.size, 1.0 - missed)
    return listed.per_query_lead(hit)


def _reciprocal_rank(listed: _Listed) -> Floats:
    """Sum over listed ranks of P(the first target is there) / rank.

    Again only the best group matters. A single target is on each of its ranks alike; with several,
    the chance that the first is at step j falls as P(j + 1) = P(j) (n - r - j + 1) / (n - j).
    """
    groups = listed.groups
    reciprocals = _summed_discounts(_reciprocal(int(listed.end.max(initial=0))), listed)
    value = reciprocals / groups.size
    several = np.flatnonzero(groups.leads & (groups.relevant > 1))
    n, r, s = groups.size[several], groups.relevant[several], groups.start[several]
    steps = np.minimum(listed.slots[several], n - r + 1)  # a later first target is impossible
    chance = r / n
    expected = np.zeros(len(several))
    for j in range(1, int(steps.max(initial=0)) + 1):
        expected += np.where(j <= steps, chance / (s + j), 0.0)
        chance = chance * np.maximum(n - r - j + 1, 0) / np.maximum(n - j, 1)
    value[several] = expected
    return listed.per_query_lead(_within_one(value))


def _within_one(values: Floats) -> Floats:
    """Take off the last bit by which a sum of fractions may pass 1."""
    return np.minimum(values, 1.0)


RANKING_METRICS: dict[str, Callable[[_Listed], Floats]] = {
    "hr": _hit_rate,
    "recall": _recall,
    "precision": _precision,
    "ndcg": _ndcg,
    "mrr": _reciprocal_rank,
    "map": _average_precision,
}
"""The kinds of ranking metric; each takes a cutoff, as in ``ndcg@10``."""
