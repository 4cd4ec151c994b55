"""One code for each item: who keeps the nearest code, and where the others go."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foretaste.codes.books import Ways
from foretaste.errors import InputError

FIRST_WAYS = 16
"""Codes that are tried first for an item that cannot keep its nearest one."""
WIDEST = 256
"""Codes that are tried for an item of its own; beyond them a crowd looks together."""
WAYS_AT_ONCE = 4_000_000
"""Ways held at a time; with more, items are served in groups."""
PATIENCE = 64
"""Rounds in which everybody asks for the very nearest free code. After them those who lost ask for
as many codes further as there were others before them, so that a collapsed codebook, where all
want the same codes in the same order, takes no round for each item."""
MOST_BITS = 64


class Dealt(NamedTuple):
    """Codes after dealing.

    Attributes:
        table: int32 ``[n, L]``; no code is dealt more often than ``places`` allows.
        ranks: int64 ``[n]``, which of the places of its code an item has, from 0.
        moved: bool ``[n]``, items that did not keep their nearest code.
    """

    table: np.ndarray
    ranks: np.ndarray
    moved: np.ndarray


def check_bits(sizes: tuple[int, ...]) -> None:
    """Raise InputError when codes of levels of these sizes are no number of 64 bits."""
    bits = sum(float(np.log2(size)) for size in sizes)
    if bits > MOST_BITS:
        raise InputError(
            f"codes of {len(sizes)} levels of {max(sizes)} take {bits:.0f} bits, at most "
            f"{MOST_BITS} are possible. Take fewer levels or fewer codes."
        )


def keys_of(table: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """A number uint64 ``[n]`` for each row of codes ``[n, L]``, in the rows' own order.

    Raises:
        InputError: when that takes more than 64 bits.
    """
    check_bits(sizes)
    keys = np.zeros(len(table), np.uint64)
    for level, size in enumerate(sizes):
        keys = keys * np.uint64(size) + table[:, level].astype(np.uint64)
    return keys


def deal(
    nearest: np.ndarray,
    costs: np.ndarray,
    sizes: tuple[int, ...],
    points: Callable[[np.ndarray], Tensor],
    ways: Callable[[Tensor, int], Ways],
    *,
    places: int = 1,
    taken: np.ndarray | None = None,
) -> Dealt:
    """Deal codes so that each is given at most ``places`` times.

    Of the items with one nearest code, those nearest to it keep it (of equal ones the first). Each
    of the others takes the nearest code that is still free; where several want one, it goes to the
    item that it costs least. Where more want the same codes than ``WIDEST``, the rest of them take
    what is nearest to their middle. What was ``taken`` before stays as it is.

    Args:
        nearest: int ``[n, L]``, the nearest code of each item.
        costs: ``[n]``, squared distance of each item to what its nearest code stands for.
        sizes: codes of each level.
        points: gives the points ``[m, D]`` of some item numbers ``[m]``.
        ways: gives the best codes of points; ``Books.ways``.
        places: how often a code may be given.
        taken: int ``[t, L]``, codes of items that have theirs already.

    Raises:
        InputError: when there are fewer free places than items.
    """
    before = np.zeros((0, len(sizes)), np.int32) if taken is None else taken
    free = places * float(np.prod([float(size) for size in sizes])) - len(before)
    if len(nearest) > free:
        raise InputError(
            f"{len(nearest):,} items for {free:,.0f} free codes. Take more levels or more codes."
        )
    keys = keys_of(nearest, sizes)
    used, counts = np.unique(keys_of(before, sizes), return_counts=True)
    order = np.lexsort((costs, keys))
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = _rank_within(keys[order]) + _looked_up(keys[order], used, counts)
    moved = ranks >= places
    table = nearest.astype(np.int32)
    movers = np.flatnonzero(moved)
    if len(movers):
        kept = np.concatenate([keys[~moved], keys_of(before, sizes)])
        given = _Places(*np.unique(kept, return_counts=True), places)
        home = np.unique(keys[movers], return_inverse=True)[1]
        table[movers], ranks[movers] = _move(points(movers), home, ways, sizes, given)
    return Dealt(table, ranks, moved)


def free_ranks(
    table: np.ndarray, ranks: np.ndarray, taken: np.ndarray, sizes: tuple[int, ...], places: int
) -> np.ndarray:
    """Ranks int64 ``[n]`` of dealt codes ``[n, L]``, past those that are taken.

    ``deal`` counts the codes that were given, as if their ranks were the first ones; in a part of a
    catalog some of these are free and later ones are not.

    Args:
        table: what was dealt.
        ranks: the same.
        taken: int ``[t, L + 1]``, codes given before and, last, their ranks.
        sizes: codes of each level.
        places: how often a code may be given.
    """
    keys, row = np.unique(keys_of(table, sizes), return_inverse=True)
    given = np.zeros((len(keys), places), bool)
    own = np.isin(old := keys_of(taken, sizes), keys)
    given[np.searchsorted(keys, old[own]), taken[own, -1]] = True
    # The free ranks of each code after the given ones, which are as many as ``deal`` counted.
    return np.argsort(~given, axis=1, kind="stable")[row, ranks]


class _Places(NamedTuple):
    """How often each code was given, by key, ascending; and how often it may be."""

    keys: np.ndarray
    counts: np.ndarray
    limit: int

    def with_more(self, keys: np.ndarray, counts: np.ndarray) -> _Places:
        both, inverse = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        summed = np.bincount(inverse, np.concatenate([self.counts, counts])).astype(np.int64)
        return _Places(both, summed, self.limit)


class _Classes(NamedTuple):
    """Points that ask together, one class after the other.

    Attributes:
        points: ``[c, D]``, where each class stands.
        members: int64 ``[n]``, the points of each class in turn, in the order in which codes are
            given to them.
        need: int64 ``[c]``, points of each class.
    """

    points: Tensor
    members: np.ndarray
    need: np.ndarray


def _equal(points: Tensor) -> _Classes:
    """Equal points (items without a text, say) as classes, so that their number costs nothing."""
    distinct, own = torch.unique(points, dim=0, return_inverse=True)
    own = own.cpu().numpy()
    return _Classes(distinct, np.argsort(own, kind="stable"), np.bincount(own))


def _crowds(points: Tensor, home: np.ndarray) -> _Classes:
    """Points of one home as classes that stand at their means, the nearest to it first."""
    _, own, need = np.unique(home, return_inverse=True, return_counts=True)
    at = torch.from_numpy(own).to(points.device)
    means = points.new_zeros(len(need), points.shape[1]).index_add_(0, at, points)
    means /= torch.from_numpy(need).to(points.device)[:, None]
    far = (points - means[at]).square().sum(1).cpu().numpy()
    return _Classes(means, np.lexsort((far, own)), need)


def _move(
    points: Tensor,
    home: np.ndarray,
    ways: Callable[[Tensor, int], Ways],
    sizes: tuple[int, ...],
    places: _Places,
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and ranks of points whose nearest codes, ``home`` by number, are full.

    Each looks among its own ``WIDEST`` best codes. Those of a crowd that is larger than that, and
    who find nothing there, look together, from their middle: as many ways for each of them would
    take the square of the crowd.
    """
    table = np.empty((len(points), len(sizes)), np.int32)
    ranks = np.empty(len(points), np.int64)
    done = np.zeros(len(points), bool)
    for crowded in (False, True):
        left = np.flatnonzero(~done & (crowded or np.bincount(home)[home] <= WIDEST * places.limit))
        if not len(left):
            continue
        some = points[torch.from_numpy(left).to(points.device)]
        classes = _crowds(some, home[left]) if crowded else _equal(some)
        starts, need = np.cumsum(classes.need) - classes.need, classes.need.copy()
        width, widest = (WIDEST, None) if crowded else (FIRST_WAYS, WIDEST)
        while widest is None or width <= widest:
            asked = _widths(need, width, places.limit)
            waiting = np.flatnonzero((need > 0) & ((asked <= widest) if widest else True))
            if not len(waiting):
                break
            for rows, wide in _groups(waiting, asked):
                found = ways(classes.points[torch.from_numpy(rows).to(points.device)], wide)
                codes = found.codes.cpu().numpy()  # [c, W, L]
                given = _serve(codes, found.costs.cpu().numpy(), sizes, need[rows], places)
                owner = rows[given.row]
                # Each class gives what it got to its members in turn.
                at = left[classes.members[starts[owner] + _rank_within(owner)]]
                table[at], ranks[at], done[at] = codes[given.row, given.way], given.rank, True
                got = np.bincount(owner, minlength=len(need))
                need, starts = need - got, starts + got
                places = places.with_more(given.keys, np.ones(len(given.keys), np.int64))
            width *= 4
    return table, ranks


