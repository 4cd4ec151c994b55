"""target_positions counts what a sort would show, and refuses what has no order."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foretaste.metrics import TargetPositions, positions, target_positions

INF = float("inf")


def counted(scores, rows, items) -> list[tuple[int, int]]:
    found = target_positions(torch.tensor(scores), torch.tensor(rows), torch.tensor(items))
    return list(zip(found.greater.tolist(), found.equal.tolist(), strict=True))


def test_counts_by_hand():
    scores = [[0.1, 0.9, 0.5, 0.5], [3.0, 3.0, 3.0, 3.0]]
    assert counted(scores, [0, 1], [1, 2]) == [(0, 0), (0, 3)]
    assert counted(scores, [0, 1], [3, 0]) == [(1, 1), (0, 3)]


def test_several_targets_in_any_order():
    scores = [[0.1, 0.9, 0.5, 0.5], [4.0, 3.0, 2.0, 1.0]]
    assert counted(scores, [1, 0, 1, 0], [3, 2, 0, 0]) == [(3, 0), (1, 1), (0, 0), (3, 0)]


def test_unknown_and_excluded_targets_are_never_found():
    scores = [[0.1, -INF, 0.5], [-INF, -INF, -INF]]
    assert counted(scores, [0, 0, 1], [-1, 1, 2]) == [(3, 0), (3, 0), (3, 0)]


def test_excluded_items_are_not_counted_and_infinite_scores_tie():
    assert counted([[INF, -INF, INF, 0.0]], [0, 0], [0, 3]) == [(0, 1), (2, 0)]


def test_the_chance_to_be_listed_by_hand():
    scores = [[4.0, 3.0, 3.0, 3.0, -INF], [0.0, 0.0, 0.0, 0.0, 0.0]]
    rows, items = [0, 0, 0, 0, 1], [0, 1, 4, -1, 2]
    found = target_positions(torch.tensor(scores), torch.tensor(rows), torch.tensor(items))
    np.testing.assert_allclose(found.listed(1), [1, 0, 0, 0, 1 / 5])
    np.testing.assert_allclose(found.listed(2), [1, 1 / 3, 0, 0, 2 / 5])
    np.testing.assert_allclose(found.listed(4), [1, 1, 0, 0, 4 / 5])
    np.testing.assert_allclose(found.listed(99), [1, 1, 0, 0, 1])  # never found stays so


def test_negative_zero_ties_with_zero():
    assert counted([[0.0, -0.0, 1.0]], [0], [0]) == [(1, 1)]


def scores_with_ties():
    value = st.sampled_from([-INF, -1.5, 0.0, 1e-45, 0.5, 2.0])
    return hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=value)


@settings(deadline=None)
@given(scores_with_ties(), st.data())
def test_equals_counting_one_by_one(scores, data):
    queries, catalog = scores.shape
    pair = st.tuples(st.integers(0, queries - 1), st.integers(-1, catalog - 1))
    pairs = data.draw(st.lists(pair, max_size=12, unique=True))
    rows = np.array([row for row, _ in pairs], dtype=np.int64)
    items = np.array([item for _, item in pairs], dtype=np.int64)
    found = target_positions(torch.from_numpy(scores), rows, items)
    assert found.items == catalog
    for (row, item), greater, equal in zip(pairs, found.greater, found.equal, strict=True):
        own = scores[row, item] if item >= 0 else -INF
        if own == -INF:
            assert (greater, equal) == (catalog, 0)
        else:
            assert greater == (scores[row] > own).sum()
            assert equal == (scores[row] == own).sum() - 1


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(5)
    scores = torch.from_numpy(rng.integers(0, 9, (50, 20)).astype(np.float32))
    return scores, np.arange(50), rng.integers(-1, 20, 50)


def test_order_of_the_targets_does_not_matter(many):
    scores, rows, items = many
    whole, again = target_positions(*many), target_positions(scores, rows[::-1], items[::-1])
    assert np.array_equal(again.greater[::-1], whole.greater)
    assert np.array_equal(again.equal[::-1], whole.equal)


@pytest.mark.parametrize("block", [1, 60, 10**6])
def test_counting_on_a_device_gives_the_same(monkeypatch, many, block):
    scores, rows, items = many
    monkeypatch.setattr(positions, "_BLOCK_ON_DEVICE", block)
    own = scores[rows, items]
    expected = positions._count(scores.numpy(), rows, own.numpy())
    got = positions._count_on_device(scores, torch.from_numpy(rows), own)
    assert np.array_equal(got, expected)
    spoilt = scores.clone()
    spoilt[31, 4] = torch.nan
    with pytest.raises(ValueError, match=r"row 31 .*NaN"):
        positions._count_on_device(spoilt, torch.from_numpy(rows), own)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    scores = torch.tensor([[1.0, 1.0, 3.0, 0.5]], dtype=dtype)
    found = target_positions(scores, np.array([0]), np.array([1]))
    assert (found.greater.tolist(), found.equal.tolist()) == ([1], [1])


def test_a_run_of_rows_that_starts_late():
    scores = torch.arange(20.0).reshape(5, 4)
    found = target_positions(scores, np.array([3, 4]), np.array([0, 3]))
    assert found.greater.tolist() == [3, 0]


def test_takes_scores_with_gradient_and_read_only_targets():
    scores = torch.tensor([[1.0, 2.0]], requires_grad=True)
    items = np.array([0])
    items.flags.writeable = False
    assert target_positions(scores, items, items).greater.tolist() == [1]


def test_no_targets():
    none = np.zeros(0, dtype=np.int64)
    assert len(target_positions(torch.ones(2, 3), none, none).greater) == 0


def test_nan_is_refused_and_its_row_named():
    scores = torch.ones(3, 4)
    scores[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"row 2 .* NaN"):
        target_positions(scores, np.arange(3), np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match=r"row 2 .* NaN"):  # the target's own score
        target_positions(scores, np.array([2]), np.array([1]))


@pytest.mark.parametrize(
    ("rows", "items", "message"),
    [
        ([2], [0], "target_rows must be in 0..1"),
        ([-1], [0], "target_rows must be in 0..1"),
        ([0], [3], "target_items must be in 0..2"),
        ([0], [-2], "target_items must be in 0..2"),
        ([0, 1], [0], r"got \[2, 3\], \[2\] and \[1\]"),
        ([1, 0, 1], [2, 2, 2], "row 1 has item 2 twice"),
    ],
)
def test_refuses_what_does_not_fit(rows, items, message):
    with pytest.raises(ValueError, match=message):
        target_positions(torch.ones(2, 3), np.array(rows), np.array(items))


def test_several_unknown_targets_are_not_repetitions():
    found = target_positions(torch.ones(1, 2), np.array([0, 0]), np.array([-1, -1]))
    assert found.greater.tolist() == [2, 2]


def test_whole_number_scores_are_refused():
    with pytest.raises(ValueError, match="floating point"):
        target_positions(torch.ones(1, 2, dtype=torch.int64), np.array([0]), np.array([0]))


def test_positions_are_host_arrays():
    found = target_positions(torch.ones(1, 2), torch.tensor([0]), torch.tensor([1]))
    assert isinstance(found, TargetPositions)
    assert found.greater.dtype == found.equal.dtype == np.int64


def test_importing_metrics_does_not_import_torch():
    import subprocess

    code = "import sys, foretaste.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
