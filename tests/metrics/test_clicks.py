"""AUC, GAUC and log-loss by hand, by scipy, and by counting pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from foretaste.metrics import (
    auc,
    auc_difference,
    click_figures,
    click_intervals,
    gauc,
    log_loss,
    paired_difference,
    user_clicks,
)

LABELS = [1, 0, 1, 0, 1, 1]
SCORES = [0.9, 0.4, 0.4, 0.1, 0.7, 0.2]
USERS = [7, 7, 7, 3, 3, 5]


def by_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUC as it is defined: over every pair of a click and an impression without."""
    clicked, other = scores[labels == 1][:, None], scores[labels == 0]
    return float(((clicked > other) + 0.5 * (clicked == other)).mean())


# --- By hand ------------------------------------------------------------------------------------


def test_auc_by_hand():
    # Of 4 x 2 pairs: 0.9 wins 2, 0.4 ties one and wins one, 0.7 wins 2, 0.2 wins one: 6.5 of 8.
    assert auc(LABELS, SCORES) == 6.5 / 8


def test_gauc_by_hand():
    # User 7 (3 impressions): pairs (0.9, 0.4) and (0.4, 0.4), 1.5 of 2. User 3 (2): 1 of 1.
    # User 5 has no impression without a click and is left out.
    assert gauc(LABELS, SCORES, USERS) == ((3 * 0.75 + 2 * 1.0) / 5, 2)


def test_log_loss_by_hand():
    assert log_loss([1, 0], [0.5, 0.25]) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert log_loss([1, 0], [1.0, 0.0]) == 0
    assert log_loss([0], [1.0]) == pytest.approx(-math.log(np.finfo(float).eps))


def test_every_user_by_hand():
    found = user_clicks(LABELS, SCORES, USERS)
    assert found.users.tolist() == [3, 5, 7]
    assert found.impressions.tolist() == [2, 1, 3]
    np.testing.assert_array_equal(found.auc, [1.0, np.nan, 0.75])
    losses = -np.log([0.9, 0.6, 0.4, 0.9, 0.7, 0.2])
    expected = [losses[3:5].mean(), losses[5], losses[:3].mean()]
    np.testing.assert_allclose(found.log_loss, expected)


def test_all_figures_at_once():
    found = click_figures(LABELS, SCORES, USERS)
    assert found.auc == auc(LABELS, SCORES)
    assert (found.gauc, found.gauc_users) == gauc(LABELS, SCORES, USERS)
    assert found.log_loss == log_loss(LABELS, SCORES)
    assert found.impressions == 6


# --- By others ----------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 50, 10**9])
def test_agrees_with_scipy_and_with_pairs(levels: int):
    rng = np.random.default_rng(levels)
    labels, scores = rng.integers(0, 2, 400), rng.integers(0, levels, 400) / levels
    statistic = mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    expected = statistic / (labels.sum() * (1 - labels).sum())
    assert auc(labels, scores) == pytest.approx(expected, abs=1e-12)
    assert auc(labels, scores) == pytest.approx(by_pairs(labels, scores), abs=1e-12)


impressions = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=60
)


@settings(deadline=None)
@given(impressions)
def test_grouped_equals_a_loop_over_users(drawn):
    labels, scores, users = (np.array(column) for column in zip(*drawn, strict=True))
    expected, weights = [], []
    for user in np.unique(users):
        mine = users == user
        if len(np.unique(labels[mine])) == 2:
            expected.append(by_pairs(labels[mine], scores[mine]))
            weights.append(mine.sum())
    if not expected:
        with pytest.raises(ValueError, match="user with both labels"):
            gauc(labels, scores, users)
        return
    found = gauc(labels, scores, users)
    assert found.value == pytest.approx(np.average(expected, weights=weights), abs=1e-12)
    assert found.users == len(expected)
    own = user_clicks(labels, (scores + 3) / 6, users)
    assert own.auc[~np.isnan(own.auc)] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(impressions)
def test_order_alone_counts_and_the_mirror_is_the_rest(drawn):
    labels, scores, _ = (np.array(column) for column in zip(*drawn, strict=True))
    if len(np.unique(labels)) < 2:
        return
    value = auc(labels, scores)
    assert auc(labels, np.exp(scores)) == value
    assert auc(labels, -scores) == pytest.approx(1 - value, abs=1e-12)
    assert auc(labels, np.zeros(len(labels))) == 0.5


def test_users_may_have_any_numbers():
    other = np.array(USERS, np.int32) * 10**6 - 5
    assert gauc(LABELS, SCORES, other) == gauc(LABELS, SCORES, USERS)


# --- Differences --------------------------------------------------------------------------------


Planted = tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]


def planted(noise: float, seed: int = 0) -> Planted:
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(120), 20)
    labels = rng.integers(0, 2, len(users))
    return labels, labels + noise * rng.normal(size=len(users)), users, rng


def test_difference_of_auc_knows_better_from_equal():
    labels, good, users, rng = planted(1.0)
    worse = good + 2 * rng.normal(size=len(good))
    value, low, high = auc_difference(labels, good, worse, users)
    assert value == pytest.approx(auc(labels, good) - auc(labels, worse))
    assert 0 < low < value < high
    like = labels + rng.normal(size=len(good))
    _, low, high = auc_difference(labels, good, like, users)
    assert low < 0 < high
    assert auc_difference(labels, good, good, users) == (0, 0, 0)


