"""One event of one user through a layer, in NumPy.

A step multiplies a few vectors by small matrices. In PyTorch most of its time is the cost of
calling sixty operations; NumPy's calls cost a fifth. These classes compute what the layers'
``extend`` computes, from the same weights (tests hold them equal), with norms folded into the
matrices that follow them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.special import erf
from torch import nn
from torch.nn import functional as F

from foretaste.nn.attention import WindowedBlock
from foretaste.nn.collective import LEVELS, CollectiveKeyValues
from foretaste.nn.key_values import FullKeyValues, KeyValues

Vector = np.ndarray
KEY_AND_VALUE = np.arange(2)


class LayerStep(Protocol):
    """A layer, for one event at a time."""

    def __call__(
        self, x: Vector, records: np.ndarray, age: np.ndarray | None
    ) -> tuple[Vector, np.ndarray]:
        """What the new event learns, and its record.

        Args:
            x: float32 ``[D]``, the new event.
            records: uint8 ``[n, R]``, of the events before it, fewer than the window.
            age: int ``[n + 1]``, buckets of the time back to each event, itself last; or None.

        Returns:
            float32 ``[D]`` and uint8 ``[R]``.
        """
        ...


class Linear:
    """y = W x + b."""

    def __init__(self, *parts: nn.Linear) -> None:
        """Several layers that read the same vector become one."""
        self.weight = np.concatenate([array(part.weight) for part in parts])
        self.bias = np.concatenate(
            [
                np.zeros(len(part.weight), np.float32) if part.bias is None else array(part.bias)
                for part in parts
            ]
        )

    def __call__(self, x: Vector) -> Vector:
        """``[in]`` to ``[out]``."""
        y = self.weight.dot(x)
        y += self.bias
        return y


class NormedLinear(Linear):
    """y = W norm(x) + b, the norm's own weights folded into W and b."""

    def __init__(self, norm: nn.LayerNorm, *parts: nn.Linear) -> None:
        """As ``Linear``."""
        super().__init__(*parts)
        self.bias = self.bias + self.weight @ array(norm.bias)
        self.weight = np.ascontiguousarray(self.weight * array(norm.weight))
        self.standardize = Standardize(norm)

    def __call__(self, x: Vector) -> Vector:
        """``[in]`` to ``[out]``."""
        y = self.weight.dot(self.standardize(x))
        y += self.bias
        return y


class Standardize:
    """A layer norm without its own weights."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        """``norm`` gives width and epsilon."""
        (width,) = norm.normalized_shape
        self.share = np.full(width, 1 / width, np.float32)
        self.width, self.eps = width, norm.eps

    def __call__(self, x: Vector) -> Vector:
        """Mean 0 and variance 1."""
        centred = x - x.dot(self.share)
        centred *= 1 / math.sqrt(centred.dot(centred) / self.width + self.eps)
        return centred


class Norm:
    """A whole layer norm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        """Takes its weights."""
        self.standardize = Standardize(norm)
        self.weight, self.bias = array(norm.weight), array(norm.bias)

    def __call__(self, x: Vector) -> Vector:
        """``[D]`` to ``[D]``."""
        return self.standardize(x) * self.weight + self.bias


class KeyValuesStep(Protocol):
    """Keys and values of one new event and of records.

    Attributes:
        makes: the linear layers whose results, one after the other, ``pack`` reads.
    """

    makes: list[nn.Linear]

    def pack(self, made: Vector) -> np.ndarray:
        """The record of the new event, uint8 ``[R]``."""
        ...

    def read(self, records: np.ndarray, fresh: np.ndarray) -> Any:
        """What records uint8 ``[n, R]`` and that of the new event ``[R]`` hold together."""
        ...

    def scores(self, query: Vector, read: Any) -> np.ndarray:
        """``query`` ``[K]`` times the keys of what was read: ``[H, n + 1]``, the new event last."""
        ...

    def mix(self, weights: np.ndarray, read: Any) -> Vector:
        """``weights`` ``[H, n + 1]`` times the values of the same events: ``[V]``."""
        ...