def _widths(need: np.ndarray, width: int, limit: int) -> np.ndarray:
    """How many ways each class asks for: enough for its members, in powers of four."""
    enough = 4 ** np.ceil(np.log(need // limit + 1) / np.log(4) - 1e-9).astype(np.int64)
    return np.maximum(enough, width)


def _groups(waiting: np.ndarray, widths: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Classes that ask for the same number of ways, as many as are held at a time."""
    for wide in np.unique(widths[waiting]).tolist():
        rows = waiting[widths[waiting] == wide]
        step = max(1, WAYS_AT_ONCE // wide)
        yield from ((rows[first : first + step], wide) for first in range(0, len(rows), step))


class _Given(NamedTuple):
    """One entry for every place given: to which row, by which of its ways; rows ascend."""

    row: np.ndarray
    way: np.ndarray
    rank: np.ndarray
    keys: np.ndarray


def _serve(
    codes: np.ndarray, costs: np.ndarray, sizes: tuple[int, ...], need: np.ndarray, places: _Places
) -> _Given:
    """Give free codes among these ways ``[c, W, L]`` until nobody can be served."""
    count, width, levels = codes.shape
    keys, numbers = np.unique(keys_of(codes.reshape(-1, levels), sizes), return_inverse=True)
    numbers = numbers.reshape(count, width)
    filled = _looked_up(keys, places.keys, places.counts)
    need, given, behind = need.copy(), [], np.zeros(count, np.int64)
    for number in itertools.count():
        room = places.limit - filled[numbers]  # [c, W]
        total = room.sum(1)
        skip = np.clip(behind, 0, np.maximum(total - need, 0)) * (number >= PATIENCE)
        ahead = np.cumsum(room, axis=1) - room
        asked = np.clip((skip + need)[:, None] - ahead, 0, room)
        asked -= np.clip(skip[:, None] - ahead, 0, room)
        row, way = np.nonzero(asked)
        if not len(row):
            break
        amount = np.repeat(np.arange(len(row)), asked[row, way])
        row, way = row[amount], way[amount]  # one entry for every place asked for
        wanted = numbers[row, way]
        order = np.lexsort((row, costs[row, way], wanted))
        rank = _rank_within(wanted[order]) + filled[wanted[order]]
        served = rank < places.limit
        behind[:] = 0
        np.maximum.at(behind, row[order], rank - places.limit)
        chosen = order[served]
        given.append((row[chosen], way[chosen], rank[served], wanted[chosen]))
        filled += np.bincount(wanted[chosen], minlength=len(keys))
        need -= np.bincount(row[chosen], minlength=count)
    if not given:
        nothing = np.zeros(0, np.int64)
        return _Given(nothing, nothing, nothing, np.zeros(0, np.uint64))
    row, way, rank, wanted = (np.concatenate(part) for part in zip(*given, strict=True))
    order = np.lexsort((costs[row, way], row))
    return _Given(row[order], way[order], rank[order], keys[wanted[order]])


def _rank_within(ordered: np.ndarray) -> np.ndarray:
    """For each entry of an array in which equal ones lie together: how many equal lie before it."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    begins = np.r_[True, ordered[1:] != ordered[:-1]]
    starts = np.flatnonzero(begins)
    return np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))


def _looked_up(keys: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each key among ``known`` (ascending), 0 where it is not."""
    if not len(known):
        return np.zeros(len(keys), np.int64)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, values[place], 0)
