"""Cosines by hand, and against the dense formula."""

from types import SimpleNamespace

import numpy as np
import pytest

from foretaste.data.sequences import Sequences
from foretaste.recommenders import itemknn
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.sparse import user_items
from foretaste.recommenders.itemknn import ItemKNN


def dense_cosine(split, shrink: float) -> np.ndarray:
    chosen = user_items(split.train, split.items).toarray()
    norms = np.sqrt(chosen.sum(0))
    similarity = chosen.T @ chosen / (np.outer(norms, norms) + shrink)
    np.fill_diagonal(similarity, 0)
    return similarity


def test_cosine_by_hand(split_of):
    # Train: {0, 1}, {0, 1, 2}, {0}: n = 3, 2, 1. Repeats of one user count once.
    split = split_of([[0, 1, 0, 8, 9], [0, 1, 2, 8, 9], [0, 8, 9]])
    assert split.train[0].tolist() == [0, 1, 0]
    model = ItemKNN(shrink=0)
    model.fit(split)
    found = model.similarity.toarray()
    assert found[0, 1] == pytest.approx(2 / np.sqrt(6))
    assert found[1, 2] == found[2, 1] == pytest.approx(1 / np.sqrt(2))
    assert found[2, 2] == 0
    scores = model._score(Sequences.from_lists([[0, 2, 0]]))
    assert scores[0, 1] == pytest.approx(2 / np.sqrt(6) + 1 / np.sqrt(2))


@pytest.mark.parametrize("shrink", [0.0, 5.0])
def test_all_neighbours_are_the_dense_formula(shrink: float, ordinary):
    model = ItemKNN(shrink=shrink, neighbours=1000)
    model.fit(ordinary)
    np.testing.assert_allclose(
        model.similarity.toarray(), dense_cosine(ordinary, shrink), rtol=1e-5, atol=1e-7
    )


def test_only_the_nearest_are_kept(ordinary):
    model = ItemKNN(shrink=0, neighbours=4)
    model.fit(ordinary)
    whole, kept = dense_cosine(ordinary, 0), model.similarity.toarray()
    for row, full in zip(kept, whole, strict=True):
        count = min(4, int((full > 0).sum()))
        np.testing.assert_allclose(np.sort(row)[::-1][:count], np.sort(full)[::-1][:count], 1e-5)
        assert (row > 0).sum() == count


def test_blocks_change_nothing(ordinary, monkeypatch):
    whole = ItemKNN(neighbours=5)
    whole.fit(ordinary)
    monkeypatch.setattr(itemknn, "PAIRS_AT_ONCE", 7 * ordinary.items)
    parts = ItemKNN(neighbours=5)
    parts.fit(ordinary)
    np.testing.assert_array_equal(parts.similarity.toarray(), whole.similarity.toarray())


def test_a_wide_catalog_of_which_little_is_chosen_together_takes_few_blocks(monkeypatch):
    items, users = 99_000, 33_000
    train = Sequences(np.arange(items, dtype=np.int32), 3 * np.arange(users + 1))
    nearest, blocks = itemknn.nearest, []

    def counted(matrix, count: int):
        blocks.append(matrix.shape)
        return nearest(matrix, count)

    monkeypatch.setattr(itemknn, "nearest", counted)
    model = ItemKNN(shrink=0)
    model._fit(SimpleNamespace(train=train, items=items), RunContext())  # type: ignore[arg-type]
    assert len(blocks) < 10  # a block of a fixed number of items would be one of 2,475
    assert model.similarity.nnz == 2 * items
