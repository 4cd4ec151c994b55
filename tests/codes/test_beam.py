"""Beam search finds items of the catalog, and with room enough exactly the best."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foretaste.codes.beam import FoundItems, Step, beam_search, score_catalog, share_found
from foretaste.codes.trie import Trie
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

from .catalogs import path_lists, random_table, tables

END = 4


class RandomModel:
    """Logits that depend on query and whole prefix alone, as those of a real model do."""

    def __init__(self, vocabulary: int, seed: int = 0) -> None:
        self.vocabulary, self.seed, self.rows = vocabulary, seed, 0
        self.last: list[tuple[int, ...]] = []

    def __call__(self, step: Step) -> Tensor:
        prefixes = [tuple(row) for row in step.tokens.tolist()]
        assert all(len(prefix) == step.level for prefix in prefixes)
        if step.parents is not None:
            # What a kept state would be reordered by leads to the prefix without its last token.
            assert [self.last[row] for row in step.parents.tolist()] == [p[:-1] for p in prefixes]
        self.last, self.rows = prefixes, self.rows + len(prefixes)
        return torch.stack(
            [
                self._of(query, prefix)
                for query, prefix in zip(step.queries.tolist(), prefixes, strict=True)
            ]
        )

    def _of(self, query: int, prefix: tuple[int, ...]) -> Tensor:
        rng = np.random.default_rng([self.seed, query, len(prefix), *prefix])
        return torch.from_numpy(3 * rng.standard_normal(self.vocabulary)).float()


def by_hand(
    model: RandomModel, paths: list[list[int]], query: int, *, renormalise: bool
) -> list[float]:
    """The score of each path: a sum of log-probabilities, one token at a time."""
    scores = []
    for path in paths:
        total = 0.0
        for depth, token in enumerate(path):
            logits = model._of(query, tuple(path[:depth]))
            if renormalise:
                onward = {p[depth] for p in paths if len(p) > depth and p[:depth] == path[:depth]}
                logits = torch.where(
                    torch.tensor([t in onward for t in range(len(logits))]), logits, -torch.inf
                )
            total += float(logits.log_softmax(0)[token])
        scores.append(total)
    return scores


@settings(max_examples=40, deadline=None)
@given(tables(), st.booleans(), st.integers(0, 5))
def test_the_catalog_is_scored_as_by_hand(table: np.ndarray, renormalise: bool, seed: int) -> None:
    trie = Trie.from_table(table)
    model = RandomModel(trie.vocabulary + 2, seed)
    exact = score_catalog(model, trie, 2, renormalise=renormalise)
    for query in range(2):
        expected = by_hand(model, table.tolist(), query, renormalise=renormalise)
        assert exact[query].tolist() == pytest.approx(expected, abs=1e-4)
    if renormalise:
        assert exact.exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(path_lists(), st.booleans(), st.integers(0, 5))
def test_a_beam_as_wide_as_the_catalog_is_exact(
    paths: list[list[int]], renormalise: bool, seed: int
) -> None:
    trie = Trie.from_paths(paths, END)
    model = RandomModel(trie.vocabulary, seed)
    written = [[*path, END] for path in paths]
    found = beam_search(model, trie, 2, len(paths), renormalise=renormalise)
    for query in range(2):
        expected = by_hand(model, written, query, renormalise=renormalise)
        order = np.argsort(np.negative(expected), kind="stable")
        assert found.items[query].tolist() == order.tolist()
        assert found.log_probs[query].tolist() == pytest.approx(sorted(expected)[::-1], abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(path_lists(), st.integers(1, 4), st.integers(0, 5))
def test_a_narrow_beam_finds_different_items_with_their_true_scores(
    paths: list[list[int]], width: int, seed: int
) -> None:
    trie = Trie.from_paths(paths, END)
    width = min(width, len(paths))
    model = RandomModel(trie.vocabulary, seed)
    found = beam_search(model, trie, 3, width)
    exact = score_catalog(RandomModel(trie.vocabulary, seed), trie, 3)
    for query in range(3):
        items = [item for item in found.items[query].tolist() if item >= 0]
        assert len(set(items)) == len(items) >= 1
        assert found.tokens is not None
        for item, tokens in zip(items, found.tokens[query].tolist(), strict=False):
            path = [*paths[item], END]
            assert tokens == path + [-1] * (len(tokens) - len(path))
        assert found.log_probs[query, : len(items)].tolist() == pytest.approx(
            exact[query, items].tolist(), abs=1e-4
        )


@settings(max_examples=40, deadline=None)
@given(tables(), st.integers(1, 6), st.integers(0, 5))
def test_what_is_sure_is_not_asked(table: np.ndarray, width: int, seed: int) -> None:
    """Probabilities among what may follow give all to an only item; asked or not is the same."""
    trie, width = Trie.from_table(table), min(width, len(table))
    sure = torch.zeros(trie.nodes, dtype=torch.bool)
    for row in table:
        for level in range(len(row)):
            node = trie.start(1)
            for code in row[:level]:
                node = trie.step(node, torch.tensor([int(code)]))
            sure[node] = int((table[:, :level] == row[:level]).all(1).sum()) == 1
    model = RandomModel(trie.vocabulary, seed)

    def asked(step: Step) -> Tensor:
        for prefix in step.tokens.numpy():
            assert (table[:, : step.level] == prefix).all(1).sum() > 1
        return model(step)

    expected = beam_search(model, trie, 3, width, renormalise=True)
    found = beam_search(asked, trie, 3, width, renormalise=True, sure=sure)
    assert found.items.tolist() == expected.items.tolist()
    assert found.log_probs.tolist() == expected.log_probs.tolist()


def test_a_beam_of_one_is_greedy() -> None:
    table = random_table(200, (8, 8, 8))
    trie, model = Trie.from_table(table), RandomModel(8)
    found = beam_search(model, trie, 1, 1)
    left = table
    for level in range(3):
        logits = model._of(0, tuple(left[0, :level].tolist()))
        best = max(set(left[:, level].tolist()), key=lambda code: float(logits[code]))
        left = left[left[:, level] == best]
    assert table[int(found.items[0, 0])].tolist() == left[0].tolist()


def test_wider_beams_find_more_of_the_exact_best() -> None:
    trie = Trie.from_table(random_table(400, (16, 16, 16)))
    exact = score_catalog(RandomModel(16), trie, 8)
    shares = []
    for width in (10, 40, 400):
        found = beam_search(RandomModel(16), trie, 8, width, 10)
        shares.append(float(share_found(found, exact, 10).mean()))
    assert shares == sorted(shares)
    assert shares[0] < 1 and shares[-1] == 1


def test_share_found_counts_the_common_items() -> None:
    exact = torch.tensor([[0.0, -1, -2, -3], [-3, -2, -1, 0]])
    found = FoundItems(torch.tensor([[0, 3], [3, 2]]), torch.zeros(2, 2))
    assert share_found(found, exact, 2).tolist() == [0.5, 1.0]
    with pytest.raises(InputError, match="between 1 and the catalog's 4"):
        share_found(found, exact, 5)


def test_hidden_items_stay_out_and_the_next_best_come_in() -> None:
    trie = Trie.from_table(random_table(60, (4, 4, 8)))
    exact = score_catalog(RandomModel(8), trie, 2)
    best = exact.argsort(1, descending=True)
    hidden = Sequences.from_lists([best[0, :5].tolist(), []])
    found = beam_search(RandomModel(8), trie, 2, 60, 10, hidden=hidden)
    assert found.items[0].tolist() == best[0, 5:15].tolist()
    assert found.items[1].tolist() == best[1, :10].tolist()


def test_a_query_with_all_but_two_items_hidden_has_two() -> None:
    trie = Trie.from_paths([[0], [0, 1], [1], [2, 2]], END)
    hidden = Sequences.from_lists([[0, 3], [0, 1, 2, 3]])
    found = beam_search(RandomModel(5), trie, 2, 4, hidden=hidden)
    assert sorted(found.items[0].tolist()) == [-1, -1, 1, 2]
    assert found.items[0, 2:].tolist() == [-1, -1]
    assert found.items[1].tolist() == [-1] * 4
    assert found.log_probs[1].isneginf().all()


def test_a_path_that_the_model_forbids_is_not_found() -> None:
    trie = Trie.from_table(np.array([[0, 0], [0, 1], [1, 0]]))

    def model(step: Step) -> Tensor:
        logits = torch.zeros(len(step.tokens), 2)
        if step.level == 0:
            logits[:, 1] = -torch.inf
        return logits

    found = beam_search(model, trie, 1, 3)
    assert sorted(found.items[0].tolist()) == [-1, 0, 1]
    assert found.log_probs[0, :2].exp().tolist() == pytest.approx([0.5, 0.5])


def test_one_item_and_no_query() -> None:
    trie = Trie.from_table(np.array([[2, 1]]))
    found = beam_search(RandomModel(3), trie, 1, 1, renormalise=True)
    assert found.items.tolist() == [[0]]
    assert found.log_probs.item() == pytest.approx(0)
    assert beam_search(RandomModel(3), trie, 0, 1).items.shape == (0, 1)


@pytest.mark.parametrize(
    ("width", "k", "message"),
    [
        (0, None, "beam width = 0 must be at least 1"),
        (21, None, "more than the catalog's 20 items"),
        (5, 6, "k = 6 must be between 1 and the beam width 5"),
        (5, 0, "k = 0 must be"),
    ],
)
def test_a_wrong_width_is_refused(width: int, k: int | None, message: str) -> None:
    trie = Trie.from_table(random_table(20, (5, 5)))
    with pytest.raises(InputError, match=message):
        beam_search(RandomModel(5), trie, 1, width, k)


def test_logits_that_make_no_sense_are_refused() -> None:
    trie = Trie.from_table(random_table(20, (5, 5)))
    with pytest.raises(InputError, match="do not fit each other"):
        beam_search(RandomModel(4), trie, 1, 2)
    with pytest.raises(InputError, match="logits are NaN"):
        beam_search(lambda step: torch.full((len(step.tokens), 5), torch.nan), trie, 1, 2)
    with pytest.raises(InputError, match="hidden items of 3 queries, asked are 1"):
        beam_search(RandomModel(5), trie, 1, 2, hidden=Sequences.from_lists([[], [], []]))
