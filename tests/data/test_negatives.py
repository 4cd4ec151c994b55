"""Drawn items were never met, and come as often as they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.negatives import Negatives
from foretaste.data.sequences import Sequences


def test_known_answer_when_one_item_is_left():
    met = Sequences.from_lists([[0, 1, 3], [2], [0, 1, 2, 3]])
    sampler = Negatives(met, np.array([5, 1, 1, 1]))
    drawn = sampler.draw(np.array([0, 0, 2, 0]), np.random.default_rng(0))
    assert drawn.tolist() == [2, 2, -1, 2]
    assert drawn.dtype == np.int32


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-1, 6), max_size=9), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
    st.sampled_from(["uniform", "popularity"]),
    st.integers(0, 9),
)
def test_never_an_item_that_was_met_or_has_no_count(lists, counts, sampling, seed):
    met, counts = Sequences.from_lists(lists), np.array(counts)  # number 6 is outside
    rows = np.repeat(np.arange(len(lists)), 8)
    drawn = Negatives(met, counts, sampling).draw(rows, np.random.default_rng(seed))
    for row, item in zip(rows, drawn, strict=True):
        possible = set(np.flatnonzero(counts)) - set(lists[row])
        assert item in possible if possible else item == -1


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [("uniform", [0, 1 / 3, 1 / 3, 0, 1 / 3]), ("popularity", [0, 0.1, 0.3, 0, 0.6])],
)
def test_shares_of_what_is_left(sampling, expected):
    met = Sequences.from_lists([[0]])
    sampler = Negatives(met, np.array([50, 1, 3, 0, 6]), sampling)
    drawn = sampler.draw(np.zeros(30_000, int), np.random.default_rng(1))
    share = np.bincount(drawn, minlength=5) / len(drawn)
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_shares_hold_where_luck_runs_out():
    # Item 0 is nearly all there is, and met: what is left is chosen without luck.
    counts = np.array([10**9, 1, 3])
    sampler = Negatives(Sequences.from_lists([[0]]), counts, "popularity")
    drawn = sampler.draw(np.zeros(4_000, int), np.random.default_rng(2))
    np.testing.assert_allclose(np.bincount(drawn) / 4_000, [0, 0.25, 0.75], atol=0.03)


def test_the_generator_decides():
    sampler = Negatives(Sequences.from_lists([[0], []]), np.ones(50, int))
    rows = np.arange(200) % 2
    one, other, third = (sampler.draw(rows, np.random.default_rng(s)) for s in (3, 3, 4))
    assert one.tolist() == other.tolist() != third.tolist()
