"""Slots in any order: what remains, who agrees, and the exact best, against plain loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.codes.parallel import FREE, Hidden, SlotIndex
from foretaste.codes.trie import NoContinuationError
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

from .catalogs import random_table, tables

SIZE = 6


def agreeing_by_hand(table: np.ndarray, fixed: list[int]) -> list[int]:
    return [
        item
        for item, row in enumerate(table.tolist())
        if all(code in (FREE, own) for code, own in zip(fixed, row, strict=True))
    ]


@given(tables())
def test_filling_slots_in_every_order_gives_the_catalog(table: np.ndarray) -> None:
    index = SlotIndex.from_table(table, SIZE)
    slots = table.shape[1]
    for subset in (s for size in range(slots + 1) for s in combinations(range(slots), size)):
        # Every fixing of these slots that an item has, and for each what may still follow.
        for own in np.unique(table[:, list(subset)], axis=0):
            fixed = np.full(slots, FREE)
            fixed[list(subset)] = own
            row = torch.from_numpy(fixed)[None]
            expected = agreeing_by_hand(table, fixed.tolist())
            assert index.agreeing(row).items.tolist() == expected
            mask = index.allowed(row)[0]
            for slot in range(slots):
                remain = sorted(set(table[expected, slot].tolist()))
                assert mask[slot].nonzero().flatten().tolist() == remain


@given(tables(), st.integers(0, 99))
def test_codes_of_hidden_items_alone_do_not_remain(table: np.ndarray, seed: int) -> None:
    index, rng = SlotIndex.from_table(table, SIZE), np.random.default_rng(seed)
    lists = [rng.integers(len(table), size=rng.integers(len(table) + 1)) for _ in range(3)]
    pairs = index.pairs(Sequences.from_lists([one.tolist() for one in lists]))
    queries = np.array([0, 0, 2])  # of query 1 nothing is asked
    fixed = table[rng.integers(len(table), size=3)]
    for known in (np.zeros(fixed.shape, bool), rng.random(fixed.shape) < 0.5):
        asked = np.where(known, fixed, FREE)
        hidden = Hidden(pairs, torch.from_numpy(queries))
        mask = index.allowed(torch.from_numpy(asked).long(), hidden)
        for row, query in enumerate(queries):
            left = set(agreeing_by_hand(table, asked[row].tolist())) - set(lists[query].tolist())
            for slot in range(table.shape[1]):
                remain = sorted({int(table[item, slot]) for item in left})
                assert mask[row, slot].nonzero().flatten().tolist() == remain


@given(tables(), st.integers(0, 99))
def test_every_other_code_is_refused(table: np.ndarray, seed: int) -> None:
    index = SlotIndex.from_table(table, SIZE)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        fixed = rng.integers(FREE, SIZE, table.shape[1])
        row = torch.from_numpy(fixed)[None]
        expected = agreeing_by_hand(table, fixed.tolist())
        if expected:
            assert index.agreeing(row).items.tolist() == expected
        else:
            with pytest.raises(NoContinuationError, match=r"no item has the codes .* \(row 0\)"):
                index.allowed(row)


def test_many_rows_are_as_one_by_one() -> None:
    table = random_table(500, (SIZE,) * 4)
    index = SlotIndex.from_table(table, SIZE)
    rng = np.random.default_rng(0)
    fixed = np.where(rng.random((40, 4)) < 0.5, FREE, table[rng.integers(500, size=40)])
    found = index.agreeing(torch.from_numpy(fixed))
    assert found.rows.tolist() == sorted(found.rows.tolist())
    for row in range(40):
        own = found.items[found.rows == row].tolist()
        assert own == agreeing_by_hand(table, fixed[row].tolist())


@pytest.mark.parametrize("rows", [1, 3])
def test_scores_are_sums_of_the_codes(rows: int, monkeypatch) -> None:
    monkeypatch.setattr("foretaste.codes.parallel.NUMBERS_AT_ONCE", 50 * rows)
    table = random_table(200, (SIZE,) * 3)
    index = SlotIndex.from_table(table, SIZE)
    log_probs = torch.randn(rows, 3, SIZE + 2).log_softmax(2)
    expected = torch.stack([log_probs[:, slot, table[:, slot]] for slot in range(3)]).sum(0)
    torch.testing.assert_close(index.score(log_probs), expected)
    best = expected.topk(7)
    found = index.top_items(log_probs, 7)
    assert torch.equal(found.items, best.indices)
    torch.testing.assert_close(found.log_probs, best.values)


@pytest.mark.parametrize("rows", [1, 3])
def test_normalised_scores_are_shares_of_all_items(rows: int, monkeypatch) -> None:
    monkeypatch.setattr("foretaste.codes.parallel.NUMBERS_AT_ONCE", 50 * rows)  # several blocks
    index = SlotIndex.from_table(random_table(200, (SIZE,) * 3), SIZE)
    logits = 3 * torch.randn(rows, 3, SIZE)
    expected = index.score(logits).log_softmax(1)
    every = index.top_items(logits, 200, normalise=True)
    torch.testing.assert_close(every.log_probs.exp().sum(1), torch.ones(rows))
    torch.testing.assert_close(expected.gather(1, every.items), every.log_probs)
    hidden = Sequences.from_lists([every.items[row, :5].tolist() for row in range(rows)])
    few = index.top_items(logits, 7, hidden=hidden, normalise=True)  # hidden items keep their share
    assert torch.equal(few.items, every.items[:, 5:12])
    torch.testing.assert_close(few.log_probs, every.log_probs[:, 5:12])


@pytest.mark.parametrize("group", [1, 3, 64])
def test_groups_hide_no_item(group: int, monkeypatch) -> None:
    monkeypatch.setattr("foretaste.codes.best.GROUP", group)
    table = random_table(1_000, (SIZE,) * 4)
    index = SlotIndex.from_table(table, SIZE)
    log_probs = torch.randn(5, 4, SIZE).log_softmax(2)
    best = index.score(log_probs).topk(8)
    found = index.top_items(log_probs, 8)
    torch.testing.assert_close(found.log_probs, best.values)
    torch.testing.assert_close(index.score(log_probs).gather(1, found.items), best.values)


def test_hidden_items_and_a_short_catalog() -> None:
    table = random_table(5, (SIZE, SIZE))
    index = SlotIndex.from_table(table, SIZE)
    log_probs = torch.randn(2, 2, SIZE)
    order = index.score(log_probs).argsort(1, descending=True)
    hidden = Sequences.from_lists([order[0, :2].tolist(), []])
    found = index.top_items(log_probs, 6, hidden=hidden)
    assert found.items[0].tolist() == [*order[0, 2:].tolist(), -1, -1, -1]
    assert found.items[1].tolist() == [*order[1].tolist(), -1]
    assert found.log_probs[1, 5] == -torch.inf


@settings(deadline=None)
@given(tables(), st.integers(0, 99))
def test_the_last_stage_takes_the_best_agreeing_items(table: np.ndarray, seed: int) -> None:
    index = SlotIndex.from_table(table, SIZE)
    rng = np.random.default_rng(seed)
    slots, beams, count, k = table.shape[1], 6, 2, 4
    own = table[rng.integers(len(table), size=beams)]
    fixed = np.where(rng.random((beams, slots)) < 0.5, FREE, own)
    start = rng.standard_normal(beams)
    log_probs = rng.standard_normal((beams, slots, SIZE))
    queries = rng.integers(count, size=beams)
    unwanted = [rng.integers(len(table), size=2).tolist() for _ in range(count)]
    found = index.top_agreeing(
        torch.from_numpy(fixed),
        torch.from_numpy(start).float(),
        torch.from_numpy(log_probs),
        torch.from_numpy(queries),
        count,
        k,
        hidden=Sequences.from_lists(unwanted),
    )
    for query in range(count):
        best: dict[int, float] = {}
        for beam in np.flatnonzero(queries == query):
            for item in agreeing_by_hand(table, fixed[beam].tolist()):
                if item not in unwanted[query]:
                    free = np.flatnonzero(fixed[beam] == FREE)
                    score = start[beam] + log_probs[beam, free, table[item, free]].sum()
                    best[item] = max(best.get(item, -np.inf), score)
        order = sorted(best, key=lambda item: -best[item])[:k]
        assert found.items[query].tolist() == order + [-1] * (k - len(order))
        assert found.log_probs[query, : len(order)].tolist() == pytest.approx(
            [best[item] for item in order], abs=1e-4
        )
        assert found.tokens is not None
        for item, written in zip(order, found.tokens[query].numpy(), strict=False):
            assert (written == fixed[queries == query]).all(1).any()
            assert ((written == FREE) | (written == table[item])).all()


def test_with_no_fixed_slot_the_last_stage_is_the_whole_catalog() -> None:
    table = random_table(300, (SIZE,) * 4)
    index = SlotIndex.from_table(table, SIZE)
    log_probs = torch.randn(3, 4, SIZE).log_softmax(2)
    free = torch.full((3, 4), FREE)
    found = index.top_agreeing(free, torch.zeros(3), log_probs, torch.arange(3), 3, 10)
    whole = index.top_items(log_probs, 10)
    assert torch.equal(found.items, whole.items)
    torch.testing.assert_close(found.log_probs, whole.log_probs)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="items 0 and 2 have the same codes"):
        SlotIndex.from_table(np.array([[1, 2], [0, 0], [1, 2]]), 3)
    with pytest.raises(InputError, match="outside 0..2"):
        SlotIndex.from_table(np.array([[1, 3]]), 3)
    with pytest.raises(InputError, match="both above 0"):
        SlotIndex.from_table(np.zeros((0, 2), int), 3)
    index = SlotIndex.from_table(random_table(5, (3, 3)), 3)
    with pytest.raises(InputError, match="not \\[B, 2\\]"):
        index.agreeing(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="a fixed code is outside"):
        index.agreeing(torch.tensor([[0, 3]]))
    with pytest.raises(InputError, match="not \\[B, 2, 3\\]"):
        index.score(torch.zeros(1, 2, 2))
    with pytest.raises(InputError, match="are NaN"):
        index.top_items(torch.full((1, 2, 3), torch.nan), 1)
    with pytest.raises(InputError, match="k = 0"):
        index.top_items(torch.zeros(1, 2, 3), 0)
    with pytest.raises(InputError, match="hidden items of 2 rows, asked are 1"):
        index.top_items(torch.zeros(1, 2, 3), 1, hidden=Sequences.from_lists([[], []]))


@given(tables(), st.integers(0, 99), st.booleans())
def test_totals_and_marginals_by_loops(table: np.ndarray, seed: int, none_fixed: bool) -> None:
    """Of rows with nothing fixed, and of rows of any kind together."""
    index, slots = SlotIndex.from_table(table, SIZE), table.shape[1]
    rng = np.random.default_rng(seed)
    fixed = table[rng.integers(len(table), size=3)].copy()
    fixed[rng.random(fixed.shape) < (1 if none_fixed else 0.5)] = FREE
    logits = torch.from_numpy(rng.normal(size=(3, slots, SIZE + 2))).float().requires_grad_()
    found = index.totals(torch.from_numpy(fixed), logits)
    expected = []
    for row in range(3):
        agrees = agreeing_by_hand(table, fixed[row].tolist())
        free = [slot for slot in range(slots) if fixed[row, slot] == FREE]
        scores = torch.stack(
            [logits[row, free, table[item, free].astype(np.int64)].sum() for item in agrees]
        )
        expected.append(scores.logsumexp(0))
        shares = scores.detach().softmax(0)
        marginals = index.marginals(torch.from_numpy(fixed), logits.detach(), found.detach())[row]
        for slot in range(slots):
            for code in range(SIZE):
                has = torch.from_numpy(table[agrees, slot] == code)
                share = shares[has].sum()
                torch.testing.assert_close(marginals[slot, code].exp(), share, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(torch.stack(expected).sum(), logits)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
