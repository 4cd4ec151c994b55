"""Pairs are counted and vectors smoothed as by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.codes import cooccurrence as module
from foretaste.codes.cooccurrence import cooccurrence, smoothed
from foretaste.data.sequences import Sequences

ROWS = st.lists(st.lists(st.integers(-1, 5), max_size=8), min_size=1, max_size=6)


@given(ROWS, st.integers(1, 9), st.sampled_from([1, 3, 1_000]))
def test_counts_are_those_of_plain_loops(rows: list[list[int]], window: int, at_once: int) -> None:
    expected = np.zeros((6, 6))
    for row in rows:
        for place, one in enumerate(row):
            for other in row[place + 1 : place + 1 + window]:
                if one != other and min(one, other) >= 0:
                    expected[one, other] += 1
                    expected[other, one] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PAIRS_AT_ONCE", at_once)
        found = cooccurrence(Sequences.from_lists(rows), 6, window)
    assert np.array_equal(found.toarray(), expected)


@pytest.mark.parametrize("hops", [0, 1, 3])
def test_smoothing_is_the_formula(hops: int) -> None:
    rows = [[0, 1, 2], [1, 2], [3, 0], [2, 0]]
    graph = cooccurrence(Sequences.from_lists(rows), 5, 2)  # nobody chose item 4
    vectors = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    alpha = 0.4
    dense = graph.toarray()
    dense[4, 4] = 1
    root = np.sqrt(dense.sum(1))
    normal = dense / root[:, None] / root
    reached, weights, parts = vectors, [], []
    for hop in range(hops + 1):
        weights.append(alpha * (1 - alpha) ** hop)
        parts.append(reached)
        reached = (1 - alpha) * normal @ reached + alpha * vectors
    expected = sum(w * p for w, p in zip(weights, parts, strict=True)) / sum(weights)
    found = smoothed(vectors, graph, alpha, hops)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[4], vectors[4], atol=1e-6)


def test_items_chosen_together_come_nearer() -> None:
    vectors = np.eye(4, dtype=np.float32)
    graph = cooccurrence(Sequences.from_lists([[0, 1], [0, 1], [2, 3]]), 4, 1)
    found = smoothed(vectors, graph, 0.5, 2)

    def apart(one: int, other: int) -> float:
        return float(np.linalg.norm(found[one] - found[other]))

    assert apart(0, 1) < 0.8 * apart(0, 2)
