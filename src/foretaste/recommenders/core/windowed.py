"""Networks with attention over a sliding window, asked from histories or from what is kept.

The window is part of the model's definition, in training too. So what is kept of an event (its
record) never changes, and an answer from records equals the answer from the whole history, however
old the user, deeper layers included.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.errors import InputError
from foretaste.nn.attention import Cached, IncrementalLayer
from foretaste.nn.collective import CollectiveConfig
from foretaste.nn.key_values import bytes_for, from_bytes, to_bytes
from foretaste.nn.stepping import LayerStep
from foretaste.recommenders.core.sequence import AttentionConfig, SequenceNetwork
from foretaste.recommenders.core.stepper import NO_TIMES, TIME_BYTES, TIME_SHIFT, Stepper

ITEMS_AT_ONCE = 1_024
"""Items whose records are made at a time: a router gives every one a number for each pool entry."""


class WindowedConfig(AttentionConfig):
    """What every model with windowed attention has besides.

    Attributes:
        max_length: events of a training window. Longer than ``window``, so that training knows
            contexts as full as those that are asked about.
        window: events that an event attends to, itself included. Through its layers a model reads
            ``layers * (window - 1) + 1`` events.
        attention: ``full`` keys and values, or ``collective`` (CollectiveKV), of which a few
            bytes are kept for each event.
        collective: how the collective ones are made.
        first_layer: of a model with collective attention. Keys and values of its first layer depend
            on the item alone, so records hold none of them: they are looked up by the item's
            number. ``full`` keeps that table as it is, which loses nothing and takes
            ``8 * dim`` bytes an item, once for all users; ``collective`` makes it small, too.
        start_from: run folder of a trained model of the same kind, width and window, whose
            weights training starts from. Collective keys and values then begin as what is nearest
            to its full ones.
    """

    max_length: int = Field(default=100, ge=1)
    window: int = Field(default=50, ge=1)
    attention: Literal["full", "collective"] = "full"
    collective: CollectiveConfig = CollectiveConfig()
    first_layer: Literal["full", "collective"] = "full"
    start_from: Path | None = None

    @model_validator(mode="after")
    def _collective_fits(self) -> Self:
        problem = self.collective.problem(self.dim, self.heads)
        if self.attention == "collective" and problem:
            raise ValueError(problem)
        return self

    def attention_of(self, layer: int) -> Literal["full", "collective"]:
        """The keys and values of a layer, counted from 0."""
        return self.first_layer if not layer and self.attention == "collective" else self.attention

    @property
    def readable(self) -> int:
        """Events of a history that can matter."""
        return self.layers * (self.window - 1) + 1


class State(NamedTuple):
    """What is kept of ``B`` users, aligned at their newest events.

    Attributes:
        records: uint8 ``[B, n, R]``, the oldest first; at most ``window`` each.
        lengths: int64 ``[B]``, how many of them are real.
        vectors: ``[B, D]``, what the newest events ask with, when it is known.
    """

    records: Tensor
    lengths: Tensor
    vectors: Tensor | None = None


class WindowedNetwork(SequenceNetwork):
    """A network whose layers look back over a window. It can be asked from records.

    The record of an event holds, layer by layer, what its ``KeyValues`` keep, then the item's
    number and, where the model reads it, the time. Where attention is collective, the keys and
    values of the first layer are looked up by that number, and take no byte of their own.
    """

    layers: nn.ModuleList
    norm: nn.LayerNorm

    def __init__(self, config: WindowedConfig, items: int, *, reads_time: bool = False) -> None:
        """``items`` is the size of the catalog."""
        super().__init__()
        self.window, self.reads_time = config.window, reads_time
        self.pool_size = config.collective.pool_size if config.attention == "collective" else 0
        self.pool_levels = config.collective.pool_levels
        self.item_bytes = bytes_for(items)
        self._looks_up = config.attention == "collective"
        self._table: Tensor | None = None
        self._stepper: Stepper | None = None

    def start(self, users: int = 1) -> State:
        """The state of users without events."""
        device = self.items.weight.device
        records = torch.empty(users, 0, self.record_bytes, dtype=torch.uint8, device=device)
        return State(records, torch.zeros(users, dtype=torch.int64, device=device))

    def extend(self, state: State, items: Tensor, times: Tensor | None = None) -> State:
        """The state after ``M`` more events of every user.

        Args:
            state: before them.
            items: int ``[B, M]``, oldest first, ``M`` at least 1.
            times: int64 ``[B, M]`` milliseconds, for a network that reads them.
        """
        kept = state.records.shape[1]
        earlier = state.records[:, max(0, kept - self.window + 1) :]
        vectors, fresh = self.advance(earlier, state.lengths, items, times)
        records = torch.cat([state.records, fresh], 1)[:, -self.window :]
        lengths = (state.lengths + items.shape[1]).clamp_max(self.window)
        return State(records, lengths, vectors)

    def query(self, state: State) -> Tensor:
        """The vectors ``[B, D]`` that score the catalog; every user must have an event."""
        if state.vectors is not None:
            return state.vectors
        newest = state.records[:, -1:]
        vectors, _ = self.advance(
            state.records[:, :-1], state.lengths - 1, self.items_of(newest), self.times_of(newest)
        )
        return vectors

    def advance(
        self, earlier: Tensor, lengths: Tensor, items: Tensor, times: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Add events, and ask after the last of them.

        Args:
            earlier: records uint8 ``[B, n, R]``.
            lengths: int64 ``[B]``, how many of them are real, the last ones.
            items: int ``[B, M]``.
            times: int64 ``[B, M]`` milliseconds; None for a network that does not read them.

        Returns:
            Vectors ``[B, D]`` and the records of the new events, uint8 ``[B, M, R]``.
        """
        kept, new = earlier.shape[1], items.shape[1]
        absent = None
        if kept and int(lengths.min()) < kept:
            absent = torch.arange(kept, 0, -1, device=earlier.device) > lengths[:, None]
        age = self._ages(earlier, times, new) if self.reads_time else None
        x = self.items(items)  # [B, M, D]
        fresh, place = [], 0
        for depth, (layer, width) in enumerate(zip(self._layers, self.widths(), strict=True)):
            records = earlier[..., place : place + width]
            if not width and kept:
                records = self.first_layer()[self.items_of(earlier)]  # [B, n, R of the layer]
            asking = new if depth + 1 < len(self.layers) else 1
            of_asking = None if age is None else age[:, new - asking :]
            x, made = layer.extend(x, Cached(records, absent, of_asking), asking)
            if width:
                fresh.append(made)
            place += width
        fresh.append(to_bytes(items.long(), self.item_bytes))
        if self.reads_time:
            assert times is not None
            fresh.append(to_bytes(coarse(times), TIME_BYTES))
        made = torch.cat(fresh, -1)
        made = nn.functional.pad(made, (0, self.record_bytes - made.shape[-1]))
        return self.norm(x[:, -1]), made

    @cached_property
    def record_bytes(self) -> int:
        """Bytes kept of an event."""
        kept = self._layer_bytes + self.item_bytes + (TIME_BYTES if self.reads_time else 0)
        kept_layers = self._layers[self._looks_up :]
        alignment = max((layer.key_values.alignment for layer in kept_layers), default=1)
        return -(-kept // alignment) * alignment

    def items_of(self, records: Tensor) -> Tensor:
        """Item numbers of records, int64 ``[...]``."""
        return from_bytes(records[..., self._layer_bytes : self._layer_bytes + self.item_bytes])

    def times_of(self, records: Tensor) -> Tensor | None:
        """Times of records, int64 ``[...]`` in whole units of 2^10 ms; None when not kept."""
        if not self.reads_time:
            return None
        first = self._layer_bytes + self.item_bytes
        return from_bytes(records[..., first : first + TIME_BYTES]) << TIME_SHIFT

    def train(self, mode: bool = True) -> Self:
        """As of every module; what was made from weights that may change is forgotten."""
        if mode or self.training:
            self._table = self._stepper = None
        return super().train(mode)

    @abstractmethod
    def layer_steps(self) -> list[LayerStep]:
        """The layers, for one event at a time."""

    def stepper(self) -> Stepper:
        """This network for one event at a time, on a CPU; made once for its weights."""
        if self._stepper is None or self.training:
            self._stepper = Stepper(self)
        return self._stepper

    @property
    def _layers(self) -> list[IncrementalLayer]:
        return [layer for layer in self.layers if isinstance(layer, IncrementalLayer)]

    @cached_property
    def _layer_bytes(self) -> int:
        return sum(self.widths())

    def widths(self) -> list[int]:
        """Bytes that a record holds of each layer; 0 where they are looked up by item."""
        widths = [layer.key_values.record_bytes for layer in self._layers]
        return [0, *widths[1:]] if self._looks_up else widths

    def first_layer(self) -> Tensor:
        """Records of the first layer by item, uint8 ``[N, R]``; shared by all users."""
        if self._table is None or self.training:
            with torch.no_grad():
                parts = self.items.weight.split(ITEMS_AT_ONCE)
                self._table = torch.cat([self._layers[0].pack(part) for part in parts])
        return self._table

    def _ages(self, earlier: Tensor, times: Tensor | None, new: int) -> Tensor:
        if times is None:
            raise InputError(NO_TIMES)
        before = self.times_of(earlier)
        assert before is not None
        units = torch.cat([coarse(before), coarse(times)], 1)  # [B, n + M]
        return age_buckets(units[:, -new:, None] - units[:, None])


def coarse(times: Tensor) -> Tensor:
    """Milliseconds as they are kept: whole units of 2^10 ms from 1970 to 2109, int64."""
    return (times >> TIME_SHIFT).clamp(0, 2 ** (8 * TIME_BYTES) - 1)


def age_buckets(between: Tensor) -> Tensor:
    """Buckets of time gaps in units, each twice as wide as the one before; int64.

    The exponent of a float is one more than the floor of its logarithm; that of 0 is 0.
    """
    return torch.frexp(between.clamp_min(0).float()).exponent.long()
