"""Popularity by hand: whole and windowed counts."""

import numpy as np
import pytest

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.recommenders.popularity import DAY, Popularity


def test_counts_of_the_last_days(split_of):
    # An event an hour: the last training event of the long row is in hour 7.
    split = split_of([[0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4, 3, 4, 1, 8, 9]])
    everything = Popularity()
    everything.fit(split)
    np.testing.assert_array_equal(everything.counts, split.popularity)
    recent = Popularity(window_days=3 / 24)  # hours 5, 6 and 7
    recent.fit(split)
    shown = {split.catalog.item_ids[i]: int(c) for i, c in enumerate(recent.counts)}
    assert shown == {"i0000": 0, "i0001": 1, "i0002": 0, "i0003": 1, "i0004": 1}
    # Who has no history gets what is popular now, not what ever was.
    assert recent.recommend([[]], 1).item_ids[0] != ["i0000"]
    assert everything.recommend([[]], 1).item_ids[0] == ["i0000"]


def test_a_window_as_long_as_the_log_is_the_log(ordinary):
    recent = Popularity(window_days=10_000)
    recent.fit(ordinary)
    np.testing.assert_array_equal(recent.counts, ordinary.popularity)


def test_a_window_needs_a_clock(ordinary):
    train = ordinary.train
    for times in (None, np.arange(train.events)):
        without = Sequences(train.items, train.offsets, times)
        with pytest.raises(InputError, match="window_days = 2 needs times"):
            Popularity(window_days=2)._inside(without)
    assert DAY == 24 * 60 * 60 * 1000
