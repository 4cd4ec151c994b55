"""Keys and values of attention, and the bytes that stand for them in a user's cache.

``full`` keeps both as they are. ``collective`` is CollectiveKV (arXiv 2601.19178, ICLR 2026): a
few numbers of each event's own, and the numbers of entries in pools that all users share: one pool
as in the paper, or several (``pool_levels``), each for what those before it leave out.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

POOL_WIDTH = 0.1
"""Width of the normal distribution of first pool entries, near that of first full keys."""

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
LEVELS = 127


class CollectiveConfig(BaseModel):
    """Of CollectiveKV (``[model.collective]`` of a recipe).

    Attributes:
        user_dim: numbers of an event's own in its key, and as many in its value, over all heads;
            a multiple of ``heads``. 0 leaves the pools alone.
        pool_size: entries of the pool of keys, and of that of values. 0 leaves no pools: keys
            and values of ``user_dim``, the low-rank control.
        pool_levels: pools of keys, and of values, whose chosen entries are added up. 1 is the
            paper; each further one stands for what those before it leave out.
        user_type: how the event's own numbers are kept; training rounds as the cache does.
        peak: weight of the loss that draws gates to 1, where training equals inference.
        balance: weight of the loss that draws the use of the pools to uniform.
        train_router: False keeps the router at its random first weights, without gates, a control;
            what else begins from a full model is fitted to what it chooses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user_dim: int = Field(default=4, ge=0)
    pool_size: int = Field(default=256, ge=0, le=2**24)
    pool_levels: int = Field(default=1, ge=1, le=64)
    user_type: Literal["fp32", "fp16", "int8"] = "int8"
    peak: float = Field(default=0.1, ge=0)
    balance: float = Field(default=0.1, ge=0)
    train_router: bool = True

    def problem(self, dim: int, heads: int) -> str | None:
        """Why this does not fit attention of ``dim`` and ``heads``, or None when it does."""
        if self.user_dim % heads:
            return f"collective.user_dim = {self.user_dim} must be a multiple of heads = {heads}"
        if self.user_dim > dim or (self.pool_size and self.user_dim == dim):
            return f"collective.user_dim = {self.user_dim} leaves nothing of dim = {dim} to a pool"
        if not self.user_dim and not self.pool_size:
            return "collective.user_dim and collective.pool_size are both 0: nothing is left"
        if self.pool_levels > 1 and not (self.pool_size and self.train_router):
            return (
                f"collective.pool_levels = {self.pool_levels} needs pools (pool_size above 0) and "
                "a router that is trained (train_router = true)"
            )
        return None


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