class FullRead(NamedTuple):
    """Keys and values as they are kept; nothing is copied.

    Attributes:
        known: float32 ``[n, 2 D]``.
        new: float32 ``[1, 2 D]``.
    """

    known: np.ndarray
    new: np.ndarray


class CollectiveRead(NamedTuple):
    """What stands for keys and values, the new event last.

    Attributes:
        own: float32 ``[n + 1, 2 U]`` and more, the events' own numbers, not scaled.
        index: for keys and for values, int ``[n + 1, L]``, places in the pools; None without pools.
    """

    own: np.ndarray
    index: tuple[np.ndarray, np.ndarray] | None


class FullStep:
    """Of full keys and values."""

    def __init__(self, module: FullKeyValues) -> None:
        """Takes its weights."""
        self.makes, self.dim = [module.project], module.key_dim
        self.heads, self.head = module.heads, module.key_dim // module.heads
        self.activation = module.activation

    def pack(self, made: Vector) -> np.ndarray:
        """See ``KeyValuesStep``."""
        return activated(made, self.activation).view(np.uint8)

    def read(self, records: np.ndarray, fresh: np.ndarray) -> FullRead:
        """See ``KeyValuesStep``."""
        return FullRead(records.view(np.float32), fresh.view(np.float32)[None])

    def scores(self, query: Vector, read: FullRead) -> np.ndarray:
        """See ``KeyValuesStep``."""
        query = query.reshape(self.heads, self.head, 1)
        known, new = (self._by_head(kept[:, : self.dim]) for kept in read)
        out = np.empty((self.heads, known.shape[1] + 1, 1), np.float32)
        np.matmul(known, query, out=out[:, :-1])
        np.matmul(new, query, out=out[:, -1:])
        return out[:, :, 0]

    def mix(self, weights: np.ndarray, read: FullRead) -> Vector:
        """See ``KeyValuesStep``."""
        weights = weights[:, None]  # [H, 1, n + 1]
        known, new = (self._by_head(kept[:, self.dim :]) for kept in read)
        mixed = np.matmul(weights[:, :, :-1], known)  # [H, 1, K / H]
        mixed += weights[:, :, -1:] * new
        return mixed.reshape(-1)

    def _by_head(self, kept: np.ndarray) -> np.ndarray:
        """``[n, K]`` as ``[H, n, K / H]``; nothing is copied."""
        return kept.reshape(len(kept), self.heads, self.head).transpose(1, 0, 2)


