"""Many variable-length lists of items in three flat arrays (compressed sparse rows)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from foretaste.errors import InputError


@dataclass(frozen=True)
class Sequences:
    """Rows of items, each in time order: row ``i`` is ``items[offsets[i]:offsets[i + 1]]``.

    Never one row per prefix, never a padded matrix: batches are cut from it lazily.

    Attributes:
        items: int32 ``[events]``, item numbers (-1 for an item outside the catalog, only in
            the targets of queries).
        offsets: int64 ``[rows + 1]``, first is 0 and last is ``events``.
        times: int64 ``[events]`` milliseconds since 1970, or the position within the row where
            the log has no clock, or None where time plays no part.
    """

    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None = None

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int]]) -> Sequences:
        """Rows from Python lists or arrays of item numbers, without times."""
        rows = [np.asarray(row, dtype=np.int32) for row in lists]
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        items = np.concatenate(rows) if rows else np.empty(0, np.int32)
        return cls(items, offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]  # counts from the end when negative; IndexError when outside
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def events(self) -> int:
        """How many events all rows hold together."""
        return len(self.items)

    @property
    def lengths(self) -> np.ndarray:
        """Events of each row, int64 ``[rows]``."""
        return self.offsets[1:] - self.offsets[:-1]  # np.diff takes five times as long for a few

    @property
    def rows(self) -> np.ndarray:
        """The row of each event, int64 ``[events]``."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def repeats(self) -> np.ndarray:
        """Events whose item came earlier in the same row, bool ``[events]``."""
        width = int(self.items.max(initial=0)) + 2  # -1 needs a number of its own as well
        pairs = np.repeat(np.arange(len(self)) * width, self.lengths)
        pairs += self.items
        # Rows are in order already, so a stable sort (which merges runs) has little left to do.
        order = np.argsort(pairs, kind="stable")
        pairs = pairs[order]
        again = np.zeros(self.events, bool)
        again[order[1:]] = pairs[1:] == pairs[:-1]
        return again

    def take(self, rows: np.ndarray) -> Sequences:
        """These rows, in this order, as a new object."""
        starts, lengths = self.offsets[:-1][rows], self.lengths[rows]
        return self._gather(starts, lengths)

    def first(self, length: int) -> Sequences:
        """At most the first ``length`` events of every row."""
        return self._gather(self.offsets[:-1], np.minimum(self.lengths, length))

    def last(self, length: int) -> Sequences:
        """At most the last ``length`` events of every row."""
        lengths = np.minimum(self.lengths, length)
        return self._gather(self.offsets[1:] - lengths, lengths)

    def where(self, keep: np.ndarray) -> Sequences:
        """The events for which the boolean ``keep`` ``[events]`` holds; rows stay, maybe empty."""
        kept = np.flatnonzero(keep)
        times = None if self.times is None else self.times[kept]
        return Sequences(self.items[kept], np.searchsorted(kept, self.offsets), times)

    def renumbered(self, numbers: np.ndarray) -> Sequences:
        """The same rows with every item ``i`` called ``numbers[i]``; -1 stays -1."""
        table = np.append(numbers, -1).astype(np.int32)  # index -1 reads the appended -1
        return Sequences(table[self.items], self.offsets, self.times)

    def _gather(self, starts: np.ndarray, lengths: np.ndarray) -> Sequences:
        offsets = offsets_of(lengths)
        events = np.repeat(starts - offsets[:-1], lengths)
        events += np.arange(offsets[-1])
        times = None if self.times is None else self.times[events]
        return Sequences(self.items[events], offsets, times)

    def save(self, folder: Path) -> None:
        """Write the arrays as ``.npy`` files, which ``load`` maps into memory."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "items.npy", self.items)
        np.save(folder / "offsets.npy", self.offsets)
        if self.times is None:
            (folder / "times.npy").unlink(missing_ok=True)  # of an earlier save
        else:
            np.save(folder / "times.npy", self.times)

    @classmethod
    def load(cls, folder: Path) -> Sequences:
        """Map the arrays of ``save`` into memory, read-only: nothing is read before it is used.

        Raises:
            InputError: when the files are missing, cut short or do not fit together.
        """
        try:
            items, offsets = _mapped(folder / "items.npy"), _mapped(folder / "offsets.npy")
            has_times = (folder / "times.npy").exists()
            times = _mapped(folder / "times.npy") if has_times else None
        except (OSError, EOFError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{folder}: not a saved Sequences folder ({reason}).") from error
        bounded = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(items)
        if not bounded or (np.diff(offsets) < 0).any():
            raise InputError(f"{folder}: offsets.npy does not fit items.npy. Save it again.")
        if times is not None and len(times) != len(items):
            raise InputError(f"{folder}: times.npy does not fit items.npy. Save it again.")
        return cls(items, offsets, times)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """CSR offsets int64 ``[rows + 1]`` of rows with these lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _mapped(path: Path) -> np.ndarray:
    array = open_memmap(path, mode="r")
    if array.ndim != 1 or array.dtype.kind != "i":
        raise ValueError(f"{path.name} is not one row of whole numbers")
    return array
