"""A network with windowed attention, for one event of one user at a time, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from foretaste.errors import InputError
from foretaste.nn.stepping import Norm, array, number

if TYPE_CHECKING:
    from foretaste.recommenders.core.windowed import WindowedNetwork

TIME_BYTES = 4
TIME_SHIFT = 10
"""Times are kept in units of 2^10 ms from 1970: four bytes last until 2109."""

NO_TIMES = (
    "this model reads the times of events, and they are not given. "
    "Give times, or train with model.use_times = false."
)


class Stepper:
    """A network for one event of one user at a time, in NumPy (see ``nn/stepping.py``)."""

    def __init__(self, network: WindowedNetwork) -> None:
        """Takes the weights as they are."""
        self.layers, self.widths = network.layer_steps(), network.widths()
        self.items, self.item_bytes = array(network.items.weight), network.item_bytes
        self.window, self.reads_time = network.window, network.reads_time
        self.bytes, self.kept = network.record_bytes, sum(self.widths)
        self.norm = Norm(network.norm)
        self.first = None if self.widths[0] else network.first_layer().numpy()  # [N, R]

    def extend(
        self, records: np.ndarray, item: int, time: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One more event.

        Args:
            records: uint8 ``[n, R]``, the events before it.
            item: its number.
            time: in milliseconds; None for a network that does not read times.

        Returns:
            The vector float32 ``[D]`` that scores the catalog, and the record uint8 ``[R]``.

        Raises:
            InputError: when the network reads times and none is given.
        """
        records = newest(records, self.window - 1)
        fresh, place = np.zeros(self.bytes, np.uint8), 0
        age = self._ages(records, time) if self.reads_time else None
        x = self.items[item]
        for layer, width in zip(self.layers, self.widths, strict=True):
            if width:
                known = records[:, place : place + width]
            else:
                assert self.first is not None
                items = number(records[:, self.kept : self.kept + self.item_bytes])
                known = self.first.take(items, 0)
            x, made = layer(x, known, age)
            fresh[place : place + width] = made[:width]
            place += width
        fresh[place : place + self.item_bytes] = _bytes(item, self.item_bytes)
        if time is not None and self.reads_time:
            place += self.item_bytes
            fresh[place : place + TIME_BYTES] = _bytes(_coarse(time), TIME_BYTES)
        return self.norm(x), fresh

    def query(self, records: np.ndarray) -> np.ndarray:
        """The vector ``[D]`` after the newest of ``records``."""
        newest, place = records[-1:], self.kept + self.item_bytes
        time = None
        if self.reads_time:
            time = int(number(newest[:, place : place + TIME_BYTES])[0]) << TIME_SHIFT
        item = int(number(newest[:, self.kept : place])[0])
        return self.extend(records[:-1], item, time)[0]

    def _ages(self, records: np.ndarray, time: int | None) -> np.ndarray:
        if time is None:
            raise InputError(NO_TIMES)
        first = self.kept + self.item_bytes
        units = np.empty(len(records) + 1, np.int64)
        units[:-1] = number(records[:, first : first + TIME_BYTES])
        units[-1] = _coarse(time)
        between = np.maximum(units[-1] - units, 0).astype(np.float32)
        return np.frexp(between)[1]


def newest(records: np.ndarray, count: int) -> np.ndarray:
    """The last ``count`` of records, or as many as there are."""
    return records[max(0, len(records) - count) :]


def _coarse(time: int) -> int:
    return min(max(time >> TIME_SHIFT, 0), 2 ** (8 * TIME_BYTES) - 1)


def _bytes(value: int, width: int) -> np.ndarray:
    return np.frombuffer(value.to_bytes(width, "little"), np.uint8)
