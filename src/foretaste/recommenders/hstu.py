"""HSTU: gated attention without softmax, biased by place and time (Zhai et al., ICML 2024)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.nn.attention import Cached, IncrementalLayer, distances
from foretaste.nn.collective import key_values
from foretaste.nn.compressing import begin_key_values, turn_output, turned
from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.nn.key_values import split_heads
from foretaste.nn.stepping import (
    LayerStep,
    Linear,
    Norm,
    NormedLinear,
    array,
    silu,
    step_of,
)
from foretaste.recommenders.core.incremental import IncrementalRecommender
from foretaste.recommenders.core.sequence import Histories
from foretaste.recommenders.core.windowed import (
    WindowedConfig,
    WindowedNetwork,
    age_buckets,
    coarse,
)

AGES = 34
"""Buckets of time gaps, each twice as wide as the one before: 0, then 2^0 to 2^32 units."""


class HSTUConfig(WindowedConfig):
    """Of HSTU.

    Attributes:
        use_times: bias attention by the time between events. Histories without times (lists of
            ids given to ``recommend``) are then read by place alone.
    """

    use_times: bool = True


class HSTULayer(IncrementalLayer):
    """x + f2(norm(silu(Q K' + bias) V) * U), with U, V, Q, K = silu(f1(norm(x))).

    Equations 1 to 3. Weights are divided by the number of places, as in the authors' code; what
    they leave to the batch's width is here ``window``, so that a score does not depend on the
    batch. Time gaps are from the asking event, because the time of the next one is not known.
    """

    def __init__(self, config: HSTUConfig, layer: int) -> None:
        """``config.dim`` is the width of everything; ``layer`` counts from 0."""
        super().__init__()
        dim, self.heads, self.window = config.dim, config.heads, config.window
        self.norm = nn.LayerNorm(dim)
        kind = config.attention_of(layer)
        self.key_values = key_values(dim, self.heads, kind, config.collective, F.silu)
        self.width = self.key_values.key_dim
        self.asking = nn.Linear(dim, self.width + self.key_values.value_dim)  # Q and U
        self.by_place = nn.Embedding(self.window, 1)
        self.by_age = nn.Embedding(AGES, 1)
        self.mixed_norm = nn.LayerNorm(self.key_values.value_dim, eps=1e-6)  # what it sees is small
        self.output = nn.Linear(self.key_values.value_dim, dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, asking: Tensor, x: Tensor, back: Tensor, age: Tensor | None) -> Tensor:
        """What the events ``asking`` learn from ``x``.

        Args:
            asking: ``[B, M, D]``, all events or some of them.
            x: ``[B, L, D]``, all events.
            back: int64 ``[1 or B, M, L]``, places from an event back to another; negative where
                it must not look.
            age: int64 ``[B, M, L]``, the bucket of the time between them, or None.

        Returns:
            ``[B, M, D]``.
        """
        key, value = (split_heads(part, self.heads) for part in self.key_values(self.norm(x)))
        query, gate = self._ask(asking)
        weights = self._weights(query @ key.mT, back, age)  # [B, H, M, L]
        return self._learn(asking, weights @ value, gate)

    def extend(self, x: Tensor, earlier: Cached, asking: int) -> tuple[Tensor, Tensor]:
        """As of ``IncrementalLayer``."""
        fresh, kept = self.pack(x), earlier.records.shape[1]
        query, gate = self._ask(x[:, -asking:])
        scores = [self.key_values.scores(query, earlier.records)] if kept else []
        scores = torch.cat([*scores, self.key_values.scores(query, fresh)], -1)
        back = distances(asking, kept + x.shape[1], x.device)[None]
        weights = self._weights(scores, back, earlier.age)  # [B, H, A, n + M]
        if earlier.absent is not None:
            weights[..., :kept].masked_fill_(earlier.absent[:, None, None], 0)
        mixed = self.key_values.mix(weights[..., kept:], fresh)
        if kept:
            mixed += self.key_values.mix(weights[..., :kept], earlier.records)
        return self._learn(x[:, -asking:], mixed, gate), fresh

    def pack(self, x: Tensor) -> Tensor:
        """As of ``IncrementalLayer``."""
        return self.key_values.pack(self.norm(x))

    @torch.no_grad()
    def begin_from(self, full: HSTULayer, x: Tensor, seed: int) -> None:
        """As of ``IncrementalLayer``."""
        turns = begin_key_values(self.key_values, full.key_values, x, seed)
        for name in ("weight", "bias"):
            ours, theirs = (getattr(one.asking, name) for one in (self, full))
            theirs = theirs.view(len(theirs), -1)
            query, gate = theirs[: full.width], theirs[full.width :]
            both = torch.cat([turned(query, turns.key), turned(gate, turns.value)])
            ours.copy_(both.view_as(ours))
            norm, of = (getattr(one.mixed_norm, name) for one in (self, full))
            norm.copy_(turned(of[:, None], turns.value)[:, 0])
        turn_output(self.output, full.output, turns.value)

    def _ask(self, asking: Tensor) -> tuple[Tensor, Tensor]:
        """Queries ``[B, H, M, K]`` and gates ``[B, M, V]``."""
        both = F.silu(self.asking(self.norm(asking)))
        return split_heads(both[..., : self.width], self.heads), both[..., self.width :]

    def _weights(self, scores: Tensor, back: Tensor, age: Tensor | None) -> Tensor:
        bias = self.by_place(back.clamp(0, self.window - 1)).squeeze(-1)  # [1 or B, M, L]
        if age is not None:
            bias = bias + self.by_age(age).squeeze(-1)  # [B, M, L]
        hidden = (back < 0) | (back >= self.window)
        return F.silu(scores + bias[:, None]).masked_fill(hidden[:, None], 0) / self.window

    def _learn(self, asking: Tensor, mixed: Tensor, gate: Tensor) -> Tensor:
        mixed = self.mixed_norm(mixed.transpose(1, 2).flatten(2))  # [B, M, V]
        return asking + self.dropout(self.output(mixed * gate))


class HSTUStep:
    """A layer for one event at a time, see ``LayerStep``."""

    def __init__(self, layer: HSTULayer) -> None:
        """Takes its weights."""
        self.key_values = step_of(layer.key_values)
        self.ask = NormedLinear(layer.norm, layer.asking, *self.key_values.makes)
        self.query, self.gate = layer.width, layer.width + layer.key_values.value_dim
        self.by_place = array(layer.by_place.weight)[::-1, 0].copy()  # the oldest event first
        self.by_age = array(layer.by_age.weight)[:, 0]
        self.window = layer.window
        self.norm, self.output = Norm(layer.mixed_norm), Linear(layer.output)

    def __call__(
        self, x: np.ndarray, records: np.ndarray, age: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``LayerStep``."""
        made = self.ask(x)
        fresh, asking = self.key_values.pack(made[self.gate :]), silu(made[: self.gate])
        read = self.key_values.read(records, fresh)
        weights = self.key_values.scores(asking[: self.query], read)  # [H, n + 1]
        weights += self.by_place[-weights.shape[1] :]
        if age is not None:
            weights += self.by_age[age]
        weights = silu(weights)
        weights *= 1 / self.window
        mixed = self.norm(self.key_values.mix(weights, read))
        return x + self.output(mixed * asking[self.query :]), fresh


class HSTUNetwork(WindowedNetwork):
    """Item vectors, HSTU layers, a norm. Order is known from the biases of the layers alone."""

    def __init__(self, items: int, config: HSTUConfig) -> None:
        """A network for a catalog of ``items``."""
        super().__init__(config, items, reads_time=config.use_times)
        self.items = nn.Embedding(items, config.dim)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(HSTULayer(config, layer) for layer in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.apply(small_normal)

    def forward(self, histories: Histories) -> Tensor:
        """``[B, L, D]``."""
        back, age = self._distances(histories)
        x = self.dropout(self.items(histories.items))  # [B, L, D]
        for layer in self.layers:
            x = layer(x, x, back, age)
        return self.norm(x)

    def last(self, histories: Histories) -> Tensor:
        """``[B, D]``: in the last layer only the last event asks."""
        back, age = self._distances(histories)
        x = self.dropout(self.items(histories.items))  # [B, L, D]
        *lower, top = self.layers
        for layer in lower:
            x = layer(x, x, back, age)
        row, newest = torch.arange(len(x), device=x.device), histories.lengths - 1
        age = None if age is None else age[row, newest, None]
        return self.norm(top(x[row, newest, None], x, back[0, newest, None], age)).squeeze(1)

    def _distances(self, histories: Histories) -> tuple[Tensor, Tensor | None]:
        """Places ``[1, L, L]`` and age buckets ``[B, L, L]`` from each event back to each other."""
        length = histories.items.shape[1]
        back = distances(length, length, histories.items.device)[None]
        if histories.times is None or not self.reads_time:
            return back, None
        units = coarse(histories.times)  # [B, L]
        return back, age_buckets(units[:, :, None] - units[:, None])

    def layer_steps(self) -> list[LayerStep]:
        """See ``WindowedNetwork``."""
        return [HSTUStep(layer) for layer in self.layers if isinstance(layer, HSTULayer)]


class HSTU(IncrementalRecommender):
    """Attention that adds up instead of averaging, so that how often also counts."""

    name = "hstu"
    Config = HSTUConfig

    def _network(self, items: int) -> HSTUNetwork:
        return HSTUNetwork(items, self.config)