class CollectiveStep:
    """Of collective keys and values: pools are scored once, keys are never rebuilt."""

    def __init__(self, module: CollectiveKeyValues) -> None:
        """Takes its weights."""
        config, heads = module.config, module.heads
        self.size, self.levels = config.pool_size, config.pool_levels
        parts = (module.user, module.router, module.whole if self.levels > 1 else None)
        self.makes = [part for part in parts if part is not None]
        self.own, self.kind = 2 * config.user_dim, config.user_type
        self.bytes, self.user_bytes = module.record_bytes, module.user_bytes
        self.index_bytes = module.index_bytes
        self.heads = np.arange(heads)
        self.per_head, self.head = config.user_dim // heads, module.key_dim // heads
        # [H * U, H]: where a head finds its own part
        self.blocks = np.repeat(np.eye(heads, dtype=np.float32), self.per_head, 0)
        if module.pool is not None:
            # Of keys and of values, [H, L m, G]: each head's in one piece.
            pool = array(module.pool)
            self.keys, self.values = (
                np.ascontiguousarray(part.transpose(1, 0, 2)) for part in pool
            )
            self.bins = (self.heads * pool.shape[1])[:, None, None]  # [H, 1, 1]
            self.first = np.arange(0, pool.shape[1], self.size)  # [L], where a level begins
            if self.levels > 1:
                pools = pool.reshape(2, self.levels, self.size, -1).swapaxes(0, 1).copy()
                self.entries = pools[..., None]  # [L, 2, m, K, 1]
                self.half = np.square(self.entries).sum(-2) / 2  # [L, 2, m, 1]
        self.scale = np.ones((2, heads, self.per_head), np.float32)
        if config.user_type == "int8":
            self.scale = (array(module.scale) / LEVELS).reshape(self.scale.shape)

    def pack(self, made: Vector) -> np.ndarray:
        """See ``KeyValuesStep``."""
        own = made[: self.own]
        if self.kind == "int8":
            own = np.rint(np.tanh(own) * np.float32(LEVELS)).astype(np.int8)
        elif self.kind == "fp16":
            own = own.astype(np.float16)
        record = np.empty(self.bytes, np.uint8)
        record[: self.user_bytes] = own.view(np.uint8)
        if self.size:
            index = np.ascontiguousarray(self._choices(made[self.own :]), "<i8").view(np.uint8)
            kept = record[self.user_bytes :].reshape(-1, self.index_bytes)
            kept[:] = index.reshape(-1, 8)[:, : self.index_bytes]
        return record

    def _choices(self, made: Vector) -> np.ndarray:
        """The entries of a new event, of the key and then of the value, level by level."""
        routed = made[: 2 * self.size].reshape(2, -1)
        if self.levels == 1:
            return routed.argmax(1)
        index = np.empty((self.levels, 2), np.int64)
        index[0] = best = routed.argmax(1)
        missing = made[2 * self.size :].reshape(2, -1, 1)
        for level in range(1, self.levels):
            missing = missing - self.entries[level - 1][KEY_AND_VALUE, best]
            scores = np.matmul(self.entries[level, ..., 0], missing)  # [2, m, 1]
            scores -= self.half[level]
            index[level] = best = scores[:, :, 0].argmax(1)
        return index.T

    def read(self, records: np.ndarray, fresh: np.ndarray) -> CollectiveRead:
        """See ``KeyValuesStep``."""
        kept = np.concatenate((records, fresh[None]))
        if self.kind == "int8":
            own = kept.view(np.int8).astype(np.float32)  # of all bytes: it is faster so
        else:
            kind = np.float16 if self.kind == "fp16" else np.float32
            own = np.ascontiguousarray(kept[:, : self.user_bytes]).view(kind)
            own = own.astype(np.float32, copy=False)
        if not self.size:
            return CollectiveRead(own, None)
        chosen = kept[:, self.user_bytes :]
        if self.index_bytes > 1:
            chosen = number(chosen.reshape(-1, self.index_bytes)).reshape(len(kept), -1)
        key, value = chosen[:, : self.levels], chosen[:, self.levels :]
        return CollectiveRead(own, (key + self.first, value + self.first))

    def scores(self, query: Vector, read: CollectiveRead) -> np.ndarray:
        """See ``KeyValuesStep``."""
        query = query.reshape(len(self.heads), -1)  # [H, U + G]
        found = None
        if read.index is not None:
            of_pool = np.matmul(self.keys, query[:, self.per_head :, None])[:, :, 0]  # [H, L m]
            found = of_pool.take(read.index[0], 1)  # [H, n + 1, L]
            found = found[..., 0] if self.levels == 1 else np.add.reduce(found, 2)
        if self.own:
            scaled = (query[:, : self.per_head] * self.scale[0]).reshape(-1, 1) * self.blocks
            of_user = np.matmul(read.own[:, : self.own // 2], scaled).T  # [H, n + 1]
            found = of_user if found is None else np.add(found, of_user, out=found)
        assert found is not None
        return found

    def mix(self, weights: np.ndarray, read: CollectiveRead) -> Vector:
        """See ``KeyValuesStep``. Weights are summed by pool entry before any value is read."""
        mixed = np.empty((len(self.heads), self.head), np.float32)
        if self.own:
            crossed = np.matmul(weights, read.own[:, self.own // 2 : self.own])  # [H, H * U]
            own = crossed.reshape(len(self.heads), len(self.heads), -1)[self.heads, self.heads]
            mixed[:, : self.per_head] = own * self.scale[1]
        if read.index is not None:
            places = read.index[1] + self.bins  # [H, n + 1, L]
            each = weights.ravel() if self.levels == 1 else weights.repeat(self.levels)
            sums = np.bincount(places.ravel(), each, self.values.shape[0] * self.values.shape[1])
            sums = sums.astype(np.float32).reshape(len(self.heads), 1, -1)  # [H, 1, L m]
            np.matmul(sums, self.values, out=mixed[:, None, self.per_head :])
        return mixed.ravel()


class BlockStep:
    """Softmax attention with a bias for every distance, then the feedforward."""

    def __init__(self, block: WindowedBlock) -> None:
        """Takes its weights."""
        attention = block.attention
        self.key_values = step_of(block.key_values)
        self.ask = NormedLinear(block.attention_norm, attention.query, *self.key_values.makes)
        self.query = block.key_values.key_dim
        self.ask.weight[: self.query] *= attention.scale
        self.ask.bias[: self.query] *= attention.scale
        # [H, W], the oldest event first
        self.bias = np.ascontiguousarray(array(attention.by_distance)[:, ::-1])
        self.output = Linear(attention.output)
        widen, _, narrow = block.feedforward
        assert isinstance(widen, nn.Linear) and isinstance(narrow, nn.Linear)
        self.widen = NormedLinear(block.feedforward_norm, widen)
        self.narrow = Linear(narrow)
        self.narrow.weight *= 0.5  # for what reads it is twice as large

    def __call__(
        self, x: Vector, records: np.ndarray, age: np.ndarray | None
    ) -> tuple[Vector, np.ndarray]:
        """See ``LayerStep``."""
        del age
        made = self.ask(x)
        fresh = self.key_values.pack(made[self.query :])
        read = self.key_values.read(records, fresh)
        weights = self.key_values.scores(made[: self.query], read)  # [H, n + 1]
        weights += self.bias[:, -weights.shape[1] :]
        weights -= np.maximum.reduce(weights, 1, keepdims=True)
        np.exp(weights, out=weights)
        weights *= 1 / np.add.reduce(weights, 1, keepdims=True)
        x = x + self.output(self.key_values.mix(weights, read))
        inner = self.widen(x)
        inner *= erf(inner * math.sqrt(0.5)) + 1  # twice the GELU
        return x + self.narrow(inner), fresh


def step_of(module: KeyValues) -> KeyValuesStep:
    """Keys and values for one event at a time."""
    if isinstance(module, FullKeyValues):
        return FullStep(module)
    assert isinstance(module, CollectiveKeyValues)
    return CollectiveStep(module)


def activated(x: Vector, activation: Callable[..., object]) -> Vector:
    """``x`` through the activations that layers use."""
    if activation is F.silu:
        return silu(x)
    assert isinstance(activation, nn.Identity)
    return np.ascontiguousarray(x)


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x)."""
    return x / (1 + np.exp(-x))


def number(kept: np.ndarray) -> np.ndarray:
    """Whole numbers of uint8 ``[n, width]``, the lowest byte first; int64 ``[n]``."""
    width = kept.shape[1]
    if width in (1, 2, 4, 8):
        return kept.view(f"<u{width}")[:, 0].astype(np.int64)
    wide = np.zeros((len(kept), 8), np.uint8)
    wide[:, :width] = kept
    return wide.view("<i8")[:, 0]


def array(tensor: torch.Tensor) -> np.ndarray:
    """Weights as NumPy has them, without a copy."""
    return tensor.detach().numpy()
