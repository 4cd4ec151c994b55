"""CollectiveKV (arXiv 2601.19178, ICLR 2026): keys and values that users share.

Of an event a few numbers of its own are kept, and which entries of pools, that all users share,
stand for the rest: of one pool as in the paper, or of several (``pool_levels``), each for what
those before it leave out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.nn.key_values import (
    BYTES,
    FullKeyValues,
    KeyValues,
    bytes_for,
    from_bytes,
    to_bytes,
)

POOL_WIDTH = 0.1
"""Width of the normal distribution of first pool entries, near that of first full keys."""

LEVELS = 127
_PARTS = torch.tensor([[0], [1]])
"""Keys and values, as an index."""


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


class Routed(NamedTuple):
    """What a router made of events.

    Attributes:
        scores: ``[..., 2, m]``, of the first level's entries, for keys and for values.
        height: ``[..., 2]``, the highest of them.
        index: int64 ``[..., 2, L]``, the chosen entries.
    """

    scores: Tensor
    height: Tensor
    index: Tensor


class CollectiveKeyValues(KeyValues):
    """A few numbers of an event's own, and entries of pools, side by side in every head.

    A router chooses the entry with the highest score M. In training it is multiplied by the gate
    sigmoid(M), so that the router learns; otherwise it is taken as it is. The peak loss draws the
    gates of chosen entries to 1, which closes the gap between the two; the balance loss is the
    divergence of the mean of softmax(M) over a batch from uniform. Keys and values have routers
    and pools of their own. What the paper leaves open and we chose: the division among heads,
    both losses' exact form, and int8 with tanh, so that eight bits need no scale per event.

    Several levels are ours. The entries that an event chooses, one a level, are added up. From the
    second level on it is the entry nearest to what is missing: to a linear function of the event,
    less the entries chosen before. That function does not learn, and these levels have no gates,
    though their entries learn as all do: routers that learnt used ever fewer entries.
    """

    def __init__(self, dim: int, heads: int, config: CollectiveConfig) -> None:
        """``config`` must fit (``config.problem``)."""
        super().__init__()
        self.config, self.heads = config, heads
        pooled = dim - config.user_dim if config.pool_size else 0
        self.key_dim = self.value_dim = config.user_dim + pooled
        self.routed: Routed | None = None  # of the last forward, if the router learns
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
        if levels > 1:  # what the entries of all levels stand for
            self.whole = nn.Linear(dim, 2 * pooled).requires_grad_(False)
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
            routed = self._route(x)
            learning = self.training and self.config.train_router
            gate = torch.sigmoid(routed.height) if learning or self.gated else None
            self.routed = routed if learning else None
            parts = torch.cat([own, self._entries(routed.index, gate)], -1)  # [..., 2, H, U + G]
        key, value = parts.flatten(-2).unbind(-2)
        return key, value

    def penalty(self, real: Tensor | None = None) -> Tensor | None:
        """See ``KeyValues``: the mean of both losses, for keys and values together."""
        if self.routed is None:
            return None
        scores = self.routed.scores
        scores = scores.flatten(0, -3) if real is None else scores[real]  # [E, 2, m]
        if not len(scores):  # no event was seen, and a mean of none is no number
            return None
        peak = -F.logsigmoid(scores.amax(-1)).mean()
        share = torch.softmax(scores, -1).mean(0)  # [2, m]
        divergence = (share * (share.clamp_min(1e-12).log() + math.log(share.shape[-1]))).sum()
        return 2 * self.config.peak * peak + self.config.balance * divergence

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
        return self._route(x).index

    def _route(self, x: Tensor) -> Routed:
        """Which entries events ``[..., D]`` choose."""
        assert self.router is not None
        scores = self.router(x).unflatten(-1, (2, -1))  # [..., 2, m]
        height, first = scores.max(-1)
        index = first[..., None] if self.config.pool_levels == 1 else self._nearest(x, first)
        return Routed(scores, height, index)

    @torch.no_grad()
    def _nearest(self, x: Tensor, first: Tensor) -> Tensor:
        """Entries of all levels, int64 ``[..., 2, L]``, after ``first`` ``[..., 2]``."""
        assert self.pool is not None
        pools = self.pool.flatten(2).unflatten(1, (-1, self.config.pool_size))  # [2, L, m, H G]
        missing = self.whole(x).reshape(-1, 2, pools.shape[-1]).transpose(0, 1)  # [2, E, H G]
        index = [first.reshape(-1, 2).T]  # each [2, E]
        for level in range(1, self.config.pool_levels):
            missing = missing - pools[_PARTS, level - 1, index[-1]]
            pool = pools[:, level]
            half = pool.square().sum(-1)[:, None] / 2  # [2, 1, m]
            index.append(torch.baddbmm(-half, missing, pool.mT).argmax(-1))
        return torch.stack(index, -1).transpose(0, 1).reshape(*first.shape, len(index))

    def _entries(self, index: Tensor, gate: Tensor | None = None) -> Tensor:
        """The sums of pool entries ``[..., 2, H, G]`` of ``index`` int64 ``[..., 2, L]``.

        ``gate`` ``[..., 2]`` multiplies those of the first level.
        """
        assert self.pool is not None
        levels, entries = self.config.pool_levels, self.pool.shape[1]
        first = torch.arange(0, entries, self.config.pool_size, device=index.device)
        place = index + first + torch.tensor([[0], [entries]], device=index.device)
        weights = None
        if gate is not None:
            gates = F.pad(gate[..., None], (0, levels - 1), value=1.0)
            weights = gates.reshape(-1, levels).to(self.pool.dtype)
        table = self.pool.flatten(2).flatten(0, 1)  # [2 L m, H G]
        place = place.reshape(-1, levels)
        found = F.embedding_bag(place, table, mode="sum", per_sample_weights=weights)
        return found.view(*index.shape[:-1], self.heads, self.pool.shape[-1])

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
