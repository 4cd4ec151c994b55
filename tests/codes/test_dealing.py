"""Every item gets a code of its own, near the one it wanted."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.codes import dealing
from foretaste.codes.books import Books, ProductBooks, ResidualBooks
from foretaste.codes.dealing import Dealt, deal, keys_of
from foretaste.errors import InputError


def line() -> ResidualBooks:
    """Two levels on a line: tens and ones, so that code (a, b) stands for 10 a + b."""
    tens = torch.arange(0.0, 50, 10)[:, None]
    return ResidualBooks([tens, torch.arange(0.0, 5)[:, None]])


def dealt(books: Books, points: np.ndarray, **options) -> Dealt:
    sizes = tuple(len(book) for book in books.books)
    vectors = torch.from_numpy(np.asarray(points, np.float32))
    found = books.encode(vectors)
    return deal(
        found.codes[:, 0].numpy(),
        found.costs[:, 0].numpy(),
        sizes,
        lambda items: vectors[torch.from_numpy(items)],
        books.ways,
        **options,
    )


def test_items_that_do_not_collide_keep_their_codes() -> None:
    found = dealt(line(), np.array([[0.1], [11.2], [44.0]]))
    assert found.table.tolist() == [[0, 0], [1, 1], [4, 4]]
    assert not found.moved.any()


def test_the_nearest_keeps_the_code_and_the_other_takes_the_nearest_free_one() -> None:
    found = dealt(line(), np.array([[12.4], [12.1], [11.0]]))
    assert found.table.tolist() == [[1, 3], [1, 2], [1, 1]]
    assert found.moved.tolist() == [True, False, False]


def test_a_free_code_goes_to_the_item_that_it_costs_least() -> None:
    # Both movers want 13: from 12.4 that costs .36, from 12.45 it costs .3025; 11 is free as well.
    found = dealt(line(), np.array([[12.0], [12.4], [12.45]]))
    assert found.table.tolist() == [[1, 2], [1, 1], [1, 3]]


def test_of_equal_items_the_first_keeps_the_code() -> None:
    found = dealt(line(), np.array([[22.0], [22.0], [22.0]]))
    assert found.table[0].tolist() == [2, 2]
    assert {tuple(row) for row in found.table.tolist()[1:]} == {(2, 1), (2, 3)}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 24), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_codes_are_unique_and_full_codebooks_are_dealt_out(
    items: int, kinds: int, ordered: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    books = [torch.randn(size, 2, generator=generator) for size in (3, 2, 4)]
    books = ResidualBooks(books) if ordered else ProductBooks(books)
    width = 2 if ordered else 6
    points = np.random.default_rng(seed).standard_normal((kinds, width))[np.arange(items) % kinds]
    found = dealt(books, points)
    assert len({tuple(row) for row in found.table.tolist()}) == items
    if items == 24:
        everything = product(range(3), range(2), range(4))
        assert {tuple(row) for row in found.table.tolist()} == set(everything)


@pytest.mark.parametrize("patience", [0, 64])
def test_a_collapsed_codebook_is_still_dealt_out(patience: int, monkeypatch) -> None:
    monkeypatch.setattr(dealing, "PATIENCE", patience)
    monkeypatch.setattr(dealing, "WAYS_AT_ONCE", 400)
    generator = torch.Generator().manual_seed(0)
    coarse, fine = torch.randn(2, 12, 2, generator=generator)
    books = ResidualBooks([coarse, 0.1 * fine])
    points = books.books[0][3].numpy() + 1e-3 * np.random.default_rng(0).standard_normal((130, 2))
    found = dealt(books, points)
    assert len({tuple(row) for row in found.table.tolist()}) == 130
    assert found.moved.sum() == 129


def test_a_great_crowd_is_dealt_out_around_its_middle_in_short_time() -> None:
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    books = ResidualBooks([torch.randn(64, 8, generator=generator) / 2**n for n in range(3)])
    crowd = 1e-3 * rng.standard_normal((6_000, 8))
    alone = books.decode(torch.from_numpy(rng.integers(0, 64, (2_000, 3)))).numpy()
    nameless = np.zeros((3_000, 8))
    points = np.concatenate([crowd, alone, nameless]).astype(np.float32)
    asked = []

    def counted(some: torch.Tensor, width: int):
        asked.append(len(some) * width)
        return ResidualBooks.ways(books, some, width)

    vectors = torch.from_numpy(points)
    found = books.encode(vectors)
    codes, costs = found.codes[:, 0].numpy(), found.costs[:, 0].numpy()
    result = deal(codes, costs, (64,) * 3, lambda items: vectors[items], counted)
    assert len(np.unique(result.table, axis=0)) == len(points)
    # All the ways of 9,000 points would be 81 million; a few hundred for each are these.
    assert sum(asked) < 9_000 * 600
    own = np.square(points - books.decode(torch.from_numpy(result.table).long()).numpy()).sum(1)
    everything = torch.cartesian_prod(*[torch.arange(64)] * 3)
    best = np.sort(books.decode(everything).square().sum(1).numpy())
    # 9,000 items around one place cannot do better than the 9,000 codes that are nearest to it.
    assert own[np.r_[:6_000, 8_000:11_000]].mean() < 1.25 * best[:9_000].mean()
    assert own[6_000:8_000].mean() < 0.1 * own[:6_000].mean()


def test_moving_greedily_costs_little_more_than_the_best_matching() -> None:
    from scipy.optimize import linear_sum_assignment

    generator = torch.Generator().manual_seed(1)
    books = ProductBooks([torch.randn(6, 2, generator=generator) for _ in range(3)])
    points = np.random.default_rng(1).standard_normal((60, 6)).astype(np.float32)
    found = dealt(books, points)
    table = torch.tensor(list(product(range(6), repeat=3)))
    costs = torch.cdist(torch.from_numpy(points), books.decode(table)).square().numpy()
    best = costs[linear_sum_assignment(costs)].sum()
    own = np.square(points - books.decode(torch.from_numpy(found.table).long()).numpy()).sum()
    assert found.moved.any()
    assert best <= own * 1.0001 and own <= 1.05 * best


def test_places_count_items_of_one_code() -> None:
    found = dealt(line(), np.array([[22.0], [22.3], [22.1], [31.0]]), places=3)
    assert found.table.tolist() == [[2, 2], [2, 2], [2, 2], [3, 1]]
    assert found.ranks.tolist() == [0, 2, 1, 0]
    fewer = dealt(line(), np.array([[22.0], [22.3], [22.1], [31.0]]), places=2)
    assert fewer.table.tolist() == [[2, 2], [2, 3], [2, 2], [3, 1]]
    assert fewer.ranks.tolist() == [0, 0, 1, 0]


def test_what_is_taken_stays_taken() -> None:
    taken = np.array([[2, 2], [2, 3]], np.int32)
    found = dealt(line(), np.array([[22.4], [0.0]]), taken=taken)
    assert found.table.tolist() == [[2, 1], [0, 0]]
    assert found.moved.tolist() == [True, False]
    more = dealt(line(), np.array([[22.0]]), taken=taken, places=2)
    assert (more.table.tolist(), more.ranks.tolist()) == ([[2, 2]], [1])


def test_too_many_items_are_refused() -> None:
    with pytest.raises(InputError, match="26 items for 25 free codes"):
        dealt(line(), np.zeros((26, 1)))
    with pytest.raises(InputError, match="1 items for 0 free codes"):
        taken = np.array(list(product(range(5), range(5))), np.int32)
        dealt(line(), np.zeros((1, 1)), taken=taken)


def test_keys_tell_rows_apart_in_their_order() -> None:
    rows = np.array([[255] * 8, [0] * 8, [0] * 7 + [1], [1] + [0] * 7], np.int32)
    keys = keys_of(rows, (256,) * 8)
    assert keys.tolist() == [2**64 - 1, 0, 1, 256**7]
    with pytest.raises(InputError, match="take 72 bits, at most 64"):
        keys_of(np.zeros((1, 9), int), (256,) * 9)
