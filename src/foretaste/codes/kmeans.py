"""K-means in bounded memory, the same for the same seed, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

NUMBERS_AT_ONCE = 2_000_000
"""Distances held at a time on a processor: 8 MB, which stay in cache."""
NUMBERS_ON_DEVICE = 64_000_000
"""The same on an accelerator, where only the number of launches counts: 256 MB."""
START_POINTS = 32
"""Points for each centre that the first centres are chosen among."""


def rows_at_once(width: int, device: torch.device) -> int:
    """How many rows of ``width`` numbers are worked on together."""
    numbers = NUMBERS_AT_ONCE if device.type == "cpu" else NUMBERS_ON_DEVICE
    return max(1, numbers // max(width, 1))


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances ``[n, K]`` of points ``[n, D]`` to centres ``[K, D]``, never below 0."""
    crossed = torch.addmm(centres.square().sum(1), points, centres.T, alpha=-2)  # [n, K]
    return crossed.add_(points.square().sum(1, keepdim=True)).clamp_min_(0)


def nearest(
    points: Tensor, centres: Tensor, factors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The nearest centre of each point; of equal ones the first.

    Args:
        points: ``[n, D]``.
        centres: ``[K, D]``.
        factors: ``[K]``, by which the squared distance to each centre is multiplied first.

    Returns:
        int64 ``[n]`` and the (multiplied) squared distances ``[n]``.
    """
    codes = torch.empty(len(points), dtype=torch.int64, device=points.device)
    costs = points.new_empty(len(points))
    lengths, step = centres.square().sum(1), rows_at_once(len(centres), points.device)
    for first in range(0, len(points), step):
        part = points[first : first + step]
        if factors is None:
            # A point's own length changes nothing about which centre is the nearest.
            found = torch.addmm(lengths, part, centres.T, alpha=-2).min(1)
            cost = found.values.add_(part.square().sum(1)).clamp_min_(0)
        else:
            found = squared_distances(part, centres).mul_(factors).min(1)
            cost = found.values
        codes[first : first + step], costs[first : first + step] = found.indices, cost
    return codes, costs


def kmeans(
    points: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    iterations: int = 25,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
) -> Tensor:
    """``size`` centres ``[size, D]`` of points ``[n, D]`` (Lloyd, begun as k-means++).

    A centre that no point is nearest to moves to the point that is worst served. It ends after
    ``iterations``, or when the mean squared distance falls by less than ``tolerance`` of itself.
    With fewer distinct points than centres some centres are equal.

    Args:
        points: at least one.
        size: centres.
        generator: of the random choices, on the CPU, whatever the device of the points.
        iterations: at most.
        tolerance: see above.
        start: centres to begin with, ``[size, D]``.
    """
    centres = _first_centres(points, size, generator) if start is None else start
    before = torch.inf
    for _ in range(iterations):
        codes, costs = nearest(points, centres)
        mean = float(costs.mean())
        if before - mean <= tolerance * mean:
            break
        before = mean
        centres = centres_of(points, codes, costs, centres)
    return centres


def centres_of(points: Tensor, codes: Tensor, costs: Tensor, centres: Tensor) -> Tensor:
    """The means of the points of each centre; empty ones go where points are worst served."""
    counts = torch.bincount(codes, minlength=len(centres))
    sums = torch.zeros_like(centres).index_add_(0, codes, points)
    means = sums / counts.clamp_min(1)[:, None]
    empty = (counts == 0).nonzero().squeeze(1)
    if len(empty):
        worst = costs.topk(min(len(empty), len(points))).indices
        means[empty] = centres[empty]
        means[empty[: len(worst)]] = points[worst]
    return means


def _first_centres(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Points far from each other (k-means++, Arthur and Vassilvitskii 2007), among a few of all."""
    limit = START_POINTS * size
    if len(points) > limit:
        drawn = torch.randperm(len(points), generator=generator)[:limit]
        points = points[drawn.to(points.device)]
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = torch.randint(len(points), (1,), generator=generator)
    draws = torch.rand(size, generator=generator, dtype=torch.float64)
    lengths = points.square().sum(1)
    distances = torch.full_like(lengths, torch.inf)
    for number in range(1, size):
        last = points[chosen[number - 1]]
        to_last = lengths - 2 * (points @ last) + last.square().sum()
        distances = torch.minimum(distances, to_last.clamp_min_(0))
        # Drawn by hand, on the CPU: torch.multinomial takes another way on every device.
        summed = distances.cpu().double().cumsum(0)
        place = int(torch.searchsorted(summed, draws[number] * summed[-1]))
        chosen[number] = min(place, len(points) - 1)
    return points[chosen.to(points.device)].clone()
