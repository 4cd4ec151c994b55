"""The trie accepts the catalog, all of it and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.codes.trie import NoContinuationError, Trie
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

from .catalogs import path_lists, random_table, tables

END = 9


def accepted(trie: Trie) -> dict[int, tuple[int, ...]]:
    """Everything that can be written by following masks, one state at a time: item -> path."""
    found: dict[int, tuple[int, ...]] = {}
    waiting: list[tuple[tuple[int, ...], torch.Tensor]] = [((), trie.start(1))]
    while waiting:
        path, state = waiting.pop()
        item = int(trie.items(state))
        if item >= 0:
            assert item not in found
            found[item] = path
            with pytest.raises(NoContinuationError):
                trie.mask(state)
            continue
        for token in trie.mask(state)[0].nonzero().flatten().tolist():
            waiting.append(((*path, token), trie.step(state, torch.tensor([token]))))
    return found


@given(tables())
def test_what_is_accepted_equals_the_catalog(table: np.ndarray) -> None:
    found = accepted(Trie.from_table(table))
    assert found == {item: tuple(row) for item, row in enumerate(table.tolist())}


@given(path_lists())
def test_paths_of_any_length_are_the_catalog(paths: list[list[int]]) -> None:
    found = accepted(Trie.from_paths(paths, END))
    assert found == {item: (*path, END) for item, path in enumerate(paths)}


@settings(max_examples=30)
@given(tables(), st.integers(0, 2**32 - 1))
def test_every_wrong_token_is_refused(table: np.ndarray, seed: int) -> None:
    trie = Trie.from_table(table)
    prefixes = {tuple(row[:depth]) for row in table.tolist() for depth in range(len(row) + 1)}
    rng = np.random.default_rng(seed)
    path, state = (), trie.start(1)
    for _ in range(table.shape[1]):
        for token in range(-1, trie.vocabulary + 2):
            step = torch.tensor([token])
            if (*path, token) in prefixes:
                assert int(trie.step(state, step)) > 0
            else:
                with pytest.raises(NoContinuationError, match=f"token {token} does not follow"):
                    trie.step(state, step)
        token = int(
            rng.choice(
                sorted(
                    {
                        p[len(path)]
                        for p in prefixes
                        if p[: len(path)] == path and len(p) > len(path)
                    }
                )
            )
        )
        path, state = (*path, token), trie.step(state, torch.tensor([token]))


def test_many_states_at_once_are_as_one_by_one() -> None:
    table = random_table(300, (7, 5, 11))
    trie = Trie.from_table(table)
    columns = torch.from_numpy(table).long()
    states = trie.start(len(table))
    for level in range(3):
        mask = trie.mask(states)
        rows, tokens = trie.allowed(states)
        children = trie.children(states)
        again = torch.zeros_like(mask)
        again[rows, tokens] = True
        assert torch.equal(mask, again)
        for row in (0, 17, 299):
            alone = trie.children(states[row : row + 1])
            assert alone.tokens[0].tolist() == children.tokens[row][children.real[row]].tolist()
            assert alone.tokens[0].tolist() == mask[row].nonzero().flatten().tolist()
            assert alone.nodes[0].tolist() == children.nodes[row][children.real[row]].tolist()
            prefix = table[row, :level]
            below = table[(table[:, :level] == prefix).all(1), level]
            assert alone.tokens[0].tolist() == sorted(set(below.tolist()))
        states = trie.step(states, columns[:, level])
    assert trie.items(states).tolist() == list(range(300))
    assert torch.equal(trie.paths(states, 3), columns)


def test_one_item() -> None:
    assert accepted(Trie.from_table(np.array([[4, 0, 2]]))) == {0: (4, 0, 2)}
    assert accepted(Trie.from_paths([[]], END)) == {0: (END,)}


def test_no_states_are_no_rows() -> None:
    trie = Trie.from_table(random_table(20, (3, 9)))
    nothing = trie.start(0)
    assert trie.mask(nothing).shape == (0, 9)
    assert trie.step(nothing, nothing).shape == (0,)
    assert trie.items(nothing).shape == (0,)


def test_large_tokens_and_a_wider_mask() -> None:
    trie = Trie.from_paths([[70_000, 3], [3]], 128_000)
    assert trie.mask(trie.start(1), 130_000)[0].nonzero().flatten().tolist() == [3, 70_000]
    with pytest.raises(InputError, match="a mask of 50000 asked"):
        trie.mask(trie.start(1), 50_000)


def test_states_that_do_not_exist_raise() -> None:
    trie = Trie.from_table(random_table(10, (4, 4)))
    for state in (-1, trie.nodes, trie.nodes - 1):
        with pytest.raises(NoContinuationError, match=r"nothing follows node .* \(row 1\)"):
            trie.children(torch.tensor([0, state]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1, 2], [0, 0], [1, 2]], "items 0 and 2 have the same path"),
        ([[1, -2]], "a code is negative"),
        ([[]], "both above 0"),
    ],
)
def test_a_table_that_cannot_be_told_apart_is_refused(table: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trie.from_table(np.array(table, np.int32))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no path"),
        ([[1], [2], [1]], "items 0 and 2 have the same path"),
        ([[], []], "items 0 and 1 have the same path"),
        ([[1, END]], "end marker 9 is negative or a token"),
        ([[1, -5]], "token is negative"),
    ],
)
def test_paths_that_cannot_be_told_apart_are_refused(paths: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trie.from_paths(Sequences.from_lists(paths), END)


def test_memory_is_a_few_bytes_for_an_item_and_level() -> None:
    trie = Trie.from_table(random_table(50_000, (256, 256, 256, 256)))
    assert trie.nbytes < 50_000 * 4 * 8
    assert trie.tokens.dtype == torch.int16
