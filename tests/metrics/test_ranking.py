"""Ranking metrics: by hand, against every order of the ties, and against other libraries."""

from itertools import permutations, product
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.errors import InputError
from foretaste.metrics import (
    RANKING_METRICS,
    RankingMetric,
    TargetPositions,
    parse_metric,
    query_metrics,
    target_positions,
)

INF = float("inf")


def measure(scores, targets, names) -> dict[str, np.ndarray]:
    """Metrics of ``scores [Q, N]`` where ``targets`` lists each query's target items."""
    rows = np.repeat(np.arange(len(targets)), [len(of_query) for of_query in targets])
    items = np.array([item for of_query in targets for item in of_query])
    found = target_positions(torch.as_tensor(np.asarray(scores, np.float32)), rows, items)
    return query_metrics(found, rows, len(targets), names)


def measure_one(scores, targets, name) -> float:
    return float(measure([scores], [targets], [name])[name][0])


def plain(kind: str, k: int, hits: list[bool], targets: int) -> float:
    """The metric of one order without ties, as textbooks write it; hits by rank."""
    hits = hits[:k]
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    match kind:
        case "hr":
            return float(bool(ranks))
        case "recall":
            return len(ranks) / targets
        case "precision":
            return len(ranks) / k
        case "ndcg":
            ideal = sum(1 / log2(1 + rank) for rank in range(1, min(k, targets) + 1))
            return sum(1 / log2(1 + rank) for rank in ranks) / ideal
        case "mrr":
            return 1 / ranks[0] if ranks else 0.0
        case "map":
            return sum(n / rank for n, rank in enumerate(ranks, start=1)) / min(k, targets)
    raise AssertionError(kind)


# --- by hand ---------------------------------------------------------------------------------


def test_one_query_by_hand():
    # Ranks: item 2 first, then 0, 4, 1, 3. The targets 0, 1 and 3 stand at ranks 2, 4 and 5.
    scores, targets = [0.8, 0.3, 0.9, 0.1, 0.5], [0, 1, 3]
    # DCG@4 = 1/log2(3) + 1/log2(5) = 0.63093 + 0.43068 = 1.06161
    # ideal = 1/log2(2) + 1/log2(3) + 1/log2(4) = 1 + 0.63093 + 0.5 = 2.13093
    assert measure_one(scores, targets, "ndcg@4") == pytest.approx(1.06161 / 2.13093, abs=1e-5)
    assert measure_one(scores, targets, "hr@1") == 0
    assert measure_one(scores, targets, "hr@2") == 1
    assert measure_one(scores, targets, "recall@4") == pytest.approx(2 / 3)
    assert measure_one(scores, targets, "precision@4") == 2 / 4
    assert measure_one(scores, targets, "mrr@4") == 1 / 2
    # Precision at the two hits is 1/2 and 2/4; a list of 4 could hold all 3 targets.
    assert measure_one(scores, targets, "map@4") == pytest.approx((1 / 2 + 2 / 4) / 3)
    # A list of 2 could hold 2 of them.
    assert measure_one(scores, targets, "map@2") == pytest.approx((1 / 2) / 2)


def test_constant_scores_give_chance():
    # One target among 8 equal items: at each of the 8 ranks with chance 1/8.
    scores = [1.0] * 8
    assert measure_one(scores, [3], "hr@2") == 2 / 8
    assert measure_one(scores, [3], "mrr@2") == pytest.approx((1 + 1 / 2) / 8)
    assert measure_one(scores, [3], "ndcg@2") == pytest.approx((1 + 1 / log2(3)) / 8)
    # Two targets: both miss a list of 3 with chance (5/8)(4/7).
    assert measure_one(scores, [3, 5], "hr@3") == pytest.approx(1 - 5 / 8 * 4 / 7)


def test_a_perfect_list_is_one():
    scores = -np.arange(40.0)
    for many in (1, 2, 7, 10, 13):
        for kind in ("hr", "ndcg", "mrr"):
            assert measure_one(scores, list(range(many)), f"{kind}@10") == 1.0, (kind, many)
        assert measure_one(scores, list(range(many)), "map@10") == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("kind", RANKING_METRICS)
def test_unknown_and_excluded_targets_miss_even_in_a_list_longer_than_the_catalog(kind):
    assert measure_one([1.0, 2.0], [-1], f"{kind}@10") == 0
    assert measure_one([1.0, -INF], [1], f"{kind}@10") == 0


def test_unknown_targets_count_among_the_targets():
    # One of two targets is unknown: recall cannot pass 1/2, nor NDCG 1 / (1 + 1/log2(3)).
    assert measure_one([2.0, 1.0], [0, -1], "recall@5") == 1 / 2
    assert measure_one([2.0, 1.0], [0, -1], "map@5") == 1 / 2
    assert measure_one([2.0, 1.0], [0, -1], "ndcg@5") == pytest.approx(1 / (1 + 1 / log2(3)))