def test_difference_of_auc_is_a_bootstrap_over_users():
    labels, good, users, rng = planted(2.0, seed=3)
    other = good + rng.normal(size=len(good))
    found = auc_difference(labels, good, other, users, resamples=400, seed=1)
    # The slow and plain way: every drawn user's impressions, as often as it was drawn.
    draw = np.random.default_rng(9)
    values = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(users == u) for u in draw.integers(0, 120, 120)])
        values.append(auc(labels[rows], good[rows]) - auc(labels[rows], other[rows]))
    assert found.low == pytest.approx(np.quantile(values, 0.025), abs=0.004)
    assert found.high == pytest.approx(np.quantile(values, 0.975), abs=0.004)
    again = auc_difference(labels, good, other, users, resamples=400, seed=1)
    assert found == again


def test_difference_of_one_user_shows_no_spread():
    value, low, high = auc_difference([1, 0, 1], [3, 2, 1], [1, 2, 3], [4, 4, 4])
    assert value == 0
    assert np.isnan([low, high]).all()  # no interval without any width
    # Two users of one label each: half of the draws have no AUC.
    value, low, high = auc_difference([1, 0], [2, 1], [1, 2], [0, 1])
    assert (value, low, high) == (1, 1, 1)


def test_intervals_are_a_bootstrap_over_users():
    labels, good, users, _ = planted(2.0, seed=3)
    asked = 1 / (1 + np.exp(-good))
    found = click_intervals(labels, asked, users, resamples=400, seed=1)
    whole = click_figures(labels, asked, users)
    assert [one.value for one in found] == pytest.approx([whole.auc, whole.gauc, whole.log_loss])
    draw, values = np.random.default_rng(9), []
    for _ in range(400):
        drawn = draw.integers(0, 120, 120)
        rows = [np.flatnonzero(users == user) for user in drawn]
        # A user who is drawn twice counts as two.
        named = np.repeat(np.arange(120), [len(one) for one in rows])
        at = np.concatenate(rows)
        values.append(click_figures(labels[at], asked[at], named))
    for name in ("auc", "gauc", "log_loss"):
        low, high = np.quantile([getattr(one, name) for one in values], [0.025, 0.975])
        interval = getattr(found, name)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.006)
    assert found == click_intervals(labels, asked, users, resamples=400, seed=1)


def test_impressions_are_sorted_once_however_often_users_are_drawn(monkeypatch):
    """A million impressions sorted for every draw took a quarter of an hour."""
    rng = np.random.default_rng(0)
    labels, scores, users = rng.random(9_000) < 0.3, rng.random(9_000), rng.integers(0, 90, 9_000)
    sorts, argsort = [], np.argsort
    monkeypatch.setattr(np, "argsort", lambda *a, **o: sorts.append(1) or argsort(*a, **o))
    found = auc_difference(labels, scores, -scores, users)
    assert found.low < found.value < found.high
    assert len(sorts) <= 2


def test_intervals_without_users_of_both_labels():
    found = click_intervals([1, 0], [0.9, 0.2], [1, 2])
    assert found.auc.value == 1
    assert np.isnan(found.gauc).all()
    alone = click_intervals([1, 0, 1], [0.9, 0.2, 0.4], [4, 4, 4])
    assert np.isnan([(one.low, one.high) for one in alone]).all()
    assert (alone.gauc.value, alone.log_loss.value) == pytest.approx((1, 0.4149), abs=1e-4)
    assert np.isnan([alone.gauc.low, alone.log_loss.high]).all()


def test_user_figures_pair():
    labels, good, users, rng = planted(0.5)
    worse = good + 2 * rng.normal(size=len(good))

    def probabilities(scores: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-scores))

    ours = user_clicks(labels, probabilities(good), users)
    theirs = user_clicks(labels, probabilities(worse), users)
    both = ~np.isnan(ours.auc)
    assert paired_difference(ours.auc[both], theirs.auc[both]).low > 0


# --- What is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([], [], "at least one impression"),
        ([1, 0], [0.5], "one label and one score"),
        ([[1, 0]], [[0.1, 0.2]], "one label and one score"),
        ([1, 2], [0.1, 0.2], "label 2 of impression 1"),
        ([1, -1], [0.1, 0.2], "label -1"),
        ([1, 0.5], [0.1, 0.2], "label 0.5"),
        ([1, np.nan], [0.1, 0.2], "label nan"),
        ([1, 0], [0.1, np.nan], "impression 1 is NaN"),
        ([1, 1], [0.1, 0.2], "both labels"),
        ([0], [0.1], "both labels"),
    ],
)
def test_auc_refuses(labels, scores, says):
    with pytest.raises(ValueError, match=says):
        auc(labels, scores)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.inf, -np.inf])
def test_log_loss_refuses_what_is_no_probability(wrong: float):
    with pytest.raises(ValueError, match=r"impression 1 .*Give probabilities"):
        log_loss([1, 0], [0.5, wrong])


@pytest.mark.parametrize("users", [[1], [1.0, 2.0], ["a", "b"], [[1, 2]]])
def test_gauc_refuses_wrong_users(users):
    with pytest.raises(ValueError, match="users must be 2 whole numbers"):
        gauc([1, 0], [0.5, 0.1], users)


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0}, {"resamples": 0}])
def test_difference_refuses_wrong_options(options):
    with pytest.raises(ValueError, match="level"):
        auc_difference(LABELS, SCORES, SCORES, USERS, **options)


def test_infinite_scores_have_their_place():
    assert auc([1, 0, 0], [np.inf, 1, -np.inf]) == 1
