"""Sequence models that answer from what is kept of a user, one small step for each new event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.recommenders.core.base import ModelConfig, RunContext
from foretaste.recommenders.core.sequence import TOKENS_WHEN_ASKED, SequenceRecommender
from foretaste.recommenders.core.starting import load_source, start_from
from foretaste.recommenders.core.stepper import newest
from foretaste.recommenders.core.windowed import State, WindowedConfig, WindowedNetwork


class Advance(NamedTuple):
    """What a step came to.

    Attributes:
        records: for each user uint8 ``[m, record_bytes]``, of the new events only.
        vectors: float32 ``[B, D]``; zeros for a user without any event.
    """

    records: list[np.ndarray]
    vectors: Tensor


class IncrementalRecommender(SequenceRecommender):
    """A sequence model that can be asked from what is kept of its users."""

    Config: ClassVar[type[ModelConfig]] = WindowedConfig
    network: WindowedNetwork

    @property
    def record_bytes(self) -> int:
        """Bytes kept of an event."""
        return self.network.record_bytes

    @property
    def window(self) -> int:
        """Records of a user that can matter; older ones may be dropped."""
        return self.config.window

    @property
    def readable(self) -> int:
        """Events of a history that can matter."""
        return self.config.readable

    def item_vectors(self) -> Tensor:
        """Vectors ``[N, D]``; the score of an item is its product with a user's vector."""
        return self.network.catalog().detach()

    def advance(self, states: Sequence[np.ndarray], new: Sequences) -> Advance:
        """Add new events to what is kept of users, and ask after the last of them.

        Args:
            states: for each user uint8 ``[n, record_bytes]``, oldest first; no rows for a user
                of whom nothing is kept.
            new: one row of new events for each user, maybe empty. Only the last ``readable`` of
                them can matter, and only those get records.

        Raises:
            InputError: when the model reads times and ``new`` has none.
        """
        network = self.network
        if network.training:  # asking every module takes longer than a step
            network.eval()
        weight = network.items.weight
        records = [np.empty((0, network.record_bytes), np.uint8)] * len(states)
        on_cpu = np.zeros((len(states), weight.shape[1]), np.float32)
        vectors = torch.from_numpy(on_cpu).to(weight.device)  # on a CPU the same numbers
        readable = self.readable
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(new.lengths.tolist()):
            rows_of[min(length, readable)].append(row)
        for count, rows in rows_of.items():
            if count > 1 or not weight.is_cpu:
                some = max(1, TOKENS_WHEN_ASKED // max(count, 1))  # attention takes their square
                for first in range(0, len(rows), some):
                    part = rows[first : first + some]
                    self._together(states, new, part, count, records, vectors)
                continue
            step = network.stepper()
            for row in rows:
                if count:
                    on_cpu[row], made = step.extend(states[row], *_event(new, row))
                    records[row] = made[None]
                elif len(states[row]):
                    on_cpu[row] = step.query(states[row])
        return Advance(records, vectors)

    @torch.inference_mode()
    def _together(
        self,
        states: Sequence[np.ndarray],
        new: Sequences,
        rows: list[int],
        count: int,
        records: list[np.ndarray],
        vectors: Tensor,
    ) -> None:
        """Users with equally many new events, through the network in one batch."""
        if count == 0:  # nothing is new: the newest kept event asks again
            rows = [row for row in rows if len(states[row])]
            if rows:
                vectors[rows] = self.network.query(self._state([states[row] for row in rows]))
            return
        # The window of a new event holds window - 1 earlier ones.
        state = self._state([newest(states[row], self.window - 1) for row in rows])
        items, times = _newest_events(new, rows, count, vectors.device)
        found, fresh = self.network.advance(state.records, state.lengths, items, times)
        vectors[rows] = found
        for row, made in zip(rows, fresh.cpu().numpy(), strict=True):
            records[row] = made

    def _state(self, kept: list[np.ndarray]) -> State:
        """The state of several users, the shorter ones padded at the front."""
        lengths = np.array([len(rows) for rows in kept], np.int64)
        longest = int(lengths.max(initial=0))
        if len(kept) == 1:
            together = np.ascontiguousarray(kept[0])[None]
        else:
            together = np.zeros((len(kept), longest, self.record_bytes), np.uint8)
            for row, records in enumerate(kept):
                together[row, longest - len(records) :] = records
        device = self.network.items.weight.device
        return State(torch.from_numpy(together).to(device), torch.from_numpy(lengths).to(device))

    def _readable(self) -> int:
        return self.config.readable

    def _begin(self, split: Split, run: RunContext) -> WindowedNetwork:
        network = self._network(split.items)
        assert isinstance(network, WindowedNetwork)
        if self.config.start_from is not None:
            source = load_source(self, self.config.start_from)
            start_from(network, source.network, split.train, run.seed)
        return network


def _event(new: Sequences, row: int) -> tuple[int, int | None]:
    """The newest item of a row, and its time if times are known."""
    last = new.offsets[row + 1] - 1
    return int(new.items[last]), None if new.times is None else int(new.times[last])


def _newest_events(
    new: Sequences, rows: list[int], count: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The last ``count`` items and times of some rows, ``[B, count]``."""
    events = new.offsets[1:][rows, None] - np.arange(count, 0, -1)
    items = torch.from_numpy(new.items[events]).to(device)
    times = None if new.times is None else torch.from_numpy(new.times[events]).to(device)
    return items, times
