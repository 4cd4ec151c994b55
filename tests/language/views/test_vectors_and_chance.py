"""Views from vectors, and views without meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError
from foretaste.language.views.drawn import (
    AugmentConfig,
    AugmentedViews,
    RandomConfig,
    RandomViews,
    unseen,
)
from foretaste.language.views.neighbours import (
    ReceivedConfig,
    ReceivedViews,
    TitlesConfig,
    TitleViews,
    continued,
    farthest,
)

from .scripted import catalog, request


def test_titles_follow_like_titles():
    maker = TitleViews(TitlesConfig(more=2, share=1.0, other=9, far=0.5), catalog())
    garden, kitchen = maker.make(request([0, 1], [3, 4])).rows
    assert garden.future.tolist()[:3] == [0, 1, 2]
    assert garden.rephrasing.tolist() == [2, 2]
    assert not set(garden.counterfactual.tolist()) & {0, 1, 2}
    assert kitchen.future.tolist()[:3] == [3, 4, 5]


def test_received_vectors_tell_what_goes_together():
    """Items on a circle: the nearest are the next ones, the farthest the opposite ones."""
    angles = 2 * np.pi * np.arange(12) / 12
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    maker = ReceivedViews(ReceivedConfig(more=2, share=1.0, other=3, far=0.3))
    (view,) = maker.make(request([0])._replace(vectors=vectors)).rows
    assert set(view.future.tolist()) <= {0, 1, 11, 2, 10}
    assert view.future[0] == 0
    assert view.rephrasing.tolist() in ([1], [11])
    assert set(view.counterfactual.tolist()) == {5, 6, 7}
    with pytest.raises(InputError, match="none came down"):
        maker.make(request([0]))


def test_each_item_is_heard_before_the_next():
    vectors = np.eye(4, dtype=np.float32)
    vectors[1] = [0.8, 0.6, 0, 0]
    vectors[2] = [0, 0.96, 0.28, 0]
    taste = vectors[0]
    allowed = np.array([False, True, True, True])
    # 2 has nothing of 0; it follows 1, which has.
    assert continued(vectors, taste, allowed, 2) == [1, 2]
    assert continued(vectors, taste, allowed, 9) == [1, 2, 3]


@given(
    st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=1, max_size=30),
    st.floats(0.01, 1),
)
def test_the_farthest_are_the_first_of_a_stable_order(items, share):
    scores = np.array([[score] for score, _ in items], np.float32)
    allowed = np.array([allowed for _, allowed in items])
    allowed[0] = True
    some = np.flatnonzero(allowed)
    order = some[np.argsort(scores[some, 0], kind="stable")]
    found = farthest(scores, np.ones(1, np.float32), allowed, share)
    assert found.tolist() == sorted(order[: max(1, int(share * len(some)))])


def test_items_of_which_nothing_is_known_are_in_no_view():
    vectors = np.eye(6, dtype=np.float32)
    vectors[3:] = 0
    maker = ReceivedViews(ReceivedConfig(more=5, other=5, far=1.0, share=1.0))
    known, unknown = maker.make(request([0], [4])._replace(vectors=vectors)).rows
    assert set(np.concatenate(known).tolist()) <= {0, 1, 2}
    assert all(not len(one) for one in unknown)


@given(
    st.lists(st.integers(0, 29), min_size=1, max_size=40),
    st.integers(0, 2**64 - 1),
    st.sampled_from(["random", "augment"]),
)
def test_views_by_chance_are_of_the_catalog_and_of_the_seed(history, seed, kind):
    maker = (
        RandomViews(RandomConfig(), 30) if kind == "random" else AugmentedViews(AugmentConfig(), 30)
    )
    asked = request(history)._replace(seeds=np.array([seed], np.uint64))
    (first,), (second,) = maker.make(asked).rows, maker.make(asked).rows
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
        assert ((one >= 0) & (one < 30)).all()
    assert not set(first.counterfactual.tolist()) & set(history)
    if kind == "random":
        assert first.future[: len(history)].tolist() == history or not len(first.future)
        assert len(first.rephrasing) in (0, len(history))
    else:
        for one in (first.future, first.rephrasing):
            assert len(one) >= 1
            assert not set(one.tolist()) - set(history)


def test_the_three_augmentations():
    maker = AugmentedViews(AugmentConfig(crop=0.6, mask=0.3, reorder=0.6), 100)
    history, rng = np.arange(20, dtype=np.int32), np.random.default_rng(0)
    cropped = maker._cropped(history, rng)
    assert cropped.tolist() == list(range(cropped[0], cropped[0] + 12))
    masked = maker._masked(history, rng)
    assert len(masked) == 14 and (np.diff(masked) > 0).all()
    moved = maker._reordered(history, rng)
    assert sorted(moved.tolist()) == history.tolist()
    changed = np.flatnonzero(moved != history)
    assert 1 < changed.max() - changed.min() < 12


def test_drawn_items_are_uniform_over_what_is_not_held():
    rng = np.random.default_rng(1)
    history = np.array([3, 3, 7])
    counts = np.zeros(10)
    for _ in range(4_000):
        drawn = unseen(history, 10, 2, rng)
        assert len(set(drawn.tolist())) == 2
        counts[drawn] += 1
    assert counts[3] == counts[7] == 0
    np.testing.assert_allclose(counts[counts > 0], 1_000, rtol=0.15)
    assert len(unseen(np.arange(10), 10, 5, rng)) == 0
    assert len(unseen(np.arange(2), 1_000, 50, rng)) == 50


def test_texts_are_needed_for_views_of_titles():
    bare = Catalog.from_items(catalog().frame["item_id"], None)
    with pytest.raises(InputError, match="views.kind"):
        TitleViews(TitlesConfig(), bare)