# --- ties ------------------------------------------------------------------------------------


def over_all_orders(scores, targets, kind: str, k: int) -> float:
    """The mean of the textbook metric over every order that the scores allow."""
    levels = sorted({score for score in scores if score != -INF}, reverse=True)
    groups = [[item for item, score in enumerate(scores) if score == level] for level in levels]
    values = [
        plain(kind, k, [item in targets for group in order for item in group], len(targets))
        for order in product(*(permutations(group) for group in groups))
    ]
    return float(np.mean(values))


@st.composite
def tied_queries(draw):
    scores = draw(st.lists(st.sampled_from([-INF, 0.0, 1.0, 2.0]), min_size=1, max_size=6))
    known = draw(st.sets(st.integers(0, len(scores) - 1), max_size=len(scores)))
    unknown = draw(st.integers(0 if known else 1, 2))
    return scores, [*sorted(known), *([-1] * unknown)]


@settings(max_examples=200, deadline=None)
@given(tied_queries(), st.integers(1, 8))
def test_ties_equal_the_mean_over_all_orders(query, k):
    scores, targets = query
    for kind in RANKING_METRICS:
        expected = over_all_orders(scores, targets, kind, k)
        got = measure_one(scores, targets, f"{kind}@{k}")
        assert got == pytest.approx(expected, abs=1e-12), kind


def test_large_tie_groups_equal_simulation():
    # Two groups of ties too large to enumerate: 30 items with 6 targets, then 70 with 5.
    rng = np.random.default_rng(0)
    scores = np.repeat([2.0, 1.0], [30, 70])
    targets = [*range(6), *range(30, 35)]
    for k in (10, 45):
        orders = np.array(
            [np.r_[rng.permutation(30), 30 + rng.permutation(70)] for _ in range(4000)]
        )
        for kind in RANKING_METRICS:
            drawn = [plain(kind, k, hits, 11) for hits in np.isin(orders, targets).tolist()]
            error = np.std(drawn) / np.sqrt(len(drawn))
            got = measure_one(scores, targets, f"{kind}@{k}")
            assert abs(got - np.mean(drawn)) <= 5 * error + 1e-9, (kind, k)


# --- other libraries -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def realistic():
    """200 queries over 500 items with 1 to 15 targets, scored better than chance, without ties."""
    rng = np.random.default_rng(7)
    scores = np.array([rng.permutation(500) for _ in range(200)]).astype(np.float32)
    targets = []
    for row in scores:
        chance = np.exp(row / 80)
        many = int(rng.integers(1, 16))
        targets.append(rng.choice(500, many, replace=False, p=chance / chance.sum()).tolist())
    run = {
        str(q): {str(item): float(score) for item, score in enumerate(row)}
        for q, row in enumerate(scores)
    }
    qrels = {str(q): {str(item): 1 for item in items} for q, items in enumerate(targets)}
    return scores, targets, run, qrels


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ndcg@10", "nDCG@10"),
        ("precision@10", "P@10"),
        ("recall@10", "R@10"),
        ("map@500", "AP"),
        ("mrr@500", "RR"),
        ("hr@10", "Success@10"),
        ("mrr@10", "RR@10"),
    ],
)
def test_agrees_with_ir_measures(realistic, ours, theirs):
    ir_measures = pytest.importorskip("ir_measures")
    scores, targets, run, qrels = realistic
    expected = np.full(len(targets), np.nan)
    for one in ir_measures.iter_calc([ir_measures.parse_measure(theirs)], qrels, run):
        expected[int(one.query_id)] = one.value
    got = measure(scores, targets, [ours])[ours]
    assert 0.05 < got.mean() < 0.95
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


def test_map_at_10_agrees_with_ir_measures_but_for_the_denominator(realistic):
    ir_measures = pytest.importorskip("ir_measures")
    scores, targets, run, qrels = realistic
    many = np.array([len(of_query) for of_query in targets])
    expected = np.full(len(targets), np.nan)
    for one in ir_measures.iter_calc([ir_measures.AP @ 10], qrels, run):
        expected[int(one.query_id)] = one.value
    # trec_eval divides by all targets, also by those that a list of 10 has no place for.
    got = measure(scores, targets, ["map@10"])["map@10"] * np.minimum(many, 10) / many
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


# --- properties ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tied():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 12, (60, 40)).astype(np.float32)
    scores[rng.random((60, 40)) < 0.1] = -INF
    targets = [
        [*rng.choice(40, rng.integers(1, 9), replace=False).tolist(), *([-1] * rng.integers(0, 2))]
        for _ in range(60)
    ]
    return scores, targets


