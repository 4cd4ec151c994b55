"""Asking a recommender the queries of a split: per-query figures, streamed in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from foretaste.data.split import Queries
from foretaste.metrics import (
    ListMetrics,
    TargetPositions,
    parse_metric,
    query_metrics,
    target_positions,
)
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.base import Exclude, Recommender

if TYPE_CHECKING:
    from torch import Tensor


class Answers(NamedTuple):
    """What a recommender's rankings of some queries came to.

    Attributes:
        metrics: by name, float64 ``[queries]``, in the order of the queries.
        lists: figures of all lists together (coverage, Gini, popularity lift, head share).
        positions: of each target, in the order of ``queries.targets.items``.
    """

    metrics: dict[str, np.ndarray]
    lists: dict[str, float]
    positions: TargetPositions


def rank_queries(
    recommender: Recommender,
    queries: Queries,
    metrics: Sequence[str],
    *,
    exclude: Exclude = "seen",
    list_length: int | None = None,
    block: int | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Rank the whole catalog for every query.

    Memory holds one block of scores and a few numbers per query, never queries x items. The
    figures of a query do not depend on the block it was in.

    Args:
        recommender: fitted on the split that the queries come from.
        queries: what is asked.
        metrics: names such as ``ndcg@10``.
        exclude: ``seen`` leaves the items of a history out of its ranking, ``none`` nothing.
        list_length: also make lists of this length, for novelty, diversity, coverage and Gini.
        block: queries at a time.
        progress: who is told.
    """
    depth = max([parse_metric(name).k for name in metrics] + [list_length or 1])
    catalog = recommender.catalog
    assert catalog is not None
    figures: dict[str, np.ndarray] = {}
    greater = np.empty(queries.targets.events, np.int64)
    equal = np.empty_like(greater)
    lists = None
    if list_length is not None:
        lists = ListMetrics(len(catalog), recommender.popularity, catalog.categories, list_length)
    with (progress or Silent()).task("ranking", len(queries)) as task:
        blocks = recommender.scores(queries.histories, exclude=exclude, depth=depth, block=block)
        for rows, scores in blocks:
            targets = queries.targets.take(rows)
            positions = target_positions(scores, targets.rows, targets.items)
            found = query_metrics(positions, targets.rows, len(rows), metrics)
            if lists is not None and list_length is not None:
                found |= lists.update(_top(scores, list_length))
            for name, values in found.items():
                figures.setdefault(name, np.empty(len(queries)))[rows] = values
            places = _events(queries, rows)
            greater[places], equal[places] = positions.greater, positions.equal
            task.advance(len(rows))
    listed = lists is not None and lists.places > 0  # every item may have been seen
    summary = lists.summary() if lists is not None and listed else {}
    return Answers(figures, summary, TargetPositions(greater, equal, len(catalog)))


def _top(scores: Tensor, length: int) -> np.ndarray:
    """The items of the best scores, int64 ``[B, length]``; -1 where there are no more."""
    from foretaste.nn.listing import best_scores

    top = best_scores(scores, length)
    items = top.indices.masked_fill(top.values.isneginf(), -1).cpu().numpy()
    return np.pad(items, ((0, 0), (0, length - items.shape[1])), constant_values=-1)


def _events(queries: Queries, rows: np.ndarray) -> np.ndarray:
    """Where the targets of these rows lie in ``queries.targets.items``."""
    starts, lengths = queries.targets.offsets[:-1][rows], queries.targets.lengths[rows]
    first = np.cumsum(lengths) - lengths
    return np.repeat(starts - first, lengths) + np.arange(lengths.sum())
