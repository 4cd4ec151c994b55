"""Keys and values of attention, and the bytes that stand for them in a user's cache.

Full ones are here; ``collective`` has those of CollectiveKV.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class KeyValues(nn.Module):
    """Makes keys and values from event vectors, or their cached bytes.

    Three views of one thing: ``forward`` gives keys and values of all events, for training and
    for whole histories; ``pack`` gives the bytes that a cache keeps of an event, its *record*;
    ``scores`` and ``mix`` are the two products of attention, made from records.

    Attributes:
        key_dim: width of a key, all heads together.
        value_dim: width of a value, all heads together.
        record_bytes: bytes of a record.
        alignment: a record must begin at a multiple of this many bytes.
    """

    key_dim: int
    value_dim: int
    record_bytes: int
    alignment: int = 1

    def penalty(self, real: Tensor | None = None) -> Tensor | None:
        """What the last forward adds to the loss of an event; None for nothing.

        ``real`` bool ``[...]`` says which of the events that it saw are no padding; None for all.
        """
        del real
        return None

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` ``[..., D]`` to keys ``[..., key_dim]`` and values ``[..., value_dim]``."""

    @abstractmethod
    def pack(self, x: Tensor) -> Tensor:
        """``x`` ``[..., D]`` to records, uint8 ``[..., record_bytes]``."""

    @abstractmethod
    def unpack(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of records: those of ``forward`` without training."""

    @abstractmethod
    def scores(self, query: Tensor, records: Tensor) -> Tensor:
        """``query`` ``[B, H, M, key_dim / H]`` times keys: ``[B, H, M, n]``; not scaled.

        ``records`` uint8 ``[B, n, record_bytes]``; so it is of ``mix``.
        """

    @abstractmethod
    def mix(self, weights: Tensor, records: Tensor) -> Tensor:
        """``weights`` ``[B, H, M, n]`` times values: ``[B, H, M, value_dim / H]``."""


class FullKeyValues(KeyValues):
    """Keys and values of full width, kept as float32: the cache everyone knows."""

    alignment = 4

    def __init__(self, dim: int, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        """``activation`` is applied to keys and values."""
        super().__init__()
        self.heads, self.activation = heads, activation
        self.key_dim = self.value_dim = dim
        self.record_bytes = 2 * dim * BYTES["fp32"]
        self.project = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See ``KeyValues``."""
        key, value = self.activation(self.project(x)).chunk(2, -1)  # [..., D]
        return key, value

    def pack(self, x: Tensor) -> Tensor:
        """See ``KeyValues``."""
        return self.activation(self.project(x)).contiguous().view(torch.uint8)

    def unpack(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """See ``KeyValues``."""
        key, value = records.view(torch.float32).chunk(2, -1)
        return key, value

    def scores(self, query: Tensor, records: Tensor) -> Tensor:
        """See ``KeyValues``."""
        key = records.view(torch.float32)[..., : self.key_dim]  # [B, n, D]
        return query @ split_heads(key, self.heads).mT

    def mix(self, weights: Tensor, records: Tensor) -> Tensor:
        """See ``KeyValues``."""
        value = records.view(torch.float32)[..., self.key_dim :]  # [B, n, D]
        return weights @ split_heads(value, self.heads)


def penalty_of(network: nn.Module, real: Tensor | None = None) -> Tensor | None:
    """What all keys and values of a network add to the loss of an event; None for nothing.

    ``real`` is as in ``KeyValues.penalty``.
    """
    found = [m.penalty(real) for m in network.modules() if isinstance(m, KeyValues)]
    known = [penalty for penalty in found if penalty is not None]
    return torch.stack(known).sum() if known else None


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[B, L, D]`` to ``[B, H, L, D / H]``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def bytes_for(count: int) -> int:
    """The fewest bytes that hold any of the numbers 0 to ``count - 1``."""
    return max(1, ((count - 1).bit_length() + 7) // 8)


def to_bytes(numbers: Tensor, width: int) -> Tensor:
    """Whole numbers int64 ``[...]`` as uint8 ``[..., width]``, the lowest byte first."""
    shifts = torch.arange(0, 8 * width, 8, device=numbers.device)
    return (numbers[..., None] >> shifts).to(torch.uint8)


def from_bytes(kept: Tensor) -> Tensor:
    """What ``to_bytes`` was given, int64 ``[...]``."""
    if kept.shape[-1] == 1:
        return kept[..., 0].long()
    shifts = torch.arange(0, 8 * kept.shape[-1], 8, device=kept.device)
    return (kept.long() << shifts).sum(-1)