NAMES = [f"{kind}@{k}" for kind in RANKING_METRICS for k in (1, 3, 10, 25, 40, 90)]


@pytest.mark.parametrize("size", [1, 7])
def test_a_query_does_not_depend_on_the_others(tied, size):
    scores, targets = tied
    whole = measure(scores, targets, NAMES)
    parts = [
        measure(scores[start : start + size], targets[start : start + size], NAMES)
        for start in range(0, len(targets), size)
    ]
    for name in NAMES:
        assert np.array_equal(np.concatenate([part[name] for part in parts]), whole[name]), name


def test_order_of_the_targets_does_not_matter(tied):
    scores, targets = tied
    whole = measure(scores, targets, NAMES)
    again = measure(scores, [of_query[::-1] for of_query in targets], NAMES)
    assert all(np.array_equal(whole[name], again[name]) for name in NAMES)


def test_values_lie_in_0_1_and_grow_with_k_where_they_must(tied):
    scores, targets = tied
    for kind in RANKING_METRICS:
        values = measure(scores, targets, [f"{kind}@{k}" for k in range(1, 45)])
        table = np.array(list(values.values()))  # [k, Q]
        assert table.min() >= 0 and table.max() <= 1
        if kind in ("hr", "recall", "mrr"):
            assert (np.diff(table, axis=0) >= -1e-15).all()
        if kind == "precision":  # its hits grow, its share need not
            assert (np.diff(table * np.arange(1, 45)[:, None], axis=0) >= -1e-12).all()


def test_single_target_makes_metrics_coincide(tied):
    scores, targets = tied
    single = [of_query[:1] for of_query in targets]
    for k in (1, 5, 10, 60):
        value = measure(scores, single, [f"{kind}@{k}" for kind in RANKING_METRICS])
        assert np.array_equal(value[f"hr@{k}"], value[f"recall@{k}"])
        np.testing.assert_allclose(value[f"mrr@{k}"], value[f"map@{k}"], rtol=1e-12)
        np.testing.assert_allclose(value[f"precision@{k}"] * k, value[f"hr@{k}"], rtol=1e-15)


def test_single_target_needs_no_torch():
    found = TargetPositions(np.array([0, 4, 9, 12]), np.array([0, 0, 1, 0]), 12)
    got = query_metrics(found, np.arange(4), 4, ["hr@10", "ndcg@10"])
    assert got["hr@10"].tolist() == [1, 1, 0.5, 0]
    expected = [1, 1 / log2(6), 0.5 / log2(11), 0]
    assert got["ndcg@10"].tolist() == pytest.approx(expected)


# --- refusals --------------------------------------------------------------------------------


def test_names():
    assert parse_metric("ndcg@10") == RankingMetric("ndcg", 10)
    assert list(measure([[1.0]], [[0]], ["mrr@3", "hr@1"])) == ["mrr@3", "hr@1"]


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("ndgc@10", "ndcg@10"),
        ("NDCG@20", "ndcg@20"),
        ("ndcg", "ndcg@10"),
        ("hit@5", "hr@5"),
        ("Success@1", "hr@1"),
        ("ap@100", "map@100"),
        ("recall@0", "recall@10"),
        ("recal@05", "recall@5"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, proposal):
    with pytest.raises(InputError, match=f"did you mean {proposal}\\?"):
        query_metrics(TargetPositions(np.zeros(1, int), np.zeros(1, int), 1), [0], 1, [name])


@pytest.mark.parametrize("k", ["1000001", "9" * 20, "9" * 5_000])
def test_an_absurd_length_is_refused_in_one_short_line(k):
    for name in (f"ndcg@{k}", f"ndgc@{k}"):
        with pytest.raises(InputError) as refusal:
            parse_metric(name[:60] if "ndgc" in name else name)
        assert len(str(refusal.value)) < 200
    assert parse_metric("hr@1000000").k == 1_000_000


def test_a_query_without_targets_is_refused():
    found = TargetPositions(np.zeros(2, int), np.zeros(2, int), 5)
    with pytest.raises(ValueError, match="query 1 has no target"):
        query_metrics(found, [0, 2], 3, ["hr@1"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 3], r"in 0\.\.1"), ([0], "must all be"), ([0, 0], "2 targets in the 1 positions")],
)
def test_refuses_what_does_not_fit(rows, message):
    found = TargetPositions(np.zeros(2, int), np.zeros(2, int), 5)
    with pytest.raises(ValueError, match=message):
        query_metrics(found, rows, 2 if len(set(rows)) == 2 else 1, ["hr@1"])


def test_no_queries():
    none = np.zeros(0, int)
    assert query_metrics(TargetPositions(none, none, 5), none, 0, ["ndcg@3"])["ndcg@3"].size == 0
