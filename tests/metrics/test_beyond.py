"""Coverage, Gini, novelty, diversity: by hand, at the extremes, and block by block."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.metrics import ListMetrics, beyond, gini, head_items

# --- Gini ------------------------------------------------------------------------------------


def test_gini_extremes():
    assert gini([3, 3, 3, 3]) == 0
    assert gini([0, 0, 0, 0, 9]) == pytest.approx(4 / 5)
    assert gini([7]) == 0


def test_gini_by_hand():
    # Differences between all 9 ordered pairs of 1, 2, 6: 2 (1 + 5 + 4) = 20; mean 20/9.
    # Half of it over the mean of 3: (20 / 9) / (2 * 3) = 10/27.
    assert gini([6, 1, 2]) == pytest.approx(10 / 27)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_half_the_relative_mean_difference(counts):
    values = np.array(counts, dtype=float)
    expected = np.abs(values[:, None] - values).mean() / (2 * values.mean())
    assert gini(counts) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 2]])
def test_gini_refuses_what_cannot_be_shared(counts):
    with pytest.raises(ValueError, match="gini"):
        gini(counts)


# --- one list --------------------------------------------------------------------------------


def test_novelty_by_hand():
    # Counts 5, 1, 0, 2 with 1 added are 6, 2, 1, 3 of 12: item 1 has -log2(1/6), item 2 -log2(1/12)
    lists = ListMetrics(4, [5, 1, 0, 2], None, k=2)
    novelty = lists.update([[1, 2], [0, -1], [-1, -1]])["novelty@2"]
    assert novelty[0] == pytest.approx((math.log2(6) + math.log2(12)) / 2)
    assert novelty[1] == pytest.approx(1.0)  # -log2(6/12): the empty place is not averaged in
    assert math.isnan(novelty[2])


CATEGORIES = [["comedy", "drama"], ["drama"], ["war"], [], ["drama", "comedy"]]


def test_diversity_by_hand():
    lists = ListMetrics(5, [1] * 5, CATEGORIES, k=3)
    ild = lists.update([[0, 1, 2], [0, 4, -1], [2, 3, 0], [3, 1, -1], [-1, 3, 3]])["ild@3"]
    # {comedy, drama} and {drama} share one of two; {war} shares nothing: (1/2 + 1 + 1) / 3.
    assert ild[0] == pytest.approx(2.5 / 3)
    assert ild[1] == 0  # the same set, whatever the order of its names
    assert ild[2] == 1  # the item without a category takes no part
    assert np.isnan(ild[3:]).all()  # fewer than two items with categories


@pytest.mark.parametrize("categories", [None, [[], [], []]])
def test_diversity_is_absent_without_categories(categories):
    assert set(ListMetrics(3, [1, 1, 1], categories, k=1).update([[0]])) == {"novelty@1"}


def test_diversity_of_a_list_of_one_is_undefined():
    assert np.isnan(ListMetrics(5, [1] * 5, CATEGORIES, k=1).update([[0]])["ild@1"]).all()


def random_lists(queries=53, catalog=90, k=12, seed=0):
    """Lists with empty places, over a catalog with more categories than two words of bits hold."""
    rng = np.random.default_rng(seed)
    lists = np.array([rng.permutation(catalog)[:k] for _ in range(queries)])
    lists[rng.random(lists.shape) < 0.1] = -1
    names = [f"c{number}" for number in range(150)]
    categories = [rng.choice(names, rng.integers(0, 9)).tolist() for _ in range(catalog)]
    categories[0] = names  # so that every bit is in use
    return lists, rng.poisson(3, catalog), categories


def test_diversity_equals_sets(monkeypatch):
    lists, popularity, categories = random_lists()
    for words in (1, 500, 10**6):
        monkeypatch.setattr(beyond, "_WORDS_AT_A_TIME", words)
        got = ListMetrics(90, popularity, categories, k=12).update(lists)["ild@12"]
        for row, value in zip(lists, got, strict=True):
            sets = [set(categories[item]) for item in row if item >= 0 and categories[item]]
            pairs = [(a, b) for place, a in enumerate(sets) for b in sets[:place]]
            expected = np.mean([1 - len(a & b) / len(a | b) for a, b in pairs])
            assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 7])
def test_blocks_do_not_matter(size):
    lists, popularity, categories = random_lists()
    whole = ListMetrics(90, popularity, categories, k=12)
    parts = ListMetrics(90, popularity, categories, k=12)
    expected = whole.update(np.asfortranarray(lists))
    got = [parts.update(lists[start : start + size]) for start in range(0, len(lists), size)]
    for name, values in expected.items():
        assert np.array_equal(np.concatenate([part[name] for part in got]), values)
    assert parts.summary() == whole.summary()


# --- all lists -------------------------------------------------------------------------------


def test_summary_by_hand():
    # Training counts 6, 3, 1, 0, 0; the head is the ceil(5/5) = 1 most chosen item, item 0.
    lists = ListMetrics(5, [6, 3, 1, 0, 0], None, k=2)
    lists.update([[0, 1]])
    lists.update([[0, 3], [0, -1]])
    summary = lists.summary()
    assert summary["coverage@2"] == 3 / 5
    assert summary["head_share@2"] == 3 / 5
    # Listed: (6 + 3 + 6 + 0 + 6) / 5 = 4.2; chosen in training: (36 + 9 + 1) / 10 = 4.6
    assert summary["popularity_lift@2"] == pytest.approx(4.2 / 4.6)
    assert summary["gini@2"] == gini([3, 1, 0, 1, 0])


def test_summary_extremes():
    everywhere, one = ListMetrics(8, [1] * 8, None, k=1), ListMetrics(8, [1] * 8, None, k=1)
    everywhere.update(np.arange(8)[:, None])
    one.update(np.zeros((8, 1), dtype=int))
    assert everywhere.summary() == {
        "coverage@1": 1.0,
        "gini@1": 0.0,
        "popularity_lift@1": 1.0,
        "head_share@1": head_items([1] * 8).sum() / 8,
    }
    assert one.summary()["coverage@1"] == 1 / 8
    assert one.summary()["gini@1"] == pytest.approx(7 / 8)


def test_recommending_what_people_choose_has_no_lift():
    popularity = np.array([50, 30, 15, 5])
    lists = ListMetrics(4, popularity, None, k=1)
    lists.update(np.repeat(np.arange(4), popularity)[:, None])
    assert lists.summary()["popularity_lift@1"] == pytest.approx(1.0)


def test_lift_is_undefined_without_training_interactions():
    lists = ListMetrics(2, [0, 0], None, k=1)
    lists.update([[1]])
    assert math.isnan(lists.summary()["popularity_lift@1"])
    assert lists.summary()["head_share@1"] == 0


def test_summary_needs_lists():
    lists = ListMetrics(2, [1, 1], None, k=1)
    assert lists.update(np.zeros((0, 1), dtype=int))["novelty@1"].size == 0
    with pytest.raises(ValueError, match="no item has been listed"):
        lists.summary()


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[0]], r"\[queries, 2\]"),
        ([[0, 3]], r"0\.\.2"),
        ([[0, -2]], r"0\.\.2"),
        ([0, 1], "queries"),
    ],
)
def test_refuses_lists_that_do_not_fit(lists, message):
    with pytest.raises(ValueError, match=message):
        ListMetrics(3, [1, 1, 1], None, k=2).update(lists)


@pytest.mark.parametrize(
    ("catalog", "popularity", "categories", "k"),
    [(3, [1, 1], None, 1), (2, [1, -1], None, 1), (2, [1, 1], [["a"]], 1), (2, [1, 1], None, 0)],
)
def test_refuses_sizes_that_do_not_fit(catalog, popularity, categories, k):
    with pytest.raises(ValueError):
        ListMetrics(catalog, popularity, categories, k)
