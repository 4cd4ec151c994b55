"""Causal attention over a sliding window, the same from a whole history and from a cache.

An event looks at the last ``window`` events, itself included. Where an event lies is known from
how far back it is, never from a place of its own, so that what is kept of it stays true when the
window moves on.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.nn.compressing import begin_key_values, turn_output, turn_query
from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import falling
from foretaste.nn.key_values import KeyValues, split_heads


class Cached(NamedTuple):
    """What is known of earlier events when new ones come, aligned at the newest.

    Attributes:
        records: uint8 ``[B, n, R]``, of one layer.
        absent: bool ``[B, n]``, True before the first event of a shorter history; None when all
            are equally long.
        age: int64 ``[B, A, n + M]``, buckets of the time back from each asking event to every
            other; None for attention that does not read time.
    """

    records: Tensor
    absent: Tensor | None
    age: Tensor | None


class IncrementalLayer(nn.Module):
    """A layer to which events can be added one by one.

    Attributes:
        key_values: those of its attention.
    """

    key_values: KeyValues

    @abstractmethod
    def pack(self, x: Tensor) -> Tensor:
        """Records uint8 ``[..., R]`` of event vectors ``[..., D]``."""

    @abstractmethod
    def extend(self, x: Tensor, earlier: Cached, asking: int) -> tuple[Tensor, Tensor]:
        """Add events.

        Args:
            x: ``[B, M, D]``, the new events.
            earlier: what is kept of the events before them.
            asking: how many of the new events ask, the last ones.

        Returns:
            What they learn, ``[B, asking, D]``, and records of all new events, uint8
            ``[B, M, R]``.
        """

    @abstractmethod
    def begin_from(self, full: Self, x: Tensor, seed: int) -> None:
        """Become, with collective keys and values, what a trained layer with full ones is.

        Weights of equal shape are there already; this sets those that change with the form.

        Args:
            full: of the same width, heads and window.
            x: ``[n, D]``, what its keys and values were made of; at least as many as pool entries.
            seed: of k-means.
        """


class WindowedAttention(nn.Module):
    """Multi-head softmax attention with a learned bias for every distance."""

    def __init__(self, dim: int, heads: int, window: int, key_values: KeyValues) -> None:
        """``window`` counts the asking event."""
        super().__init__()
        self.heads, self.window = heads, window
        self.key_values = key_values
        self.query = nn.Linear(dim, key_values.key_dim)
        self.output = nn.Linear(key_values.value_dim, dim)
        self.by_distance = nn.Parameter(torch.zeros(heads, window))
        self.scale = 1 / math.sqrt(key_values.key_dim / heads)

    @torch.no_grad()
    def begin_falling(self, places: int) -> None:
        """Give the biases the first values of ``falling``; an event takes so many places."""
        self.by_distance.copy_(falling(self.heads, self.window, places))

    @torch.no_grad()
    def begin_from(self, full: WindowedAttention, x: Tensor, seed: int) -> None:
        """As of ``IncrementalLayer``."""
        turns = begin_key_values(self.key_values, full.key_values, x, seed)
        turn_query(self.query, full.query, turns.key, full.scale / self.scale)
        turn_output(self.output, full.output, turns.value)
        self.by_distance.copy_(full.by_distance)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """``x`` right-padded ``[B, L, D]`` to the events from ``first`` on, ``[B, L - first, D]``.

        All events are looked at; only those from ``first`` on ask.
        """
        length, short = x.shape[1], x.shape[1] <= 2 * self.window
        asking = x[:, first:] if short else x
        query = split_heads(self.query(asking), self.heads)  # [B, H, A, K]
        key, value = (split_heads(part, self.heads) for part in self.key_values(x))
        if short:
            bias = self.recent_bias(length, length - first)  # [H, A, L]
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        else:
            mixed = self._banded(query, key, value)[:, :, first:]
        return self.output(mixed.transpose(1, 2).flatten(2))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The output for the last event of each sequence only: ``[B, D]``."""
        row, newest = torch.arange(len(x), device=x.device), lengths - 1
        query = split_heads(self.query(x[row, newest])[:, None], self.heads)  # [B, H, 1, K]
        key, value = (split_heads(part, self.heads) for part in self.key_values(x))
        back = newest[:, None] - torch.arange(x.shape[1], device=x.device)  # [B, L]
        bias = self.bias(back).transpose(0, 1)[:, :, None]  # [B, H, 1, L]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.output(mixed.flatten(1))

    def extend(self, x: Tensor, earlier: Cached, asking: int) -> tuple[Tensor, Tensor]:
        """As of ``IncrementalLayer``."""
        fresh, kept = self.key_values.pack(x), earlier.records.shape[1]
        query = split_heads(self.query(x[:, -asking:]), self.heads)  # [B, H, A, K]
        scores = self.key_values.scores(query, fresh)
        if kept:
            scores = torch.cat([self.key_values.scores(query, earlier.records), scores], -1)
        bias = self.recent_bias(kept + x.shape[1], asking)  # [H, A, n + M]
        scores = torch.add(bias, scores, alpha=self.scale)
        if earlier.absent is not None:
            scores[..., :kept].masked_fill_(earlier.absent[:, None, None], -torch.inf)
        weights = torch.softmax(scores, -1)  # [B, H, A, n + M]
        mixed = self.key_values.mix(weights[..., kept:], fresh)
        if kept:
            mixed += self.key_values.mix(weights[..., :kept], earlier.records)
        return self.output(mixed.transpose(1, 2).flatten(2)), fresh

    def bias(self, back: Tensor) -> Tensor:
        """``[H, ...]`` of distances ``back`` int64 ``[...]``; -inf outside the window."""
        hidden = (back < 0) | (back >= self.window)
        found = self.by_distance[:, back.clamp(0, self.window - 1)]
        return found.masked_fill(hidden, -torch.inf)

    def recent_bias(self, events: int, asking: int) -> Tensor:
        """``[H, asking, events]``, of the last ``asking`` of ``events`` events.

        Distances are the same along every diagonal, so each row is a piece of one line, a place
        further on than the row below it.
        """
        line = self.by_distance.flip(1)[:, -events:]  # [H, distances], the farthest first
        hidden = (max(0, events - self.window), asking - 1)  # too old, and still to come
        line = F.pad(line, hidden, value=-torch.inf)  # [H, events + asking - 1]
        return line.unfold(1, events, 1).flip(1)

    def _banded(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Blocks of ``window`` events, each with the one before: memory L x 2 W, not L x L."""
        window, length = self.window, query.shape[2]
        blocks = -(-length // window)
        query, key, value = (
            F.pad(part, (0, 0, 0, blocks * window - length)).unflatten(2, (blocks, window))
            for part in (query, key, value)
        )  # [B, H, N, W, K]
        key, value = (
            torch.cat([F.pad(part, (0, 0, 0, 0, 1, 0))[:, :, :-1], part], 3)
            for part in (key, value)
        )  # [B, H, N, 2 W, K]
        bias = self.recent_bias(2 * window, window)  # [H, W, 2 W]
        bias = bias[:, None].repeat(1, blocks, 1, 1)
        bias[:, 0, :, :window] = -torch.inf  # nothing lies before the first block
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return mixed.flatten(2, 3)[:, :, :length]


class WindowedBlock(IncrementalLayer):
    """x + attention(norm(x)), then x + feedforward(norm(x)), with dropout on both branches."""

    def __init__(
        self, dim: int, heads: int, window: int, dropout: float, key_values: KeyValues
    ) -> None:
        """The inner width of the feedforward is ``4 * dim``."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = WindowedAttention(dim, heads, window, key_values)
        self.key_values = key_values
        self.feedforward_norm = nn.LayerNorm(dim)
        self.feedforward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """``x`` right-padded ``[B, L, D]`` to events from ``first`` on, ``[B, L - first, D]``."""
        mixed = self.attention(self.attention_norm(x), first)
        return self._rest(x[:, first:] + self.dropout(mixed))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The output for the last event of each sequence only: ``[B, D]``."""
        newest = x[torch.arange(len(x), device=x.device), lengths - 1]  # [B, D]
        mixed = self.attention.last(self.attention_norm(x), lengths)
        return self._rest(newest + self.dropout(mixed))

    def extend(self, x: Tensor, earlier: Cached, asking: int) -> tuple[Tensor, Tensor]:
        """As of ``IncrementalLayer``."""
        mixed, fresh = self.attention.extend(self.attention_norm(x), earlier, asking)
        return self._rest(x[:, -asking:] + self.dropout(mixed)), fresh

    def pack(self, x: Tensor) -> Tensor:
        """As of ``IncrementalLayer``."""
        return self.key_values.pack(self.attention_norm(x))

    def begin_from(self, full: WindowedBlock, x: Tensor, seed: int) -> None:
        """As of ``IncrementalLayer``."""
        self.attention.begin_from(full.attention, x, seed)

    def _rest(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


def distances(asking: int, events: int, device: torch.device) -> Tensor:
    """How far back each of ``events`` lies from the last ``asking`` of them, ``[asking, events]``.

    Negative for an event that is still to come.
    """
    place = torch.arange(events, device=device)
    return place[events - asking :, None] - place
