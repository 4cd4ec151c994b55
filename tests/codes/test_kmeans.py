"""K-means finds clusters that are there, the same ones each time."""

from __future__ import annotations

import pytest
import torch

from foretaste.codes.kmeans import kmeans, nearest

from .catalogs import clusters


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_that_are_far_apart_are_found(seed: int) -> None:
    points = torch.from_numpy(clusters(600, 5, 12, seed))
    centres = kmeans(points, 12, seeded(seed))
    codes = nearest(points, centres)[0]
    groups = [set(codes[group::12].tolist()) for group in range(12)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 12
    means = torch.stack([points[codes == code].mean(0) for code in range(12)])
    torch.testing.assert_close(centres, means, atol=1e-4, rtol=1e-4)


def test_nearest_is_what_all_distances_say(monkeypatch) -> None:
    monkeypatch.setattr("foretaste.codes.kmeans.NUMBERS_AT_ONCE", 64)
    points, centres = torch.randn(100, 3), torch.randn(9, 3)
    distances = torch.cdist(points, centres).square()
    codes, costs = nearest(points, centres)
    assert torch.equal(codes, distances.argmin(1))
    torch.testing.assert_close(costs, distances.min(1).values, atol=1e-5, rtol=1e-5)
    factors = torch.rand(9) + 0.5
    assert torch.equal(nearest(points, centres, factors)[0], (distances * factors).argmin(1))


def test_the_same_seed_gives_the_same_centres_whatever_the_program_drew() -> None:
    points = torch.randn(500, 4, generator=seeded(5))
    first = kmeans(points, 16, seeded(1))
    torch.rand(10)
    assert torch.equal(first, kmeans(points, 16, seeded(1)))
    assert not torch.equal(first, kmeans(points, 16, seeded(2)))


def test_no_centre_is_left_without_points() -> None:
    points = torch.randn(400, 2, generator=seeded(3))
    start = torch.full((20, 2), 50.0)  # all but one of them useless
    start[0] = 0
    centres = kmeans(points, 20, seeded(), start=start)
    assert len(nearest(points, centres)[0].unique()) == 20


def test_fewer_distinct_points_than_centres() -> None:
    points = torch.tensor([[0.0, 1.0], [4.0, 4.0]]).repeat(10, 1)
    centres = kmeans(points, 5, seeded())
    assert float(nearest(points, centres)[1].max()) == 0
    assert torch.isfinite(centres).all()
