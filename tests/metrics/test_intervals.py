"""Intervals cover what they claim, p-values are honest, and everything follows from the seed."""

import math

import numpy as np
import pytest

from foretaste.metrics import bootstrap_mean, holm, intervals, paired_difference

# --- bootstrap_mean --------------------------------------------------------------------------


def test_the_seed_decides():
    values = np.random.default_rng(1).random(80)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_value_lies_in_the_interval_and_higher_levels_are_wider():
    values = np.random.default_rng(2).random(60)
    narrow, wide = bootstrap_mean(values, level=0.5), bootstrap_mean(values, level=0.99)
    assert narrow.value == wide.value == values.mean()
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_equal_users_leave_no_doubt():
    assert bootstrap_mean([0.25] * 9) == (0.25, 0.25, 0.25)


def test_one_user_shows_no_spread():
    value, low, high = bootstrap_mean([0.3])
    assert value == 0.3 and math.isnan(low) and math.isnan(high)


def test_coverage_is_nominal():
    # NDCG of single targets looks like this: mostly 0, the rest spread over (0, 1].
    rng = np.random.default_rng(3)
    truth, trials = 0.4 * 0.5, 400
    held = 0
    for _ in range(trials):
        users = rng.random(120) * (rng.random(120) < 0.4)
        _, low, high = bootstrap_mean(users, level=0.9, resamples=300)
        held += low <= truth <= high
    assert 0.85 <= held / trials <= 0.94  # 0.90, give or take three standard errors of 0.015


def test_resampling_and_the_normal_limit_agree(monkeypatch):
    values = np.random.default_rng(4).random(20_000)
    resampled = bootstrap_mean(values, resamples=2000)
    monkeypatch.setattr(intervals, "NORMAL_FROM", 10_000)
    limit = bootstrap_mean(values)
    width = limit.high - limit.low
    assert limit.high - limit.value == pytest.approx(1.959964 * values.std() / 20_000**0.5, 1e-4)
    assert abs(resampled.low - limit.low) < 0.06 * width
    assert abs(resampled.high - limit.high) < 0.06 * width


def test_memory_blocks_do_not_matter(monkeypatch):
    a, b = np.random.default_rng(5).random((2, 101))
    interval, pair = bootstrap_mean(a), paired_difference(a, b)
    monkeypatch.setattr(intervals, "_DRAWS_AT_A_TIME", 800)
    assert bootstrap_mean(a) == interval
    # The signs are other random bytes then, the same test: within its own noise.
    assert paired_difference(a, b)[:3] == pair[:3]
    assert paired_difference(a, b).p_value == pytest.approx(pair.p_value, abs=0.03)


@pytest.mark.parametrize("values", [[], [[0.1]], [0.1, math.nan], [math.inf]])
def test_refuses_values_without_a_mean(values):
    with pytest.raises(ValueError, match="values"):
        bootstrap_mean(values)


def test_nan_is_refused_with_the_user_named():
    with pytest.raises(ValueError, match="b is nan for user 2"):
        paired_difference([0, 0, 0], [0, 0, math.nan])


@pytest.mark.parametrize("option", [{"level": 0}, {"level": 1}, {"level": 95}, {"resamples": 0}])
def test_refuses_options_out_of_range(option):
    with pytest.raises(ValueError):
        bootstrap_mean([0.1, 0.2], **option)


# --- paired_difference -----------------------------------------------------------------------


def test_identical_results():
    a = np.random.default_rng(6).random(30)
    assert paired_difference(a, a) == (0.0, 0.0, 0.0, 1.0, 30)


def test_a_real_effect():
    rng = np.random.default_rng(7)
    b = rng.random(300)
    a = b + 0.05 + 0.1 * rng.standard_normal(300)
    difference, low, high, p_value, users = paired_difference(a, b)
    assert difference == pytest.approx(a.mean() - b.mean())
    assert 0 < low < difference < high
    assert p_value == 1 / 10_000  # none of 9,999 flips comes near
    assert users == 300
    reverse = paired_difference(b, a)
    assert reverse.difference == -difference and reverse.p_value == p_value


@pytest.mark.parametrize("differences", [[1.0, 2.0, -0.5, 3.0], [0.1] * 6, [0.3, 0.3, -0.3, 0.6]])
def test_p_value_equals_enumeration(differences):
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(differences))).reshape(len(differences), -1)
    sums = np.abs(np.array(differences) @ signs)
    exact = np.mean(sums >= abs(sum(differences)) - 1e-9)
    got = paired_difference(differences, [0.0] * len(differences), flips=40_000).p_value
    assert got == pytest.approx(exact, abs=0.01)


def test_users_that_do_not_differ_add_nothing():
    moved = [0.4, -0.1, 0.3, 0.2, 0.6, -0.2, 0.1]
    padded = moved + [0.0] * 50
    got = paired_difference(padded, [0.0] * 57).p_value
    assert got == paired_difference(moved, [0.0] * 7).p_value


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(8)
    p_values = [
        paired_difference(*rng.random((2, 40)), resamples=1, flips=399, seed=seed).p_value
        for seed in range(500)
    ]
    for level in (0.05, 0.2, 0.5, 0.8):
        error = math.sqrt(level * (1 - level) / 500)
        assert abs(np.mean(np.array(p_values) <= level) - level) < 3.5 * error


def test_p_value_joins_the_normal_limit(monkeypatch):
    rng = np.random.default_rng(9)
    difference = rng.standard_normal(4000) + 0.03
    drawn = paired_difference(difference, np.zeros(4000), resamples=10).p_value
    monkeypatch.setattr(intervals, "NORMAL_FROM", 1000)
    limit = paired_difference(difference, np.zeros(4000)).p_value
    assert 0.001 < limit < 0.5
    assert drawn == pytest.approx(limit, abs=4 * math.sqrt(limit / 9999) + 0.002)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="a has 2 users and b has 3"):
        paired_difference([1, 2], [1, 2, 3])


# --- holm ------------------------------------------------------------------------------------


def test_holm_by_hand():
    # In order .01, .02, .03, .04: times 4, 3, 2, 1 is .04, .06, .06, .04, and none may fall.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(10)
    for many in (1, 2, 5, 20):
        p_values = rng.choice([0.0, 0.004, 0.02, 0.3, 1.0, *rng.random(5)], many)  # some equal
        expected = multitest.multipletests(p_values, method="holm")[1]
        assert holm(p_values.tolist()) == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("p_values", [[1.1], [-0.1], [0.1, math.nan]])
def test_holm_refuses_what_is_no_p_value(p_values):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm(p_values)
