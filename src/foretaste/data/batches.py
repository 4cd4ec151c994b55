"""Batches that fill a token budget with nearly no padding, cut lazily from sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from foretaste.data.sequences import Sequences


class Batch(NamedTuple):
    """A rectangle of sequences of (nearly) equal length, padded on the right with item 0.

    Padding on the right never reaches a real event through causal attention; what is not causal
    reads ``lengths``. ``B`` sequences of at most ``L`` events.

    Attributes:
        items: int32 ``[B, L]``, what the model reads.
        targets: int32 ``[B, L]``, the item after each event, -1 on padding; None when asking.
        lengths: int32 ``[B]``.
        times: int64 ``[B, L]`` milliseconds or positions, 0 on padding; None when unknown.
        rows: int64 ``[B]``, the row of the sequences that each line was cut from.
    """

    items: np.ndarray
    targets: np.ndarray | None
    lengths: np.ndarray
    times: np.ndarray | None
    rows: np.ndarray

    @property
    def tokens(self) -> int:
        """Events in the batch, padding apart."""
        return int(self.lengths.sum())


@dataclass(frozen=True)
class Windows:
    """Stretches of sequences: row, first event and length of each; int64 ``[windows]``."""

    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, index: np.ndarray) -> Windows:
        """These windows, in this order."""
        return Windows(self.rows[index], self.starts[index], self.lengths[index])


def training_windows(
    sequences: Sequences, length: int, rng: np.random.Generator, *, every: bool = True
) -> Windows:
    """Cut every row into windows of at most ``length`` events that have a next event.

    With ``every``, the windows of a row together ask for each event but the first exactly once:
    the cuts fall at a random phase that changes with ``rng``, so over epochs an event is seen
    with contexts of all lengths. Otherwise only the last window of a row is used, as many
    papers do. Rows with fewer than two events give nothing.
    """
    inputs = sequences.lengths - 1  # the last event is only a target
    rows = np.flatnonzero(inputs > 0)
    inputs, starts = inputs[rows], sequences.offsets[:-1][rows]
    if not every:
        lengths = np.minimum(inputs, length)
        return Windows(rows, starts + inputs - lengths, lengths)
    phase = np.where(inputs > length, rng.integers(1, length + 1, len(rows)), length)
    count = 1 + np.maximum(0, -(-(inputs - phase) // length))
    window = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    of_row = np.repeat(np.arange(len(rows)), count)
    begin = np.where(window == 0, 0, phase[of_row] + (window - 1) * length)
    end = np.minimum(phase[of_row] + window * length, inputs[of_row])
    return Windows(rows[of_row], starts[of_row] + begin, end - begin)


def token_batches(
    lengths: np.ndarray, budget: int, rng: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Group windows into batches whose rectangle (padding counted) stays within ``budget`` tokens.

    Windows of equal length come together, so that padding is nearly nothing; with ``rng`` the
    companions within a length and the order of the batches are random, without it the order is
    by length. A window longer than the budget gets a batch of its own.

    Returns:
        Index arrays into ``lengths``; together they hold every window once.
    """
    order = np.argsort(lengths, kind="stable")
    if rng is not None:
        shuffled = rng.permutation(len(lengths))
        order = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    ordered = lengths[order]
    batches, first = [], 0
    while first < len(order):
        # The widest rectangle: rows first..last have at most ordered[last] columns.
        reach = first + max(1, budget // max(int(ordered[first]), 1))
        sizes = ordered[first:reach].astype(np.int64) * np.arange(1, len(ordered[first:reach]) + 1)
        count = max(1, int(np.searchsorted(sizes, budget, side="right")))
        batches.append(order[first : first + count])
        first += count
    if rng is not None:
        rng.shuffle(batches)
    return batches


def cut(sequences: Sequences, windows: Windows, *, targets: bool) -> Batch:
    """The batch that these windows make; ``[B, L]`` with L the longest of them."""
    width = int(windows.lengths.max(initial=0))
    columns = np.arange(width)
    real = columns < windows.lengths[:, None]  # [B, L]
    events = np.where(real, windows.starts[:, None] + columns, 0)
    items = np.where(real, sequences.items[events], 0).astype(np.int32, copy=False)
    following = None
    if targets:
        following = np.where(real, sequences.items[events + 1], -1).astype(np.int32, copy=False)
    times = None if sequences.times is None else np.where(real, sequences.times[events], 0)
    return Batch(items, following, windows.lengths.astype(np.int32), times, windows.rows)


@dataclass(frozen=True)
class Batches:
    """Batches of one pass, each cut when it is reached."""

    sequences: Sequences
    windows: Windows
    groups: list[np.ndarray]
    targets: bool

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Batch]:
        for group in self.groups:
            yield cut(self.sequences, self.windows.pick(group), targets=self.targets)

    @property
    def padding(self) -> float:
        """Share of the rectangles' cells that hold no event."""
        lengths = self.windows.lengths
        cells = sum(len(group) * int(lengths[group].max()) for group in self.groups)
        return 1 - int(lengths.sum()) / cells if cells else 0.0


def training_batches(
    sequences: Sequences, length: int, budget: int, rng: np.random.Generator, *, every: bool = True
) -> Batches:
    """One epoch of training batches, in random order."""
    windows = training_windows(sequences, length, rng, every=every)
    return Batches(sequences, windows, token_batches(windows.lengths, budget, rng), targets=True)


def query_batches(histories: Sequences, length: int, budget: int) -> Batches:
    """The last ``length`` events of every non-empty history, by length; ``rows`` tells whose."""
    lengths = np.minimum(histories.lengths, length)
    rows = np.flatnonzero(lengths > 0)
    windows = Windows(rows, histories.offsets[1:][rows] - lengths[rows], lengths[rows])
    return Batches(histories, windows, token_batches(windows.lengths, budget), targets=False)
