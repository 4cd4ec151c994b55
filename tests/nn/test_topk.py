"""The best items against the plain way: all scores, masks, and a sort."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foretaste.errors import InputError
from foretaste.nn import scanning, topk
from foretaste.nn.topk import TopK, top_k

SEEDS = st.integers(0, 2**32 - 1)


def plainly(vectors: Tensor, weight: Tensor, k: int, seen=None, allowed=None) -> TopK:
    """All scores, masked and sorted; of equal scores the lower item number first."""
    values = np.full((len(vectors), k), -np.inf, np.float32)
    indices = np.full((len(vectors), k), -1)
    with np.errstate(all="ignore"):
        scores = (vectors.numpy()[:, None] * weight.numpy()[None]).sum(2)  # [B, N]
    for row, mine in enumerate(scores):
        mine[np.isnan(mine)] = -np.inf
        if seen is not None:
            mine[seen[row]] = -np.inf
        if allowed is not None:
            mine[~np.asarray(allowed)] = -np.inf
        best = [item for item in np.argsort(-mine, kind="stable") if mine[item] > -np.inf][:k]
        values[row, : len(best)], indices[row, : len(best)] = mine[best], best
    return TopK(torch.from_numpy(values), torch.from_numpy(indices))


def same(mine: TopK, other: TopK) -> None:
    """Every value and every place, and the kinds that are promised."""
    assert mine.values.dtype == torch.float32 and mine.indices.dtype == torch.int64
    assert mine.values.tolist() == other.values.tolist()
    assert mine.indices.tolist() == other.indices.tolist()


def numbers(rng: np.random.Generator, rows: int, dim: int, odd: float = 0) -> Tensor:
    """Small whole numbers, whose products are exact and often equal; a share is not finite."""
    found = rng.integers(-2, 3, (rows, dim)).astype(np.float32)
    strange = rng.choice(np.array([np.inf, -np.inf, np.nan, -0.0], np.float32), (rows, dim))
    return torch.from_numpy(np.where(rng.random((rows, dim)) < odd, strange, found))


def some(rng: np.random.Generator, rows: int, items: int) -> list[np.ndarray]:
    """Item numbers for each row: none, some with repetition, or all."""
    counts = rng.choice([0, items // 2, 3 * items], rows)
    return [rng.integers(0, max(items, 1), count).astype(np.int32) for count in counts]


# --- Against the plain way -----------------------------------------------------------------------


@given(
    seed=SEEDS,
    rows=st.integers(0, 5),
    items=st.integers(0, 60),
    dim=st.sampled_from([1, 2, 3, 64]),
    k=st.integers(1, 70),
    odd=st.sampled_from([0.0, 0.02, 1.0]),
    masks=st.sampled_from(["none", "seen", "allowed", "both"]),
    at_once=st.sampled_from([1, 7, 64, 10**6]),
    threads=st.sampled_from([1, 3]),
)
def test_is_the_plain_way(seed, rows, items, dim, k, odd, masks, at_once, threads):
    rng = np.random.default_rng(seed)
    vectors, weight = numbers(rng, rows, dim, odd / 4), numbers(rng, items, dim, odd)
    seen = some(rng, rows, items) if masks in ("seen", "both") else None
    allowed = rng.random(items) < rng.random() if masks in ("allowed", "both") else None
    with pytest.MonkeyPatch.context() as patch:  # many stretches and threads for few items
        patch.setattr(scanning, "SCORES_AT_ONCE", at_once)
        patch.setattr(scanning, "ELEMENTS_AT_ONCE", at_once)
        patch.setattr(scanning, "PRODUCTS_AT_ONCE", at_once)
        patch.setattr(scanning, "CACHED_BYTES", 1_000)
        patch.setattr(scanning, "THREAD_PRODUCTS", at_once)
        found = top_k(vectors, weight, k, seen=seen, allowed=allowed, threads=threads)
    same(found, plainly(vectors, weight, k, seen, allowed))


@given(
    seed=SEEDS,
    rows=st.integers(0, 5),
    items=st.integers(0, 60),
    k=st.integers(1, 70),
    odd=st.sampled_from([0.0, 0.02]),
    at_once=st.sampled_from([1, 40, 10**6]),
)
def test_the_way_of_an_accelerator_gives_the_same_scores(seed, rows, items, k, odd, at_once):
    rng = np.random.default_rng(seed)
    vectors, weight = numbers(rng, rows, 3), numbers(rng, items, 3, odd)
    seen, allowed = some(rng, rows, items), rng.random(items) < 0.7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "SCORES_ON_DEVICE", at_once)
        found = topk._on_device(vectors, weight, k, seen, np.flatnonzero(allowed))
    plain = plainly(vectors, weight, k, seen, allowed)
    assert found.values.tolist() == plain.values.tolist()
    assert ((found.indices < 0) == (plain.indices < 0)).all()
    everything = plainly(vectors, weight, max(items, 1), seen, allowed)
    for row in range(rows):  # among equals its order is its own
        items_of = everything.indices[row].tolist()
        score_of = dict(zip(items_of, everything.values[row].tolist(), strict=True))
        listed = [item for item in found.indices[row].tolist() if item >= 0]
        assert len(set(listed)) == len(listed)
        assert [score_of[item] for item in listed] == found.values[row, : len(listed)].tolist()


@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_catalog_of_many_stretches(rows, threads, monkeypatch):
    monkeypatch.setattr(scanning, "SCORES_AT_ONCE", 20_000)
    monkeypatch.setattr(scanning, "CACHED_BYTES", 1_000)
    rng = np.random.default_rng(rows)
    vectors = torch.from_numpy(rng.standard_normal((rows, 64), np.float32))
    weight = torch.from_numpy(rng.standard_normal((70_000, 64), np.float32))
    seen = some(rng, rows, 500)
    found = top_k(vectors, weight, 50, seen=seen, threads=threads)
    scores = vectors @ weight.T
    for row, items in enumerate(seen):
        scores[row, items] = -torch.inf
    plain = scores.topk(50)
    torch.testing.assert_close(found.values, plain.values)
    assert (found.indices == plain.indices).float().mean() > 0.99  # but for nearly equal scores
    torch.testing.assert_close(scores.gather(1, found.indices), found.values)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("items", [7, 128, 511, 1_000, 2_049, 5_000])
@pytest.mark.parametrize("odd", [0.0, 0.3])
def test_the_best_lie_anywhere(rows, items, odd):
    """Also among the last, which fill no row when the bar is looked for, and beside NaN."""
    rng = np.random.default_rng(items)
    vectors, weight = numbers(rng, rows, 3), numbers(rng, items, 3, odd)
    weight[-3:] = torch.tensor([[9.0], [8.0], [9.0]])
    for k in (1, 5, 40):
        seen = some(rng, rows, items)
        same(top_k(vectors, weight, k, seen=seen), plainly(vectors, weight, k, seen))


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("shape", [(5_000,), (4_096, 1), (4_096, 3), (64, 700)])
def test_a_bound_is_just_below_the_best_of_groups(k, shape):
    """Of every row that is read at once, a group has the scores of one place in the last power."""
    scores = np.random.default_rng(k).standard_normal(shape, np.float32)
    scores[:40] = np.nan
    groups = 1 << (2 * k - 1).bit_length()
    bound = scanning._bound(scores, k)
    if len(scores) < 4 * groups:
        assert (bound == -np.inf).all()
        return
    wide = max(groups, 512) if len(shape) == 1 else groups
    whole = scores[: len(scores) // wide * wide].reshape(-1, groups, *shape[1:])
    best = np.sort(np.nanmax(whole, 0), 0)[groups - k]
    assert (np.nextafter(bound, np.float32(np.inf)) == best).all()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("rows", [1, 2])
def test_items_in_the_order_of_their_scores(order, rows, monkeypatch):
    """Ascending is the worst case: every score beats all before it."""
    monkeypatch.setattr(scanning, "SCORES_AT_ONCE", 8_192)
    weight = torch.from_numpy(np.arange(100_000, dtype=np.float32)[::order, None].copy())
    found = top_k(torch.ones(rows, 1), weight, 3)
    assert found.values.tolist() == [[99_999, 99_998, 99_997]] * rows
    last = [99_999, 99_998, 99_997] if order == 1 else [0, 1, 2]
    assert found.indices.tolist() == [last] * rows


@pytest.mark.parametrize("rows", [1, 2])
def test_few_scores_are_looked_at_again(rows, monkeypatch):
    """The bar rises with what is found; otherwise the answer is right, but slow."""
    seen_again = []
    plain_keys = scanning._keys

    def counted(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        seen_again.append(len(values))
        return plain_keys(values, places)

    monkeypatch.setattr(scanning, "SCORES_AT_ONCE", 8_192)
    monkeypatch.setattr(scanning, "_keys", counted)
    torch.manual_seed(0)
    top_k(torch.randn(rows, 4), torch.randn(400_000, 4), 100)
    # About 100 (1 + ln(400,000 / 8,192)) of a row would beat a bar that is always up to date.
    assert 490 * rows / 2 < sum(seen_again) < 3_000 * rows + 10_000


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("rows", [1, 2])
def test_of_equal_scores_the_lower_number_comes_first(threads, rows, monkeypatch):
    monkeypatch.setattr(scanning, "SCORES_AT_ONCE", 1_024)
    monkeypatch.setattr(scanning, "THREAD_PRODUCTS", 1_000)
    weight = torch.zeros(50_000, 1)
    weight[1::2] = -0.0
    found = top_k(torch.ones(rows, 1), weight, 100, threads=threads)
    assert found.indices.tolist() == [list(range(100))] * rows


# --- What is left out ----------------------------------------------------------------------------


def test_known_answers():
    weight = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, -1]])
    vectors = torch.tensor([[2.0, 1], [0, -1]])
    found = top_k(vectors, weight, 2, seen=[np.array([2, 2]), np.array([], int)])
    assert found.indices.tolist() == [[0, 1], [3, 0]]
    assert found.values.tolist() == [[2, 1], [1, 0]]
    only = top_k(vectors, weight, 2, allowed=torch.tensor([False, True, False, True]))
    assert only.indices.tolist() == [[1, 3], [3, 1]]


@pytest.mark.parametrize("rows", [1, 2])
def test_a_row_that_has_seen_everything_is_empty(rows):
    everything = [np.arange(5)] * rows
    found = top_k(torch.ones(rows, 2), torch.ones(5, 2), 3, seen=everything)
    assert found.indices.tolist() == [[-1] * 3] * rows
    assert found.values.isneginf().all()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("items", [9, 5_000])
def test_nan_is_never_listed_and_changes_nothing_else(rows, items):
    torch.manual_seed(0)
    vectors, weight = torch.randn(rows, 4), torch.randn(items, 4)
    bad = torch.randperm(items)[: items // 2]
    clean = top_k(vectors, weight, 8, seen=[bad.numpy()] * rows)
    weight[bad] = torch.nan
    same(top_k(vectors, weight, 8), clean)
    vectors[0] = torch.nan
    broken = top_k(vectors, weight, 8)
    assert broken.indices[0].tolist() == [-1] * 8
    # Alone in a row or beside others, the last digits of a score may differ.
    torch.testing.assert_close(broken.values[1:], clean.values[1:])


def test_infinite_scores_keep_their_places():
    weight = torch.tensor([[-torch.inf], [1.0], [torch.inf], [0.0]])
    found = top_k(torch.ones(1, 1), weight, 4)
    assert found.indices.tolist() == [[2, 1, 3, -1]]
    assert found.values.tolist() == [[torch.inf, 1, 0, -torch.inf]]


# --- Bounds and promises -------------------------------------------------------------------------


def peak(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_does_not_grow_with_the_catalog(threads):
    vectors = torch.randn(64, 8)
    small, large = torch.randn(50_000, 8), torch.randn(500_000, 8)
    assert small.nbytes * 10 == large.nbytes
    limit = 8_000_000 * threads  # scores of the large one: 128 MB
    assert peak(lambda: top_k(vectors, small, 100, threads=threads)) < limit
    assert peak(lambda: top_k(vectors, large, 100, threads=threads)) < limit
    ascending = torch.arange(500_000.0)[:, None].expand(-1, 8)
    assert peak(lambda: top_k(vectors.abs(), ascending, 100, threads=threads)) < limit


def test_the_same_call_gives_the_same_bits_and_writes_on_nothing():
    torch.manual_seed(0)
    vectors, weight = torch.randn(5, 24), torch.randn(30_000, 24, requires_grad=True)
    before = vectors.clone(), weight.detach().clone()
    once, twice = (top_k(vectors, weight, 20, threads=2) for _ in range(2))
    same(once, twice)
    assert not once.values.requires_grad
    assert torch.equal(vectors, before[0]) and torch.equal(weight, before[1])


def test_vectors_need_not_lie_side_by_side():
    torch.manual_seed(0)
    vectors, weight = torch.randn(4, 3), torch.randn(3, 200)
    apart = top_k(vectors[::2], weight.T, 7)
    together = top_k(vectors[::2].contiguous(), weight.T.contiguous(), 7)
    assert apart.indices.tolist() == together.indices.tolist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vectors": torch.ones(3)}, r"vectors \[3\]"),
        ({"vectors": torch.ones(1, 3)}, r"vectors \[1, 3\].* \[5, 2\]"),
        ({"weight": torch.ones(5, 2).double()}, "float64"),
        ({"vectors": torch.ones(1, 0), "weight": torch.ones(5, 0)}, "D above 0"),
        ({"weight": torch.ones(5, 2, device="meta")}, "on cpu, weight on meta"),
        ({"k": 0}, "k = 0"),
        ({"threads": 0}, "threads = 0"),
        ({"seen": []}, "seen has 0 rows, vectors 1"),
        ({"seen": [np.array([0, 5])]}, r"seen\[0\] has item 5, which is not in 0..4"),
        ({"seen": [np.array([-1, 3])]}, "item -1"),
        ({"seen": [np.array([0.5])]}, "float64"),
        ({"allowed": np.ones(4, bool)}, r"allowed is bool \[4\], must be bool \[5\]"),
        ({"allowed": torch.ones(5)}, "float32"),
    ],
)
def test_what_does_not_fit_is_refused(change, says):
    call = {"vectors": torch.ones(1, 2), "weight": torch.ones(5, 2), "k": 3} | change
    with pytest.raises(InputError, match=says):
        top_k(**call)
