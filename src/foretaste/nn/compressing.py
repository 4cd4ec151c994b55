"""Collective keys and values that begin where full ones have arrived.

A full key is a linear function of its event, so the entry of a pool nearest to it is found by a
linear router: ``|k - c|^2`` is smallest where ``k c' - |c|^2 / 2`` is largest. Pools begin as the
centres of k-means over the keys of many events; each head is turned so that its first numbers are
the directions in which keys differ most from their centres, and those become the event's own part.
Queries and outputs turn with them. What is left to training is to make up for the rest.

Pools of further levels begin as the centres of k-means over what is missing after the levels before
them, in what is left of a head beside the event's own numbers.

Keys with an activation are sorted by what they were before it, where the router is as exact; what
asks them and norms them is not free to turn, so the numbers of a head change places only. Those
with most left over become the event's own, made by the linear function that fits them best.

A router that is not to be trained stays as it is, at random: entries begin as the means of the keys
that it sends to each, and the rest makes up for what they leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foretaste.nn.collective import CollectiveConfig, CollectiveKeyValues
from foretaste.nn.key_values import FullKeyValues, KeyValues

ROUNDS = 15
SETTLING = 3
"""Rounds in which entries become the means of what is missing where they are chosen."""
OPEN_GATE = 4.0
"""Where the scores of chosen entries begin, in the mean, and at most 1 apart: gates near 0.98."""

LINEAR = 3.0
"""Own numbers begin within 1 / 3 of the scale of the tanh, where it is nearly straight."""

AT_ONCE = 8_192
"""Events that are compared with all entries at a time."""


class Part(NamedTuple):
    """Keys, or values, of a full module in the form of a collective one.

    Attributes:
        turn: ``[H, K, K']``, from a head's old directions to those that are kept of it.
        own_weight: ``[H * U, D]``; with ``own_bias`` ``[H * U]``, the own part of an event.
        own_bias: see there.
        entries: ``[L m, H, G]``, of the pool, level by level; None without a pool.
        route_weight: ``[m, D]``; with ``route_bias`` ``[m]``, the router; empty if it is not set.
        route_bias: see there.
        whole_weight: ``[H * G, D]``; with ``whole_bias`` ``[H * G]``, what the entries stand for.
        whole_bias: see there.
    """

    turn: Tensor
    own_weight: Tensor
    own_bias: Tensor
    entries: Tensor | None
    route_weight: Tensor
    route_bias: Tensor
    whole_weight: Tensor
    whole_bias: Tensor


class Turns(NamedTuple):
    """How the heads of keys and of values were turned, each ``[H, K, K']`` (see ``Part``)."""

    key: Tensor
    value: Tensor


@torch.no_grad()
def begin_key_values(made: KeyValues, whole: KeyValues, x: Tensor, seed: int) -> Turns:
    """Set collective keys and values ``made`` from full ones.

    What asks and what reads them must turn with them (``turn_query``, ``turn_output``). With an
    activation a turn only changes the places of numbers.

    Args:
        made: collective, of the same width and heads.
        whole: trained, full.
        x: ``[n, D]``, events; at least as many as pool entries.
        seed: of k-means.
    """
    assert isinstance(made, CollectiveKeyValues) and isinstance(whole, FullKeyValues)
    weights = whole.project.weight.chunk(2), whole.project.bias.chunk(2)
    key, value = (
        _part(weight, bias, whole.activation, x, made, place, seed)
        for place, (weight, bias) in enumerate(zip(*weights, strict=True))
    )
    for layer, parts in (
        (made.user, [(part.own_weight, part.own_bias) for part in (key, value)]),
        (made.router, [(part.route_weight, part.route_bias) for part in (key, value)]),
    ):
        if layer is not None and (layer is made.user or made.config.train_router):
            layer.weight.copy_(torch.cat([weight for weight, _ in parts]))
            layer.bias.copy_(torch.cat([bias for _, bias in parts]))
    if made.config.pool_levels > 1:
        made.whole.weight.copy_(torch.cat([part.whole_weight for part in (key, value)]))
        made.whole.bias.copy_(torch.cat([part.whole_bias for part in (key, value)]))
    if made.user is not None and made.config.user_type == "int8":
        reach = LINEAR * made.user(x).abs().amax(0).clamp_min(1e-6)
        made.scale.copy_(reach)
        made.user.weight.div_(reach[:, None])
        made.user.bias.div_(reach)
    if made.pool is not None:
        assert key.entries is not None and value.entries is not None
        made.pool.copy_(torch.stack([key.entries, value.entries]))
    return Turns(key.turn, value.turn)


def _part(
    weight: Tensor,
    bias: Tensor,
    activation: Callable[[Tensor], Tensor],
    x: Tensor,
    made: CollectiveKeyValues,
    place: int,
    seed: int,
) -> Part:
    """Keys (``place`` 0) or values (1) ``activation(weight x + bias)`` in collective form."""
    heads, config = made.heads, made.config
    free = isinstance(activation, nn.Identity)
    raw = x @ weight.T + bias  # [n, D]
    vectors = activation(raw)
    residual, entries, chosen = vectors - vectors.mean(0), None, None
    route = weight[:0], bias[:0]
    if config.pool_size and config.train_router:
        centres = k_means(raw, config.pool_size, seed)  # [m, D]
        entries, chosen = activation(centres), _nearest(raw, centres)
        residual, route = vectors - entries[chosen], _router(x, weight, bias, centres)
    elif config.pool_size:
        chosen = torch.cat([made.choices(part)[:, place, 0] for part in x.split(AT_ONCE)])
        entries = _means(vectors, chosen, config.pool_size)
        residual = vectors - entries[chosen]
    own = config.user_dim // heads
    kept = weight.shape[0] // heads if config.pool_size else own
    turn = (_directions if free else _places)(residual.unflatten(1, (heads, -1)))[:, :, :kept]
    if free:
        whole_weight, whole_bias = turned(weight, turn), turned(bias[:, None], turn)[:, 0]
    else:
        goal = torch.einsum("nhk,hkl->nhl", vectors.unflatten(1, (heads, -1)), turn)
        with_one = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        fitted = torch.linalg.lstsq(with_one, goal.flatten(1)).solution  # [D + 1, H K']
        whole_weight, whole_bias = fitted[:-1].T, fitted[-1]
    by_head = whole_weight.unflatten(0, (heads, -1)), whole_bias.unflatten(0, (heads, -1))
    (own_weight, own_bias), (weight, bias) = (
        [part[:, cut].flatten(0, 1) for part in by_head] for cut in (slice(own), slice(own, None))
    )
    if entries is not None:
        entries = torch.einsum("mhk,hkl->mhl", entries.unflatten(1, (heads, -1)), turn)[:, :, own:]
        if config.pool_levels > 1:
            missing = torch.einsum("nhk,hkl->nhl", residual.unflatten(1, (heads, -1)), turn)
            missing = missing[:, :, own:].flatten(1)
            guessed = x @ weight.T + bias - entries[chosen].flatten(1)
            pools = _levels(missing, guessed, config, seed).unflatten(-1, (heads, -1))
            entries = torch.cat([entries, pools.flatten(0, 1)])
    return Part(turn, own_weight, own_bias, entries, *route, weight, bias)


def _levels(missing: Tensor, guessed: Tensor, config: CollectiveConfig, seed: int) -> Tensor:
    """Pools of the levels after the first, each of what the one before left.

    Args:
        missing: ``[n, K]``, what the first level leaves.
        guessed: the same as far as it is a linear function of events, which chooses entries.
        config: how many levels and entries.
        seed: of k-means.

    Returns:
        ``[L - 1, m, K]``.
    """
    pools = []
    for level in range(1, config.pool_levels):
        pool = k_means(guessed, config.pool_size, seed + level)
        for _ in range(SETTLING):
            pool = _means(missing, _nearest(guessed, pool), config.pool_size)
        taken = pool[_nearest(guessed, pool)]
        pools.append(pool)
        missing, guessed = missing - taken, guessed - taken
    return torch.stack(pools)


def _router(x: Tensor, weight: Tensor, bias: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Weight ``[m, D]`` and bias ``[m]`` that are highest for the centre nearest to an event."""
    route = centres @ weight  # [m, D]
    height = centres @ bias - centres.square().sum(1) / 2  # [m]
    best = (x @ route.T + height).amax(1)
    factor = 1 / best.std().clamp_min(1)  # does not change which entry is the highest
    return route * factor, (height - best.mean()) * factor + OPEN_GATE


def _means(vectors: Tensor, chosen: Tensor, count: int) -> Tensor:
    """The mean of the vectors of each of ``count`` choices, ``[m, D]``; of all where none is."""
    counts = chosen.bincount(minlength=count)[:, None]
    sums = vectors.new_zeros(count, vectors.shape[1]).index_add_(0, chosen, vectors)
    return torch.where(counts > 0, sums / counts.clamp_min(1), vectors.mean(0))


def _directions(residual: Tensor) -> Tensor:
    """Of each head in ``[n, H, K]`` the directions with most in them first, ``[H, K, K]``."""
    spread = torch.einsum("nhk,nhl->hkl", residual, residual)
    return torch.linalg.eigh(spread).eigenvectors.flip(2)


def _places(residual: Tensor) -> Tensor:
    """Of each head in ``[n, H, K]`` the numbers with most in them first, ``[H, K, K]``."""
    order = residual.square().sum(0).argsort(1, descending=True)  # [H, K]
    return nn.functional.one_hot(order).to(residual.dtype).mT


def turned(rows: Tensor, turn: Tensor) -> Tensor:
    """Rows ``[H K, ...]`` that make numbers of heads, so that they make turned ones."""
    return torch.einsum("hkd,hkl->hld", rows.unflatten(0, (len(turn), -1)), turn).flatten(0, 1)


@torch.no_grad()
def turn_query(to: nn.Linear, full: nn.Linear, turn: Tensor, factor: float) -> None:
    """Have ``to`` ask turned keys as ``full`` asked the old ones, times ``factor``."""
    to.weight.copy_(turned(full.weight, turn) * factor)
    to.bias.copy_(turned(full.bias[:, None], turn)[:, 0] * factor)


@torch.no_grad()
def turn_output(to: nn.Linear, full: nn.Linear, turn: Tensor) -> None:
    """Have ``to`` read turned values as ``full`` read the old ones."""
    weight = torch.einsum("dhk,hkl->dhl", full.weight.unflatten(1, (len(turn), -1)), turn)
    to.weight.copy_(weight.flatten(1))
    to.bias.copy_(full.bias)


def k_means(vectors: Tensor, count: int, seed: int) -> Tensor:
    """``count`` centres ``[m, D]`` of ``vectors`` ``[n, D]`` (Lloyd).

    They begin at vectors drawn by the square of their distance from those before (k-means++). A
    centre that nothing is nearest to moves to the vector that is farthest from its own.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen, far = [0], torch.full((len(vectors),), torch.inf)
    while len(chosen) < count:
        far = torch.minimum(far, (vectors - vectors[chosen[-1]]).square().sum(1).cpu())
        chosen.append(int(torch.multinomial(far + 1e-12, 1, generator=generator)))
    centres = vectors[chosen].clone()
    for _ in range(ROUNDS):
        nearest = _nearest(vectors, centres)
        counts = nearest.bincount(minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        far = (vectors - centres[nearest]).square().sum(1).argsort(descending=True)
        centres = sums / counts.clamp_min(1)[:, None]
        empty = (counts == 0).nonzero().squeeze(1)
        centres[empty] = vectors[far[: len(empty)]]
    return centres


def _nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each vector, int64 ``[n]``."""
    height = centres.square().sum(1) / 2  # [m]
    return torch.cat([(part @ centres.T - height).argmax(1) for part in vectors.split(AT_ONCE)])
