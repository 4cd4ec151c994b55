"""The items that a user trains with in a round, and the windows of its history, in their numbers.

A user touches the rows of few items: those of its history and the negatives drawn for the round.
Only they are copied for it, which is exact, since no other row has a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from foretaste.data.sequences import Sequences
from foretaste.federated.core.randomness import draws


class LocalItems(NamedTuple):
    """Items of ``C`` users, at most ``U`` each.

    Attributes:
        rows: int64 ``[C, U]``, item numbers in ascending order, then -1.
        correction: float32 ``[C, U]``, added to logits: 0 for items of the history, minus the log
            of the odds of being drawn for the others, -inf where there is no item.
    """

    rows: np.ndarray
    correction: np.ndarray


class LocalWindows(NamedTuple):
    """Windows of ``C`` users, ``W`` each (maybe empty), of at most ``L`` events, newest first.

    Attributes:
        items: int32 ``[C, W, L]``, positions in the rows of ``LocalItems``; 0 on padding.
        targets: int64 ``[C, W, L]``, the item after each event likewise, -1 on padding.
        lengths: int64 ``[C, W]``.
        times: int64 ``[C, W, L]`` milliseconds, 0 on padding; None when unknown.
    """

    items: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray
    times: np.ndarray | None


def local_items(certain: Sequences, keys: np.ndarray, negatives: int, items: int) -> LocalItems:
    """The items of every row, and ``negatives`` drawn for its key (0: the whole catalog).

    Args:
        certain: items that are there whatever is drawn, such as those of the history; doubles
            count once.
        keys: uint64 ``[C]``.
        negatives: how many are drawn, with replacement.
        items: size of the catalog.
    """
    histories, users = certain, len(certain)
    if not negatives or negatives >= items:
        rows = np.broadcast_to(np.arange(items), (users, items))
        return LocalItems(rows, np.zeros((users, items), np.float32))
    own = np.full((users, int(histories.lengths.max(initial=0))), items)
    places = np.arange(histories.events) - histories.offsets[:-1][histories.rows]
    own[histories.rows, places] = histories.items
    drawn = (draws(keys, negatives) % np.uint64(items)).astype(np.int64)
    rows = _distinct(np.concatenate([own, drawn], 1), items)
    real = rows < items
    mine = np.zeros((users, rows.shape[1]), bool)
    mine[histories.rows, _positions(rows, histories.rows, histories.items, items)] = True
    odds = -np.expm1(negatives * np.log1p(-1 / items))
    correction = np.where(mine, 0.0, -np.log(odds))
    correction = np.where(real, correction, -np.inf).astype(np.float32)
    return LocalItems(np.where(real, rows, -1), correction)


def local_windows(histories: Sequences, rows: np.ndarray, length: int, count: int) -> LocalWindows:
    """The newest ``count`` windows of ``length`` events, in positions of ``rows``.

    Cut from the newest event back, without chance, so that every event is asked for once.
    """
    inputs = histories.lengths - 1
    back = np.arange(1, min(count, int(-(-inputs.max(initial=1) // length))) + 1)
    starts = inputs[:, None] - back * length  # [C, W]
    lengths = np.clip(np.minimum(starts + length, length), 0, None)
    starts = np.maximum(starts, 0) + histories.offsets[:-1, None]
    columns = np.arange(max(1, int(lengths.max(initial=0))))
    real = columns < lengths[..., None]  # [C, W, L]
    events = np.where(real, starts[..., None] + columns, 0)
    whole = int(rows.max(initial=0)) + 1
    local = _positions(np.where(rows >= 0, rows, whole), histories.rows, histories.items, whole)
    items = np.where(real, local[events], 0).astype(np.int32)
    following = np.minimum(events + 1, max(histories.events - 1, 0))
    targets = np.where(real, local[following], -1)
    times = None if histories.times is None else np.where(real, histories.times[events], 0)
    return LocalWindows(items, targets, lengths, times)


def _distinct(numbers: np.ndarray, none: int) -> np.ndarray:
    """Every row in ascending order without doubles, filled up with ``none``."""
    ordered = np.sort(numbers, 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = none
    ordered.sort(1)
    return ordered[:, : int((ordered < none).sum(1).max(initial=1))]


def _positions(rows: np.ndarray, of: np.ndarray, items: np.ndarray, none: int) -> np.ndarray:
    """Where each of ``items`` stands in row ``of`` of ``rows``, int64 ``[events]``."""
    users, width = rows.shape
    if width == none and bool((rows[:, -1] == none - 1).all()):
        return items.astype(np.int64)  # every row holds all items: numbers stay
    step = none + 1
    flat = (rows + np.arange(users)[:, None] * step).ravel()
    return np.searchsorted(flat, items + of * step) - of * width
