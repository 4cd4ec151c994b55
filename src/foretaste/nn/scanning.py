"""Reading a catalog for its best items on a processor, at the speed of reading.

Scores are made for a stretch of places at a time, in a buffer that stays in cache, and compared
with the score that a place has to beat to be among the best so far. Only the few that beat it are
looked at again: nothing else is sorted or kept, so a catalog costs little more than reading it.

A score and its place are kept as one integer, a key. Keys have no equals, so which items are listed
for given scores does not depend on how the catalog was divided among stretches and threads.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SCORES_AT_ONCE = 262_144
"""Scores held at a time by a thread (1 MB): they stay in cache until they are looked through."""
PRODUCTS_AT_ONCE = 262_000
"""Multiplications of one call to a matrix product. Up to 2^18 OpenBLAS, NumPy's own on most
machines, starts no threads, which beside ours and PyTorch's wait for each other. Some of its
kernels start none up to a million; there larger calls would be a fifth faster, and elsewhere up to
three times slower."""
ELEMENTS_AT_ONCE = 400_000
"""Elements of one call to a matrix-vector product, which above some 460,000 starts threads too."""
CACHED_BYTES = 26_000_000
"""Item vectors up to this size are probably still in the last cache since the last call."""
THREAD_ELEMENTS = 16_000_000
"""Elements of item vectors that a thread must have to read before it is worth starting."""
THREAD_PRODUCTS = 100_000_000
"""The same in multiplications: products of many rows are shared out less well than reading is."""
REDUCED_AT_ONCE = 512
"""Scores that a reduction over rows takes side by side: with a few, calls cost more than scores."""
LOWEST = np.float32(-np.inf)


class _Buffers(threading.local):
    """Scores and marks of a thread, used again: new memory would be slower than the scores are."""

    def __init__(self) -> None:
        self.scores, self.marks = np.empty(0, np.float32), np.empty(0, np.bool_)

    def of(self, size: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Both with ``size`` elements, whatever they hold."""
        if len(self.scores) < size:
            self.scores, self.marks = np.empty(size, np.float32), np.empty(size, np.bool_)
        return self.scores[:size], self.marks[:size]


Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_buffers = _Buffers()


class Catalog(NamedTuple):
    """Item vectors, and which of them may be found.

    Attributes:
        items: float32 ``[N, D]``.
        chosen: int64 ``[M]``, ascending: place i stands for item ``chosen[i]``. None: for item i.
    """

    items: Floats
    chosen: Ints | None

    @property
    def places(self) -> int:
        """M, how many items may be found."""
        return len(self.items) if self.chosen is None else len(self.chosen)

    def block(self, first: int, last: int) -> Floats:
        """The vectors of the places ``first..last-1``."""
        if self.chosen is None:
            return self.items[first:last]
        return self.items[self.chosen[first:last]]


