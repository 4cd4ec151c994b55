"""Lists from scores: what a stable sort gives, whatever is tied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.nn.listing import best_scores

INF = float("inf")


def sorted_out(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The plain way: a stable sort keeps equal scores in the order of their numbers."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


def assert_listed(scores: np.ndarray, k: int) -> None:
    found = best_scores(torch.from_numpy(scores), k)
    values, order = sorted_out(scores, k)
    np.testing.assert_array_equal(found.values.numpy(), values)
    listed = values > -INF  # what is left out has no order
    np.testing.assert_array_equal(found.indices.numpy()[listed], order[listed])
    for row in found.indices.tolist():
        assert len(set(row)) == len(row)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    items=st.integers(1, 40),
    k=st.integers(1, 45),
    levels=st.sampled_from([1, 2, 3, 10, 10_000]),
    hidden=st.sampled_from([0, 0.1, 0.9, 1]),
)
def test_is_a_stable_sort(seed, rows, items, k, levels, hidden):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (rows, items)).astype(np.float32)
    scores[rng.random((rows, items)) < hidden] = -INF
    assert_listed(scores, k)


@pytest.mark.parametrize("k", [1, 10, 300])
def test_ties_that_lie_far_apart(k):
    rng = np.random.default_rng(0)
    scores = np.zeros((7, 30_000), np.float32)
    for row, many in enumerate((0, 1, 9, 10, 11, 299, 5_000)):
        scores[row, rng.choice(30_000, many, replace=False)] = 1
    scores[3, 29_000:] = 0.5
    assert_listed(scores, k)
    assert_listed(rng.random((7, 30_000), np.float32), k)


def test_a_list_is_the_head_of_a_longer_one():
    scores = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (20, 5_000))).float()
    long = best_scores(scores, 500)
    for k in (1, 5, 10, 499):
        short = best_scores(scores, k)
        assert torch.equal(short.indices, long.indices[:, :k])
        assert torch.equal(short.values, long.values[:, :k])


def test_infinite_and_negative_zero():
    found = best_scores(torch.tensor([[0.0, -0.0, INF, INF, -INF, 0.0]]), 4)
    assert found.indices.tolist() == [[2, 3, 0, 1]]


def test_doubles_that_only_float32_takes_for_equal_are_no_ties():
    scores = torch.tensor([[1.0, 1.0 + 1e-12, 1.0 + 1e-12, 1.0 + 2e-12]], dtype=torch.float64)
    assert best_scores(scores, 2).indices.tolist() == [[3, 1]]
