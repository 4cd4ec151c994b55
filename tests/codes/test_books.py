"""Codebooks find the nearest codes; the ways are the best there are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from foretaste.codes.books import ProductBooks, ResidualBooks


def everything(sizes: list[int]) -> torch.Tensor:
    return torch.tensor(list(product(*(range(size) for size in sizes))))


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def product_books() -> ProductBooks:
    generator = torch.Generator().manual_seed(2)
    return ProductBooks([torch.randn(size, 2, generator=generator) for size in (3, 4, 5)])


@pytest.fixture
def residual_books() -> ResidualBooks:
    generator = torch.Generator().manual_seed(3)
    scales = (1.0, 0.5, 0.25)
    return ResidualBooks([s * torch.randn(4, 6, generator=generator) for s in scales])


def test_slots_find_the_very_nearest(points: torch.Tensor, product_books: ProductBooks) -> None:
    table = everything([3, 4, 5])
    distances = torch.cdist(points, product_books.decode(table)).square()
    found = product_books.encode(points)
    assert torch.equal(found.codes[:, 0], table[distances.argmin(1)])
    torch.testing.assert_close(found.costs[:, 0], distances.min(1).values)


@pytest.mark.parametrize("width", [1, 7, 60, 500])
def test_the_ways_of_slots_are_the_best_in_order(
    points: torch.Tensor, product_books: ProductBooks, width: int, monkeypatch
) -> None:
    monkeypatch.setattr("foretaste.codes.kmeans.NUMBERS_AT_ONCE", 100)  # a row at a time
    table = everything([3, 4, 5])
    distances = torch.cdist(points, product_books.decode(table)).square()
    best = distances.topk(min(width, 60), largest=False)
    found = product_books.ways(points, width)
    assert torch.equal(found.codes, table[best.indices])
    torch.testing.assert_close(found.costs, best.values, atol=1e-5, rtol=1e-5)


def test_levels_take_the_nearest_code_of_what_is_left(
    points: torch.Tensor, residual_books: ResidualBooks
) -> None:
    rest, expected = points.clone(), []
    for book in residual_books.books:
        code = torch.cdist(rest, book).argmin(1)
        rest -= book[code]
        expected.append(code)
    found = residual_books.encode(points)
    assert torch.equal(found.codes[:, 0], torch.stack(expected, 1))
    torch.testing.assert_close(found.costs[:, 0], rest.square().sum(1))
    torch.testing.assert_close(points - rest, residual_books.decode(found.codes[:, 0]))


def test_the_ways_of_levels_are_all_of_them_when_there_is_room(
    points: torch.Tensor, residual_books: ResidualBooks
) -> None:
    table = everything([4, 4, 4])
    distances = torch.cdist(points, residual_books.decode(table)).square()
    best = distances.topk(64, largest=False)
    found = residual_books.ways(points, 64)
    torch.testing.assert_close(found.costs, best.values, atol=1e-5, rtol=1e-5)
    narrow = residual_books.ways(points, 5)
    assert all(len({tuple(way) for way in row}) == 5 for row in narrow.codes.tolist())
    true = (
        points[:, None] - torch.stack([residual_books.decode(c) for c in narrow.codes])
    ).square()
    torch.testing.assert_close(narrow.costs, true.sum(2), atol=1e-5, rtol=1e-5)
    assert (narrow.costs.diff(dim=1) >= 0).all()


def test_factors_turn_points_away_from_used_codes() -> None:
    book = torch.tensor([[0.0], [1.0]])
    plain = ResidualBooks([book]).encode(torch.tensor([[0.45]]))
    turned = ResidualBooks([book], [torch.tensor([1.3, 0.7])]).encode(torch.tensor([[0.45]]))
    assert (plain.codes.item(), turned.codes.item()) == (0, 1)
    assert turned.costs.item() == pytest.approx(0.55**2)
    assert np.isclose(plain.costs.item(), 0.45**2)
