"""HSTU: gated attention without softmax, biased by place and time (Zhai et al., ICML 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.recommenders.core.sequence import (
    AttentionConfig,
    Histories,
    SequenceNetwork,
    SequenceRecommender,
)

AGES = 48
"""Buckets of time gaps, each twice as wide as the one before; 2^47 ms are 4,000 years."""


class HSTUConfig(AttentionConfig):
    """Of HSTU.

    Attributes:
        use_times: bias attention by the time between events. Histories without times (lists of
            ids given to ``recommend``) are then read by place alone.
    """

    use_times: bool = True


class HSTULayer(nn.Module):
    """x + f2(norm(silu(Q K' + bias) V) * U), with U, V, Q, K = silu(f1(norm(x))).

    Equations 1 to 3. Weights are divided by the number of places, as in the authors' code; what
    they leave to the batch's width is here ``max_length``, so that a score does not depend on the
    batch. Time gaps are from the asking event, because the time of the next one is not known.
    """

    def __init__(self, config: HSTUConfig) -> None:
        """``config.dim`` is the width of everything."""
        super().__init__()
        dim, self.heads, self.places = config.dim, config.heads, config.max_length
        self.norm = nn.LayerNorm(dim)
        self.asking = nn.Linear(dim, 2 * dim)  # U and Q
        self.answering = nn.Linear(dim, 2 * dim)  # V and K
        self.by_place = nn.Embedding(self.places, 1)
        self.by_age = nn.Embedding(AGES, 1)
        self.mixed_norm = nn.LayerNorm(dim, eps=1e-6)  # what it sees is small at first
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, asking: Tensor, x: Tensor, gap: Tensor, age: Tensor | None) -> Tensor:
        """What the events ``asking`` learn from ``x``.

        Args:
            asking: ``[B, M, D]``, all events or some of them.
            x: ``[B, L, D]``, all events.
            gap: int64 ``[1 or B, M, L]``, places from an event back to another; negative where it
                must not look.
            age: int64 ``[B, M, L]``, the bucket of the time between them, or None.

        Returns:
            ``[B, M, D]``.
        """
        gate, query = F.silu(self.asking(self.norm(asking))).chunk(2, -1)  # [B, M, D]
        value, key = F.silu(self.answering(self.norm(x))).chunk(2, -1)  # [B, L, D]
        bias = self.by_place(gap.clamp_min(0)).squeeze(-1)  # [1 or B, M, L]
        if age is not None:
            bias = bias + self.by_age(age).squeeze(-1)  # [B, M, L]
        score = self._heads(query) @ self._heads(key).mT + bias[:, None]  # [B, H, M, L]
        weight = F.silu(score).masked_fill((gap < 0)[:, None], 0) / self.places
        mixed = (weight @ self._heads(value)).transpose(1, 2).flatten(2)  # [B, M, D]
        return asking + self.dropout(self.output(self.mixed_norm(mixed) * gate))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, L, D/H]


class HSTUNetwork(SequenceNetwork):
    """Item vectors, HSTU layers, a norm. Order is known from the biases of the layers alone."""

    def __init__(self, items: int, config: HSTUConfig) -> None:
        """A network for a catalog of ``items``."""
        super().__init__()
        self.use_times = config.use_times
        self.items = nn.Embedding(items, config.dim)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(HSTULayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.apply(small_normal)

    def forward(self, histories: Histories) -> Tensor:
        """``[B, L, D]``."""
        gap, age = self._distances(histories)
        x = self.dropout(self.items(histories.items))  # [B, L, D]
        for layer in self.layers:
            x = layer(x, x, gap, age)
        return self.norm(x)

    def last(self, histories: Histories) -> Tensor:
        """``[B, D]``: in the last layer only the last event asks."""
        gap, age = self._distances(histories)
        x = self.dropout(self.items(histories.items))  # [B, L, D]
        *lower, top = self.layers
        for layer in lower:
            x = layer(x, x, gap, age)
        row, newest = torch.arange(len(x), device=x.device), histories.lengths - 1
        age = None if age is None else age[row, newest, None]
        return self.norm(top(x[row, newest, None], x, gap[0, newest, None], age)).squeeze(1)

    def _distances(self, histories: Histories) -> tuple[Tensor, Tensor | None]:
        """Places ``[1, L, L]`` and age buckets ``[B, L, L]`` from each event back to each other."""
        place = torch.arange(histories.items.shape[1], device=histories.items.device)
        gap = (place[:, None] - place)[None]
        if histories.times is None or not self.use_times:
            return gap, None
        between = histories.times[:, :, None] - histories.times[:, None]
        # The exponent of a float is one more than the floor of its logarithm; that of 0 is 0.
        exponent = torch.frexp(between.clamp_min(0).float()).exponent
        return gap, exponent.clamp_max(AGES - 1)


class HSTU(SequenceRecommender):
    """Attention that adds up instead of averaging, so that how often also counts."""

    name = "hstu"
    Config = HSTUConfig

    def _network(self, items: int) -> HSTUNetwork:
        return HSTUNetwork(items, self.config)