class CollectiveKeyValues(KeyValues):
    """A few numbers of an event's own, and entries of pools, side by side in every head.

    A router chooses the entry with the highest score M. In training it is multiplied by the gate
    sigmoid(M), so that the router learns; otherwise it is taken as it is. The peak loss draws the
    gates of chosen entries to 1, which closes the gap between the two; the balance loss is the
    divergence of the mean of softmax(M) over a batch from uniform. Keys and values have routers
    and pools of their own. What the paper leaves open and we chose: the division among heads,
    both losses' exact form, and int8 with tanh, so that eight bits need no scale per event.

    Several levels are ours. The entries that an event chooses, one a level, are added up. From the
    second level on an entry scores by its nearness to what is missing: M falls with the squared
    distance of the entry from a linear function of the event less the entries chosen before.
    """

    def __init__(self, dim: int, heads: int, config: CollectiveConfig) -> None:
        """``config`` must fit (``config.problem``)."""
        super().__init__()
        self.config, self.heads = config, heads
        pooled = dim - config.user_dim if config.pool_size else 0
        self.key_dim = self.value_dim = config.user_dim + pooled
        self.routed: Tensor | None = None  # [..., 2, L, m], of the last forward, if routers learn
        self.gated = False  # True: gates outside training too, to measure what hard look-up costs
        self.user = nn.Linear(dim, 2 * config.user_dim) if config.user_dim else None
        if config.user_type == "int8":
            self.scale = nn.Parameter(torch.ones(2 * config.user_dim))
        self.router = nn.Linear(dim, 2 * config.pool_size) if config.pool_size else None
        levels = config.pool_levels
        # [key or value, entry of one level after the other, head, width]
        shape = (2, levels * config.pool_size, heads, pooled // heads)
        width = POOL_WIDTH / math.sqrt(levels)
        self.pool = nn.Parameter(torch.randn(shape) * width) if config.pool_size else None
        if levels > 1:
            self.whole = nn.Linear(dim, 2 * pooled)  # what the entries of all levels stand for
            self.nearness = nn.Parameter(torch.ones(2, levels - 1))
            self.height = nn.Parameter(torch.zeros(2, levels - 1, config.pool_size))
        if self.router is not None and not config.train_router:
            self.router.requires_grad_(False)
        self.user_bytes = 2 * config.user_dim * BYTES[config.user_type]
        self.index_bytes = bytes_for(config.pool_size) if config.pool_size else 0
        self.record_bytes = self.user_bytes + 2 * levels * self.index_bytes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See ``KeyValues``."""
        own = self._own(x)  # [..., 2, H, U]
        if self.pool is None:
            parts = own
        else:
            routed, index = self._route(x)  # [..., 2, L, m], [..., 2, L]
            learning = self.training and self.config.train_router
            gates = None
            if learning or self.gated:
                gates = torch.sigmoid(routed.gather(-1, index[..., None]))  # [..., 2, L, 1]
            self.routed = routed if learning else None
            parts = torch.cat([own, self._entries(index, gates)], -1)  # [..., 2, H, U + G]
        key, value = parts.flatten(-2).unbind(-2)
        return key, value

    def penalty(self, real: Tensor | None = None) -> Tensor | None:
        """See ``KeyValues``: the mean of both losses, for keys and values together."""
        if self.routed is None:
            return None
        routed = self.routed.flatten(0, -4) if real is None else self.routed[real]  # [E, 2, L, m]
        peak = -F.logsigmoid(routed.amax(-1)).mean()
        share = torch.softmax(routed, -1).mean(0)  # [2, L, m]
        divergence = (share * (share.clamp_min(1e-12).log() + math.log(share.shape[-1]))).sum(-1)
        return 2 * self.config.peak * peak + self.config.balance * divergence.mean(1).sum()

    def pack(self, x: Tensor) -> Tensor:
        """See ``KeyValues``."""
        parts = []
        if self.user is not None:
            parts.append(self._as_kept(self.user(x)).contiguous().view(torch.uint8))
        if self.pool is not None:
            parts.append(to_bytes(self.choices(x), self.index_bytes).flatten(-3))
        return torch.cat(parts, -1)

    def unpack(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """See ``KeyValues``."""
        own = self._kept(records)  # [..., 2, H, U]
        if self.pool is not None:
            own = torch.cat([own, self._entries(self._indices(records))], -1)
        key, value = own.flatten(-2).unbind(-2)
        return key, value

    def scores(self, query: Tensor, records: Tensor) -> Tensor:
        """See ``KeyValues``. The pool is scored once, then looked up: keys are never rebuilt."""
        width = self.config.user_dim // self.heads
        found = None
        if self.user is not None:
            own = self._kept(records)[..., 0, :, :].transpose(1, 2)  # [B, H, n, U]
            found = query[..., :width] @ own.mT  # [B, H, M, n]
        if self.pool is not None:
            pool = self.pool[0].permute(1, 2, 0)  # [H, G, L m]
            of_pool = query[..., width:] @ pool  # [B, H, M, L m]
            place = self._places(records, 0).flatten(1)[:, None, None]  # [B, 1, 1, n L]
            shared = of_pool.gather(-1, place.expand(*of_pool.shape[:-1], -1))
            shared = shared.unflatten(-1, (-1, self.config.pool_levels)).sum(-1)
            found = shared if found is None else found + shared
        assert found is not None
        return found

    def mix(self, weights: Tensor, records: Tensor) -> Tensor:
        """See ``KeyValues``. Weights are summed by pool entry before any value is touched."""
        parts = []
        if self.user is not None:
            own = self._kept(records)[..., 1, :, :].transpose(1, 2)  # [B, H, n, U]
            parts.append(weights @ own)
        if self.pool is not None:
            place = self._places(records, 1).flatten(1)[:, None, None]  # [B, 1, 1, n L]
            each = weights.repeat_interleave(self.config.pool_levels, -1)  # [B, H, M, n L]
            bins = weights.new_zeros(*weights.shape[:-1], self.pool.shape[1])
            bins.scatter_add_(-1, place.expand_as(each), each)  # [B, H, M, L m]
            parts.append(bins @ self.pool[1].transpose(0, 1))
        return torch.cat(parts, -1)

    def choices(self, x: Tensor) -> Tensor:
        """The pool entries of events, int64 ``[..., 2, L]``: of the key, of the value."""
        return self._route(x)[1]

    def _route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of all entries ``[..., 2, L, m]``, and the highest, int64 ``[..., 2, L]``."""
        assert self.router is not None and self.pool is not None
        scores = [self.router(x).unflatten(-1, (2, -1))]
        index = [scores[0].argmax(-1)]
        if self.config.pool_levels > 1:
            levels = self.pool.detach().flatten(2).unflatten(1, (-1, self.config.pool_size))
            missing = self.whole(x).unflatten(-1, (2, -1))  # [..., 2, H G]
            for level in range(1, self.config.pool_levels):
                before, pool = levels[:, level - 1], levels[:, level]  # [2, m, H G]
                rows = torch.stack([before[part][index[-1][..., part]] for part in (0, 1)], -2)
                missing = missing - rows
                near = torch.einsum("...pk,pmk->...pm", missing, pool) - pool.square().sum(-1) / 2
                factor, height = self.nearness[:, level - 1, None], self.height[:, level - 1]
                scores.append(factor * near + height)
                index.append(scores[-1].argmax(-1))
        return torch.stack(scores, -2), torch.stack(index, -1)

    def _entries(self, index: Tensor, gates: Tensor | None = None) -> Tensor:
        """The sums of pool entries ``[..., 2, H, G]`` of ``index`` int64 ``[..., 2, L]``.

        ``gates`` ``[..., 2, L, 1]`` multiply them.
        """
        assert self.pool is not None
        device, entries = index.device, self.pool.shape[1]
        first = torch.arange(0, entries, self.config.pool_size, device=device)
        flat = index + first + torch.tensor([[0], [entries]], device=device)
        found = F.embedding(flat, self.pool.flatten(2).flatten(0, 1))  # [..., 2, L, H G]
        found = found if gates is None else found * gates
        return found.sum(-2).unflatten(-1, (self.heads, -1))

    def _own(self, x: Tensor) -> Tensor:
        """An event's own numbers as the cache will give them back, ``[..., 2, H, U]``.

        Rounding passes gradients through as if it were not there.
        """
        if self.user is None:
            return x.new_zeros(*x.shape[:-1], 2, self.heads, 0)
        own = self.user(x)
        if self.config.user_type == "int8":
            own = torch.tanh(own)
            own = own + (torch.round(own * LEVELS) / LEVELS - own).detach()
            own = own * self.scale
        elif self.config.user_type == "fp16":
            own = own + (own.half().float() - own).detach()
        return own.unflatten(-1, (2, self.heads, -1))

    def _as_kept(self, own: Tensor) -> Tensor:
        if self.config.user_type == "int8":
            return torch.round(torch.tanh(own) * LEVELS).to(torch.int8)
        return own.half() if self.config.user_type == "fp16" else own

    def _kept(self, records: Tensor) -> Tensor:
        """An event's own numbers from its record, ``[..., 2, H, U]``."""
        if self.user is None:
            return torch.zeros(*records.shape[:-1], 2, self.heads, 0, device=records.device)
        kept = records[..., : self.user_bytes]
        if self.config.user_type == "int8":
            own = kept.view(torch.int8) * (self.scale / LEVELS)
        else:
            kind = torch.float16 if self.config.user_type == "fp16" else torch.float32
            # Copied, because records are not aligned.
            own = kept.clone(memory_format=torch.contiguous_format).view(kind).float()
        return own.unflatten(-1, (2, self.heads, -1))

    def _indices(self, records: Tensor) -> Tensor:
        """Pool entries of records, int64 ``[..., 2, L]``."""
        shape = (2, self.config.pool_levels, self.index_bytes)
        return from_bytes(records[..., self.user_bytes :].unflatten(-1, shape))

    def _places(self, records: Tensor, part: int) -> Tensor:
        """Where in the pools of keys (0) or values (1) those entries are, int64 ``[..., L]``."""
        entries, size = self.config.pool_levels * self.config.pool_size, self.config.pool_size
        first = torch.arange(0, entries, size, device=records.device)
        return self._indices(records)[..., part, :] + first


def key_values(
    dim: int,
    heads: int,
    kind: Literal["full", "collective"],
    config: CollectiveConfig,
    activation: Callable[[Tensor], Tensor] = nn.Identity(),  # noqa: B008 - holds no state
) -> KeyValues:
    """Keys and values of either kind. ``activation`` is of full ones only."""
    if kind == "full":
        return FullKeyValues(dim, heads, activation)
    return CollectiveKeyValues(dim, heads, config)


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
