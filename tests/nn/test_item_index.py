"""The approximate index: what it finds is exact, and what it misses is measured."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.errors import InputError, MissingExtraError
from foretaste.nn.item_index import ItemIndex
from foretaste.nn.topk import top_k

pytest.importorskip("faiss")

KINDS = ["ivf", "hnsw"]


def clustered(items: int, dim: int = 16, queries: int = 20) -> tuple[Tensor, Tensor]:
    """Item vectors about 50 centres, of unequal lengths, and queries near items."""
    torch.manual_seed(0)
    weight = torch.randn(50, dim)[torch.randint(50, (items,))] + 0.5 * torch.randn(items, dim)
    weight *= torch.rand(items, 1) + 0.5
    return weight[torch.randint(items, (queries,))] + 0.3 * torch.randn(queries, dim), weight


@pytest.fixture(scope="module", params=KINDS)
def index(request) -> ItemIndex:
    return ItemIndex.build(clustered(4_000)[1], request.param)


def test_finds_nearly_all_and_scores_them_exactly(index: ItemIndex):
    vectors, weight = clustered(4_000)
    found = index.top_k(vectors, 20)
    torch.testing.assert_close(found.values, (vectors @ weight.T).gather(1, found.indices))
    assert (found.values.diff(dim=1) <= 0).all()
    exact = top_k(vectors, weight, 20).indices.tolist()
    rows = zip(found.indices.tolist(), exact, strict=True)
    by_hand = sum(len(set(mine) & set(other)) for mine, other in rows) / 400
    assert index.recall(vectors, 20) == by_hand > 0.9


def test_more_effort_misses_less(index: ItemIndex):
    vectors = clustered(4_000)[0]
    before = index.effort
    index.effort = 1
    little = index.recall(vectors, 50)
    reached = index.reach(0.99, vectors, 50)
    assert little < 0.99 <= reached == index.recall(vectors, 50)
    assert index.effort > 1
    index.effort = before


def test_seen_items_stay_out_and_are_made_up_for(index: ItemIndex):
    vectors, weight = clustered(4_000)
    seen = [row.numpy() for row in top_k(vectors, weight, 100).indices]  # just the best ones
    found = index.top_k(vectors, 10, seen=seen)
    assert (found.indices >= 0).all()
    for mine, other in zip(found.indices.tolist(), seen, strict=True):
        assert not set(mine) & set(other.tolist())


def test_a_row_that_comes_out_short_is_answered_exactly():
    vectors, weight = clustered(4_000)
    index = ItemIndex.build(weight, "ivf", effort=1)  # one list holds about a hundred items
    found, exact = index.top_k(vectors, 1_000), top_k(vectors, weight, 1_000)
    assert found.indices.tolist() == exact.indices.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("items", [1, 2, 15, 40])
def test_small_catalogs_and_long_lists(kind, items, capfd):
    vectors, weight = clustered(items, dim=3, queries=2)
    index = ItemIndex.build(weight, kind, effort=10_000)
    everything, none = np.arange(items), np.zeros(0, int)
    for seen in (None, [none, everything]):
        found, exact = index.top_k(vectors, 50, seen=seen), top_k(vectors, weight, 50, seen=seen)
        assert found.indices.tolist() == exact.indices.tolist()
    assert index.top_k(vectors[:0], 5).indices.shape == (0, 5)
    assert capfd.readouterr() == ("", "")  # faiss warns of few items on stderr


def test_a_query_of_nan_lists_nothing(index: ItemIndex):
    vectors = clustered(4_000)[0]
    vectors[1] = torch.nan
    found = index.top_k(vectors, 5)
    assert (found.indices[1] == -1).all()
    assert (found.indices[[0, 2]] >= 0).all()
    with pytest.raises(InputError, match="at least one query"):
        index.recall(vectors[1:2], 5)


def test_arrays_hold_the_whole_index(index: ItemIndex):
    vectors, weight = clustered(4_000)
    arrays = index.arrays()
    again = ItemIndex.from_arrays(arrays, weight)
    assert (again.kind, again.effort, len(again)) == (index.kind, index.effort, 4_000)
    mine, other = again.top_k(vectors, 30), index.top_k(vectors, 30)
    assert mine.indices.tolist() == other.indices.tolist()
    with pytest.raises(InputError, match="built from other item vectors"):
        ItemIndex.from_arrays(arrays, weight + 1)
    with pytest.raises(InputError, match="not what an index is saved as"):
        ItemIndex.from_arrays({"index": arrays["index"]}, weight)


def test_the_same_weight_gives_the_same_index():
    weight = clustered(2_000)[1]
    once, twice = (ItemIndex.build(weight).arrays()["index"] for _ in range(2))
    assert np.array_equal(once, twice)


def test_without_faiss_the_answer_is_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"foretaste\[ann\]"):
        ItemIndex.build(torch.ones(5, 2))


@pytest.mark.parametrize(
    ("weight", "options", "says"),
    [
        (torch.ones(5, 2), {"kind": "flat"}, 'kind = "flat" is unknown'),
        (torch.ones(5, 2), {"effort": 0}, "effort = 0"),
        (torch.ones(0, 2), {}, "at least one item"),
        (torch.ones(5), {}, r"\[5\]"),
        (torch.ones(5, 2).double(), {}, "float64"),
        (torch.full((5, 2), torch.nan), {}, "NaN"),
    ],
)
def test_what_cannot_be_indexed_is_refused(weight, options, says):
    with pytest.raises(InputError, match=says):
        ItemIndex.build(weight, **options)


def test_what_does_not_fit_is_refused(index: ItemIndex):
    vectors, _ = clustered(4_000)
    with pytest.raises(InputError, match=r"vectors \[20, 15\]"):
        index.top_k(vectors[:, :15], 5)
    with pytest.raises(InputError, match="item 4000"):
        index.top_k(vectors[:1], 5, seen=[np.array([4_000])])
    with pytest.raises(InputError, match="recall = 2"):
        index.reach(2, vectors, 5)
