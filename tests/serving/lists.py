"""Comparing a list with what the model itself says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foretaste.data.sequences import Sequences
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.results import RecommendedItem


def assert_best(
    model: Recommender,
    history: Sequences,
    lines: Sequence[RecommendedItem],
    *,
    k: int,
) -> None:
    """The list is that of ``recommend`` for one history; items of equal score may change places."""
    item_ids, scores = [line.item_id for line in lines], [line.score for line in lines]
    expected = model.recommend(history, k)[0]
    assert len(item_ids) == len(expected)
    assert len(set(item_ids)) == len(item_ids)
    np.testing.assert_allclose(scores, [line.score for line in expected], rtol=1e-4, atol=1e-5)
    everything = {line.item_id: line.score for line in model.recommend(history, 10_000)[0]}
    own = [everything[item] for item in item_ids]
    np.testing.assert_allclose(scores, own, rtol=1e-4, atol=1e-5)


def history_of(
    model: Recommender, item_ids: Sequence[str], times: Sequence[int] | None = None
) -> Sequences:
    """Ids, and times in milliseconds, as one row of the model's numbers; unknown ids left out."""
    assert model.catalog is not None
    numbers = model.catalog.numbers(list(item_ids)).astype(np.int32)
    known = numbers >= 0
    stamps = None if times is None else np.array(times, np.int64)[known]
    return Sequences(numbers[known], np.array([0, int(known.sum())]), stamps)
