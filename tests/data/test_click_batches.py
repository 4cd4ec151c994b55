"""Every impression comes once, with exactly the history that it may see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.click_batches import ClickBatch, click_batches
from foretaste.data.clicks import Impressions
from foretaste.data.sequences import Sequences


def impressions(users: list[int], ends: list[int]) -> Impressions:
    count = len(users)
    return Impressions(
        np.array(users, np.int32),
        np.array(ends, np.int32),
        np.arange(count, dtype=np.int32) % 9 - 1,
        np.arange(count) % 3 == 0,
        np.arange(count),
    )


def seen(batch: ClickBatch, length: int) -> dict[int, tuple[list[int], list[int] | None]]:
    """By impression, the items and levels that a candidate sees."""
    found = {}
    for row, column in zip(*np.nonzero(batch.index >= 0), strict=True):
        end = batch.ends[row, column]
        assert end <= batch.lengths[row]
        begin = max(0, end - length)
        levels = None if batch.levels is None else batch.levels[row, begin:end].tolist()
        found[int(batch.index[row, column])] = (batch.items[row, begin:end].tolist(), levels)
    return found


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_histories_are_those_of_the_impressions(data):
    lengths = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=6))
    events = Sequences.from_lists(
        [[100 * row + place for place in range(n)] for row, n in enumerate(lengths)]
    )
    levels = np.arange(events.events, dtype=np.int8) if data.draw(st.booleans()) else None
    users = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=60))
    ends = [data.draw(st.integers(0, lengths[user])) for user in users]
    length, budget = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 60))
    seed = data.draw(st.none() | st.integers(0, 5))
    asked = impressions(users, ends)
    rng = None if seed is None else np.random.default_rng(seed)
    batches = click_batches(events, levels, asked, length, budget, rng)

    found: dict[int, tuple] = {}
    total = 0
    for batch in batches:
        mine = seen(batch, length)
        assert batch.tokens == len(mine)
        total += batch.tokens
        found |= mine
        real = batch.index >= 0
        index = batch.index[real]
        assert (batch.candidates[real] == asked.items[index]).all()
        assert (batch.labels[real] == asked.labels[index]).all()
        assert (batch.labels[~real] == 0).all()
        assert (batch.lengths < 2 * length + 1).all()
        rectangle = len(batch.lengths) * (batch.lengths + real.sum(1)).max()
        assert rectangle <= budget or len(batch.lengths) == 1
    assert total == len(found) == len(users)
    for index, (items, of_rating) in found.items():
        first = max(0, ends[index] - length)
        expected = events[users[index]][first : ends[index]]
        assert items == expected.tolist()
        if levels is not None:
            start = events.offsets[users[index]]
            assert of_rating == levels[start + first : start + ends[index]].tolist()


def test_neighbours_share_their_events():
    # 300 impressions of one user with 100 events each: 30,000 if they were cut one by one.
    events = Sequences.from_lists([list(range(400))])
    asked = impressions([0] * 300, list(range(100, 400)))
    batches = list(click_batches(events, None, asked, 100, 10_000))
    assert sum(int(batch.lengths.sum()) for batch in batches) < 900


def test_cuts_change_with_the_generator_and_with_nothing_else():
    events = Sequences.from_lists([list(range(50))] * 8)
    asked = impressions([n % 8 for n in range(300)], [n % 50 for n in range(300)])

    def cuts(seed: int | None) -> list[bytes]:
        rng = None if seed is None else np.random.default_rng(seed)
        return [b.index.tobytes() for b in click_batches(events, None, asked, 10, 200, rng)]

    assert cuts(1) == cuts(1) != cuts(2)
    assert cuts(None) == cuts(None)


def test_padding_is_little():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 400, 200)
    events = Sequences.from_lists([np.zeros(n, int).tolist() for n in lengths])
    users = np.repeat(np.arange(200), lengths)
    ends = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    asked = impressions(users.tolist(), ends.tolist())
    batches = list(click_batches(events, None, asked, 50, 3_000, rng))
    cells = sum(batch.items.size + batch.index.size for batch in batches)
    used = sum(int(batch.lengths.sum()) + batch.tokens for batch in batches)
    assert used / cells > 0.85


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_nothing_to_show(rng):
    events = Sequences.from_lists([[1, 2]])
    assert len(click_batches(events, None, impressions([], []), 5, 10, rng)) == 0
    nobody = Sequences.from_lists([[], []])
    (batch,) = click_batches(nobody, np.zeros(0, np.int8), impressions([1, 0], [0, 0]), 5, 99, rng)
    assert batch.tokens == 2
    assert batch.items.shape == (2, 1)
    assert batch.lengths.tolist() == [0, 0]
