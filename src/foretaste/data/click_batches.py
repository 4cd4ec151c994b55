"""Batches of impressions: neighbouring ones of a user share one stretch of events.

The histories of a user's impressions overlap nearly whole. Cut one by one, a hundred impressions
with a hundred events each are 10,000 events to encode; side by side on one stretch they are 200.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from foretaste.data.batches import token_batches
from foretaste.data.clicks import Impressions
from foretaste.data.sequences import Sequences


class ClickBatch(NamedTuple):
    """``B`` stretches of at most ``L`` events, padded right, with at most ``C`` candidates each.

    Attributes:
        items: int32 ``[B, L]``, 0 on padding.
        levels: int8 ``[B, L]``, ratings as in ``ClickTask.levels``; None without ratings.
        lengths: int32 ``[B]``.
        candidates: int32 ``[B, C]``; -1 is an item outside the vocabulary.
        ends: int32 ``[B, C]``: the history of a candidate is the events before this place.
        labels: float32 ``[B, C]``, 0 on padding.
        index: int64 ``[B, C]``, which impression it is; -1 on padding.
    """

    items: np.ndarray
    levels: np.ndarray | None
    lengths: np.ndarray
    candidates: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    @property
    def tokens(self) -> int:
        """Impressions in the batch: what a mean loss is divided by."""
        return int((self.index >= 0).sum())


@dataclass(frozen=True)
class _Stretches:
    """Runs of impressions, in the order of ``ClickBatches.order``; int64 ``[stretches]`` each."""

    first: np.ndarray  # place of the first impression in the order
    count: np.ndarray
    begin: np.ndarray  # the first event, a place in ``events.items``
    length: np.ndarray


@dataclass(frozen=True)
class ClickBatches:
    """Batches of one pass, each cut when it is reached."""

    events: Sequences
    levels: np.ndarray | None
    impressions: Impressions
    order: np.ndarray
    stretches: _Stretches
    groups: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[ClickBatch]:
        return (self._cut(group) for group in self.groups)

    def _cut(self, group: np.ndarray) -> ClickBatch:
        stretches, shown = self.stretches, self.impressions
        begin, length = stretches.begin[group], stretches.length[group]
        column = np.arange(max(int(length.max()), 1))
        real = column < length[:, None]  # [B, L]
        events = np.where(real, begin[:, None] + column, 0)
        count = stretches.count[group]
        column = np.arange(int(count.max()))
        asked = column < count[:, None]  # [B, C]
        index = self.order[np.where(asked, stretches.first[group][:, None] + column, 0)]
        ends = self.events.offsets[shown.users[index]] + shown.ends[index] - begin[:, None]
        return ClickBatch(
            _at(self.events.items, events, real).astype(np.int32, copy=False),
            None if self.levels is None else _at(self.levels, events, real),
            length.astype(np.int32),
            np.where(asked, shown.items[index], 0).astype(np.int32),
            np.where(asked, ends, 0).astype(np.int32),
            np.where(asked, shown.labels[index], 0).astype(np.float32),
            np.where(asked, index, -1),
        )


def click_batches(
    events: Sequences,
    levels: np.ndarray | None,
    impressions: Impressions,
    length: int,
    budget: int,
    rng: np.random.Generator | None = None,
) -> ClickBatches:
    """Batches that hold every impression once, each with at least its last ``length`` events.

    A stretch holds a user's impressions whose histories end within ``length`` events, and the
    events that they can see, fewer than ``2 * length``. Where the cuts fall is random with ``rng``,
    as are the order of the batches and the companions in them; stretches of like size come
    together, so that padding is little.

    Args:
        events: rows of the impressions' users.
        levels: int8 ``[events]``, beside ``events.items``, or None.
        impressions: what is asked.
        length: events of a history that are read, the last ones.
        budget: events and candidates of a batch, padding counted.
        rng: None for asking: the batches are then always the same.
    """
    order = np.lexsort((impressions.ends, impressions.users))
    users, ends = impressions.users[order].astype(np.int64), impressions.ends[order]
    phase = np.zeros(len(events), np.int64)
    if rng is not None:
        phase = rng.integers(0, length, len(events))
    slot = (ends + phase[users]) // length
    new = np.ones(len(order), bool)
    new[1:] = (users[1:] != users[:-1]) | (slot[1:] != slot[:-1])
    # A moment at which thousands of candidates are shown is divided as well.
    place = np.arange(len(order))
    since = place - np.maximum.accumulate(np.where(new, place, 0))
    new |= since % max(1, budget // 4) == 0
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, len(order)))
    last = first + count - 1
    begin = np.maximum(ends[first] - length, 0)
    widths = ends[last] - begin
    stretches = _Stretches(first, count, events.offsets[users[first]] + begin, widths)
    groups = token_batches(widths + count, budget, rng)
    return ClickBatches(events, levels, impressions, order, stretches, groups)


def _at(values: np.ndarray, places: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The values at these places, 0 where they are not real; there may be none at all."""
    found = np.zeros(places.shape, values.dtype)
    found[real] = values[places[real]]
    return found