def best_places(
    queries: Floats, catalog: Catalog, k: int, hidden: Ints, threads: int
) -> tuple[Floats, Ints]:
    """Scores float32 ``[B, k]`` and places int64 ``[B, k]``, best first; -inf where none is left.

    Args:
        queries: float32 ``[B, D]``.
        catalog: whose places are looked through.
        k: places per row, at least 1.
        hidden: int64 ``[S]``, ``place * B + row`` of what is left out, in any order.
        threads: at most so many.
    """
    rows, places = len(queries), catalog.places
    elements = places * queries.shape[1]
    worth = max(elements // THREAD_ELEMENTS, elements * rows // THREAD_PRODUCTS)
    threads = min(threads, 1 + worth)
    if rows == threads == 1 and places <= SCORES_AT_ONCE:
        return _from_one_stretch(queries, catalog, k, hidden)
    kept, hidden = min(k, max(places, 1)), np.sort(hidden)
    if threads == 1:
        found = _scan(queries, catalog, kept, hidden, (0, places))
    else:
        spans = [(places * i // threads, places * (i + 1) // threads) for i in range(threads)]
        with ThreadPoolExecutor(threads) as pool:  # NumPy's products let other threads work
            jobs = [pool.submit(_scan, queries, catalog, kept, hidden, span) for span in spans]
            of_threads = [job.result() for job in jobs]
        found = [np.sort(np.concatenate(each)) for each in zip(*of_threads, strict=True)]
    keys = np.full((rows, k), NO_KEY)
    for row, mine in enumerate(found):
        count = min(len(mine), k)
        keys[row, :count] = mine[::-1][:count]
    return _values(keys), 0xFFFF_FFFF - (keys & 0xFFFF_FFFF)


def _from_one_stretch(query: Floats, catalog: Catalog, k: int, hidden: Ints) -> tuple[Floats, Ints]:
    """``best_places`` of one row whose scores are held at once: a step of a service.

    There is no second stretch to remember anything for; of 12,000 items that is a quarter of the
    time.
    """
    places = catalog.places
    scores, marks = _buffers.of(places)
    with np.errstate(all="ignore"):
        _Scores(query, catalog)(0, places, scores[:, None])
        if len(hidden):
            scores[hidden] = -np.inf
        bound = _bound(scores, min(k, max(places, 1)))
        found = np.greater(scores, bound, out=marks).nonzero()[0]
    best = scores[found]
    order = (-best).argsort(kind="stable")[:k]
    if len(order) == k:
        return best[order][None], found[order][None]
    values, indices = np.full((1, k), -np.inf, np.float32), np.zeros((1, k), np.int64)
    values[0, : len(order)], indices[0, : len(order)] = best[order], found[order]
    return values, indices


def _scan(
    queries: Floats, catalog: Catalog, k: int, hidden: Ints, span: tuple[int, int]
) -> list[Ints]:
    """The keys of the best ``k`` of the places in ``span``, for each row, ascending."""
    rows, (start, stop) = len(queries), span
    size = _power(min(SCORES_AT_ONCE // rows // 2 + 1, stop - start))
    line, marks = _buffers.of(size * rows)
    scores = line.reshape(size, rows)
    score = _Scores(queries, catalog)
    best = _Best(rows, k, marks)
    with np.errstate(all="ignore"):  # infinite and NaN scores are dealt with, not warned of
        for first in range(start, stop, size):
            last = min(first + size, stop)
            score(first, last, scores)
            if last - first < size:
                scores[last - first :] = -np.inf
            if len(hidden):
                low, high = np.searchsorted(hidden, (first * rows, last * rows))
                line[hidden[low:high] - first * rows] = -np.inf
            best.take(scores, first)
    return best.keys()


class _Scores:
    """Scores of any stretch of a catalog, by the fastest way for so many rows."""

    def __init__(self, queries: Floats, catalog: Catalog) -> None:
        (self.rows, dim), self.catalog = queries.shape, catalog
        self.queries = np.ascontiguousarray(queries.T)  # [D, B], the faster way round
        at_once = ELEMENTS_AT_ONCE if self.rows == 1 else PRODUCTS_AT_ONCE
        self.step = max(32, at_once // queries.size)
        # One dot product an item takes longer than BLAS's matrix-vector product from cache, but it
        # waits less for memory: 1.1 times the time of reading there, where BLAS takes 1.4 times.
        far = catalog.items.nbytes > CACHED_BYTES and catalog.chosen is None
        self.by_item = self.rows == 1 and dim >= 64 and far

    def __call__(self, start: int, stop: int, out: Floats) -> None:
        """Scores of the places ``start..stop-1`` into the first rows of ``out`` ``[size, B]``."""
        if self.by_item:
            line = out.reshape(-1)[: stop - start]
            np.vecdot(self.catalog.block(start, stop), self.queries.reshape(-1), out=line)
            return
        for first in range(start, stop, self.step):
            last = min(first + self.step, stop)
            into = out[first - start : last - start]
            np.dot(self.catalog.block(first, last), self.queries, out=into)


class _Best:
    """The best places of some rows so far, and the score that the next one has to beat.

    Places come in ascending order, so one that only equals the bar has lost to a lower number.
    """

    def __init__(self, rows: int, k: int, marks: npt.NDArray[np.bool_]) -> None:
        self.rows, self.k = rows, k
        self.room = 2 * k * rows + 4096
        self.kept: list[Ints] = [np.zeros(0, np.int64)] * rows  # keys
        self.scores: list[Floats] = []
        self.found: list[Ints] = []
        self.waiting = 0
        self.bar = np.full(rows, -np.inf, np.float32)
        # A bar is repeated, so that one comparison runs over many scores of few rows.
        width = min(len(marks) // rows, _power(1024 // rows)) if rows > 1 else 1
        self.bars = np.tile(self.bar, width)
        self.marks = marks.reshape(-1, len(self.bars))

    def take(self, scores: Floats, first: int) -> None:
        """Look through the scores ``[size, B]`` of the places from ``first`` on.

        ``size`` is a power of two; -inf stands where there is no item.
        """
        found = self._above(scores) if self.waiting or self.kept[0].size else None
        if found is None or len(found) > self.room:
            self._raise(_bound(scores, self.k))
            found = self._above(scores)
        self.scores.append(scores.reshape(-1)[found])
        self.found.append(found + first * self.rows if first else found)
        self.waiting += len(found)
        if self.waiting > self.room:
            self._settle()

    def keys(self) -> list[Ints]:
        """The keys of the best ``k`` places of each row, ascending."""
        return [np.sort(mine)[-self.k :] for mine in self._joined()]

    def _above(self, scores: Floats) -> Ints:
        """Where in ``scores`` laid out flat those above the bar of their row stand."""
        np.greater(scores.reshape(self.marks.shape), self.bars, out=self.marks)
        return self.marks.reshape(-1).nonzero()[0]

    def _raise(self, bound: Floats) -> None:
        """Pass by the places whose score is not above ``bound`` ``[B]`` from now on."""
        np.maximum(self.bar, bound, out=self.bar)
        self.bars.reshape(-1, self.rows)[:] = self.bar

    def _settle(self) -> None:
        """Keep the best ``k`` of what was kept and what waits, and raise the bar to the last."""
        lowest = np.full(self.rows, NO_KEY)
        for row, mine in enumerate(self._joined()):
            if len(mine) >= self.k:
                mine = np.partition(mine, len(mine) - self.k)[len(mine) - self.k :]
                lowest[row] = mine[0]
            self.kept[row] = mine
        self.scores, self.found, self.waiting = [], [], 0
        self._raise(_values(lowest))

    def _joined(self) -> list[Ints]:
        """For each row the keys that were kept and those of what waits, in no order."""
        if not self.waiting:
            return self.kept
        found = self.found[0] if len(self.found) == 1 else np.concatenate(self.found)
        scores = self.scores[0] if len(self.scores) == 1 else np.concatenate(self.scores)
        keys = _keys(scores, found // self.rows)
        if self.rows == 1:
            new = [keys]
        else:
            rows = (found % self.rows).astype(np.int16)
            ends = np.cumsum(np.bincount(rows, minlength=self.rows))
            new = np.split(keys[np.argsort(rows, kind="stable")], ends[:-1])
        both = zip(self.kept, new, strict=True)
        return [np.concatenate(pair) if pair[0].size else pair[1] for pair in both]


def _bound(scores: Floats, k: int) -> Floats:
    """For each column of ``scores`` ``[size, ...]`` a value just below its k-th best at most.

    The scores are divided into groups, each with its maximum; the k-th best of these is at most the
    k-th best of all. -inf where there are too few scores for it to be of use. Scores at the end
    that fill no row of a reduction are not looked at.
    """
    groups, columns = _power(2 * k), scores.shape[1:]
    if len(scores) < 4 * groups:
        return np.full(columns, -np.inf, np.float32)
    width = math.prod(columns)
    wide = max(groups, _power(min(REDUCED_AT_ONCE // width, len(scores) // 4) // 2 + 1))
    whole = scores[: len(scores) // wide * wide].reshape(-1, wide * width)
    highest = np.fmax.reduce(whole, axis=0, initial=-np.inf)  # NaN counts as -inf
    if wide > groups:
        highest = np.fmax.reduce(highest.reshape(-1, groups * width), axis=0)
    highest = highest.reshape(groups, *columns)
    highest.partition(groups - k, axis=0)
    return np.nextafter(highest[groups - k], LOWEST)  # its equals may be of the best


def _power(number: int) -> int:
    """The lowest power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()


# The higher score has the higher key, and of equal scores the lower place. The bits of a float are
# ordered as those of an integer are, but for the negative ones, which run backwards.


def _keys(values: Floats, places: Ints) -> Ints:
    bits = _turned((values + np.float32(0)).view(np.int32))  # -0 becomes 0
    return (bits.astype(np.int64) << 32) | (0xFFFF_FFFF - places)


def _values(keys: Ints) -> Floats:
    return _turned((keys >> 32).astype(np.int32)).view(np.float32)


def _turned(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return bits ^ ((bits >> 31) & 0x7FFF_FFFF)


NO_KEY = int(_keys(np.full(1, -np.inf, np.float32), np.zeros(1, np.int64))[0])
"""The key of a score of -inf: no place is kept with it."""
