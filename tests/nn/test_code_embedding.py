"""Code vectors in one numbering."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from foretaste.nn.code_embedding import CodeEmbedding

TABLE = np.array([[0, 3, 1], [2, 0, 0], [1, 1, 1]])
SIZES = (3, 4, 2)


def made() -> CodeEmbedding:
    torch.manual_seed(0)
    return CodeEmbedding(TABLE, SIZES, 5)


def test_numbers_and_codes():
    codes = made()
    assert codes.numbers.tolist() == [[0, 6, 8], [2, 3, 7], [1, 4, 8]]
    items = torch.tensor([[2, 0]])
    assert codes.codes_of(items).tolist() == [TABLE[[2, 0]].tolist()]
    of_items = codes.of_items(items)
    for level in range(3):
        of_level = codes.of_codes(level, torch.tensor(TABLE[[2, 0], level]))
        torch.testing.assert_close(of_items[0, :, level], of_level)
        torch.testing.assert_close(codes.book(level)[TABLE[2, level]], of_level[0])


def test_losses_are_cross_entropies_within_a_level():
    codes, hidden = made(), torch.randn(2, 3, 5)
    items = torch.tensor([1, 0])
    found = codes.losses(hidden, items)
    for row, item in enumerate(items.tolist()):
        for level in range(3):
            logits = codes.book(level) @ hidden[row, level]
            expected = -F.log_softmax(logits, 0)[TABLE[item, level]]
            torch.testing.assert_close(found[row, level], expected)


def test_all_logits_hide_codes_that_are_not():
    codes, hidden = made(), torch.randn(4, 3, 5)
    found = codes.all_logits(hidden)
    assert found.shape == (4, 3, 4)
    assert found[:, 0, 3].isneginf().all() and found[:, 2, 2:].isneginf().all()
    torch.testing.assert_close(found[:, 1], codes.logits(1, hidden[:, 1]))


def test_losses_among_some_codes_are_cross_entropies_of_those():
    codes, hidden = made(), torch.randn(2, 3, 5)
    items = torch.tensor([1, 0])
    right = TABLE[items.numpy()]
    among = []
    for level, size in enumerate(codes.sizes):
        allowed = [sorted({int(right[row, level]), (row + 1) % size}) for row in range(2)]
        rows = torch.tensor([row for row in range(2) for _ in allowed[row]])
        among.append((rows, torch.tensor([code for some in allowed for code in some])))
    found = codes.losses(hidden, items, 0.0, among)
    for row in range(2):
        for level in range(3):
            logits = codes.book(level) @ hidden[row, level]
            rows, some = among[level]
            chosen = some[rows == row]
            expected = torch.logsumexp(logits[chosen], 0) - logits[right[row, level]]
            torch.testing.assert_close(found[row, level], expected)


def test_items_side_by_side_score_the_sum_of_their_codes():
    codes, hidden = made(), torch.randn(3, 5)
    scores = codes.of_catalog() @ hidden.flatten()
    for item, row in enumerate(TABLE):
        parts = [codes.book(level)[code] @ hidden[level] for level, code in enumerate(row)]
        torch.testing.assert_close(scores[item], torch.stack(parts).sum())
