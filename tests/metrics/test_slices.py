"""Every query and every target is in exactly one slice, and the borders are where they are said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.metrics import head_items, item_slices, user_slices


def test_user_slices_at_the_borders():
    slices = user_slices([0, 1, 4, 5, 19, 20, 99, 100, 5000])
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slices.items()} == {
        "cold": [0],
        "1-4": [1, 2],
        "5-19": [3, 4],
        "20-99": [5, 6],
        "100+": [7, 8],
    }


def test_item_slices_by_hand():
    # Ten items, so a head of two: item 4 (9) and, of the two with 7, the lower number, item 2.
    popularity = [1, 0, 7, 7, 9, 2, 0, 1, 1, 1]
    slices = item_slices([2, 3, 4, 1, -1], popularity)
    assert slices["head"].tolist() == [True, False, True, False, False]
    assert slices["tail"].tolist() == [False, True, False, True, False]
    assert slices["new"].tolist() == [False, False, False, False, True]


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.data())
def test_each_is_in_one_slice(popularity, data):
    items = data.draw(st.lists(st.integers(-1, len(popularity) - 1), max_size=20))
    for slices in (item_slices(items, popularity), user_slices(popularity)):
        assert (np.sum(list(slices.values()), axis=0) == 1).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), max_size=30))
def test_head_is_a_fifth_and_no_other_item_is_more_popular(popularity):
    head = head_items(popularity)
    counts = np.array(popularity, dtype=int)
    assert head.sum() == min(-(-len(counts) // 5), np.count_nonzero(counts))
    assert counts[head].min(initial=99) >= counts[~head].max(initial=0)


def test_refusals():
    with pytest.raises(ValueError, match="-3 events"):
        user_slices([2, -3])
    with pytest.raises(ValueError, match=r"0\.\.1"):
        item_slices([2], [1, 1])
