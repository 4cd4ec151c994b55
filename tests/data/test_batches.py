"""Every event is learnt once per epoch, in rectangles that are nearly full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.batches import (
    Batch,
    cut,
    query_batches,
    token_batches,
    training_batches,
    training_windows,
)
from foretaste.data.sequences import Sequences, offsets_of

LENGTHS = st.lists(st.integers(0, 40), max_size=20)


def counted(lengths: list[int] | np.ndarray) -> Sequences:
    """Rows in which event ``n`` of the whole is item ``n`` at time ``1000 + n``."""
    offsets = offsets_of(np.asarray(lengths, np.int64))
    events = np.arange(offsets[-1])
    return Sequences(events.astype(np.int32), offsets, 1000 + events)


def realistic(rows: int) -> Sequences:
    """Lengths as in logs: most are short, some are very long."""
    lengths = np.random.default_rng(0).lognormal(3.5, 1.1, rows).astype(np.int64) + 1
    return counted(lengths)


def lines(batch: Batch) -> list[tuple[int, list[int], list[int]]]:
    """Row, items and targets of every line, padding apart."""
    assert batch.targets is not None
    found = []
    for row, items, targets, length in zip(
        batch.rows, batch.items, batch.targets, batch.lengths, strict=True
    ):
        found.append((int(row), items[:length].tolist(), targets[:length].tolist()))
        assert (items[length:] == 0).all()
        assert (targets[length:] == -1).all()
    return found


@given(LENGTHS, st.integers(1, 12), st.integers(1, 60), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_every_event_but_the_first_is_asked_once(
    lengths: list[int], length: int, budget: int, seed: int
) -> None:
    sequences = counted(lengths)
    batches = training_batches(sequences, length, budget, np.random.default_rng(seed))
    asked = []
    for batch in batches:
        assert batch.items.size <= max(budget, length)
        assert batch.items.size <= budget or len(batch.items) == 1
        assert batch.items.shape[1] == batch.lengths.max() <= length
        for row, items, targets in lines(batch):
            # Naive cutting: a stretch of the row, and the same stretch one event later.
            start = items[0] - int(sequences.offsets[row])
            assert items == sequences[row][start : start + len(items)].tolist()
            assert targets == sequences[row][start + 1 : start + 1 + len(items)].tolist()
            asked += targets
        assert batch.times is not None
        real = np.arange(batch.items.shape[1]) < batch.lengths[:, None]
        assert (batch.times == np.where(real, batch.items + 1000, 0)).all()
    firsts = set(sequences.offsets[:-1].tolist())
    assert sorted(asked) == [n for n in range(sequences.events) if n not in firsts]
    assert sum(batch.tokens for batch in batches) == len(asked)


@given(LENGTHS, st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_only_the_last_window(lengths: list[int], length: int) -> None:
    sequences = counted(lengths)
    rng = np.random.default_rng(0)
    batches = training_batches(sequences, length, 30, rng, every=False)
    found = sorted(line for batch in batches for line in lines(batch))
    expected = [(row, events.tolist()) for row, events in enumerate(sequences) if len(events) > 1]
    assert found == [(row, events[:-1][-length:], events[1:][-length:]) for row, events in expected]


@given(LENGTHS, st.integers(1, 12), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_query_batches_cover_every_row_that_is_not_empty(
    lengths: list[int], length: int, budget: int
) -> None:
    histories = counted(lengths)
    batches = list(query_batches(histories, length, budget))
    found = {}
    for batch in batches:
        assert batch.targets is None
        for row, items, real in zip(batch.rows, batch.items, batch.lengths, strict=True):
            found[int(row)] = items[:real].tolist()
    assert sum(len(batch.rows) for batch in batches) == len(found)
    assert found == {
        row: events[-length:].tolist() for row, events in enumerate(histories) if len(events)
    }


def test_without_times_there_are_none() -> None:
    (batch,) = query_batches(Sequences.from_lists([[3, 4], [], [5]]), 8, 100)
    assert batch.times is None
    assert batch.rows.tolist() == [2, 0]
    assert batch.items.tolist() == [[5, 0], [3, 4]]
    assert (batch.items.dtype, batch.lengths.dtype) == (np.int32, np.int32)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 100), st.booleans())
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_window_once_within_the_budget(
    lengths: list[int], budget: int, shuffled: bool
) -> None:
    array = np.array(lengths, np.int64)
    groups = token_batches(array, budget, np.random.default_rng(0) if shuffled else None)
    assert sorted(n for group in groups for n in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) * array[group].max() <= budget or len(group) == 1


def test_padding_is_under_two_percent() -> None:
    sequences = realistic(20_000)
    for batches in (
        training_batches(sequences, 200, 6_400, np.random.default_rng(0)),
        training_batches(sequences, 50, 6_400, np.random.default_rng(0), every=False),
        query_batches(sequences, 200, 6_400),
    ):
        cells = sum(batch.items.size for batch in batches)
        tokens = sum(batch.tokens for batch in batches)
        assert batches.padding == pytest.approx(1 - tokens / cells)
        assert batches.padding < 0.02


def test_nothing_is_made_per_event() -> None:
    sequences = realistic(5_000)
    batches = training_batches(sequences, 50, 6_400, np.random.default_rng(0))
    windows = batches.windows
    kept = [windows.rows, windows.starts, windows.lengths, *batches.groups]
    most = int((sequences.lengths // 50 + 2).sum())  # windows a row can be cut into
    assert len(windows) <= most
    assert sum(array.nbytes for array in kept) <= 4 * 8 * most < 4 * sequences.events
    assert batches.sequences is sequences
    largest = max(batch.items.size for batch in batches)
    assert largest <= 6_400


def test_epochs_differ_and_a_seed_repeats_them() -> None:
    sequences = realistic(200)

    def epoch(rng: np.random.Generator) -> list[bytes]:
        return [batch.items.tobytes() for batch in training_batches(sequences, 20, 400, rng)]

    rng = np.random.default_rng(7)
    first, second = epoch(rng), epoch(rng)
    assert first != second
    assert first == epoch(np.random.default_rng(7))


def test_cuts_fall_at_every_phase() -> None:
    rng = np.random.default_rng(0)
    sequences = counted([100])
    firsts = {int(training_windows(sequences, 10, rng).lengths[0]) for _ in range(300)}
    assert firsts == set(range(1, 11))


def test_nothing_to_learn() -> None:
    for lengths in ([], [0], [1, 0, 1]):
        batches = training_batches(counted(lengths), 10, 100, np.random.default_rng(0))
        assert list(batches) == []
        assert batches.padding == 0
    nothing = cut(counted([3]), training_windows(counted([1]), 5, np.random.default_rng(0)),
                  targets=True)  # fmt: skip
    assert nothing.items.shape == (0, 0)
    assert nothing.tokens == 0
