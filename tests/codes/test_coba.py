"""CoBa RQ-VAE: the term that keeps code vectors apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.codes.coba import CoBa
from foretaste.codes.tokenizer import FitContext
from foretaste.data.sequences import Sequences


def test_crowding_is_what_pairs_lack_of_the_margin() -> None:
    """At 0, 1 and 3 the mean distance is 2 and three quarters of it 1.5: one pair lacks a third."""
    tokenizer = CoBa(margin=0.75)
    book = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
    crowding = tokenizer._crowding(book)
    assert crowding.item() == pytest.approx(2 * (1 / 3) ** 2 / 9)  # a mean over 3 x 3
    crowding.backward()
    assert book.grad is not None
    # The margin is no way out: only the two that are too near each other are moved, apart.
    assert book.grad.flatten().tolist() == pytest.approx([8 / 81, -8 / 81, 0], abs=1e-6)
    for apart in ([0.0, 2.0, 4.0], [0.0, 20.0, 40.0]):  # of the mean, whatever that is
        assert tokenizer._crowding(torch.tensor(apart)[:, None]).item() == 0


def test_the_loss_has_crowding_by_its_weight() -> None:
    tokenizer = CoBa(levels=2, size=8, dim=4, hidden=(8,), steps=3, margin=1.0)
    vectors = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    train = Sequences.from_lists([[0, 1, 2], [3, 4]])
    tokenizer.fit(vectors, sequences=train, context=FitContext(0, "cpu"))
    latent, use, losses = torch.randn(20, 4), tokenizer.use.clone(), {}
    for weight in (0.0, 0.5):
        tokenizer.use = use.clone()  # it is counted on, and decides who gets which code
        tokenizer.config = tokenizer.config.model_copy(update={"uniformity": weight})
        losses[weight] = tokenizer._through(latent).loss.item()
    crowding = sum(tokenizer._crowding(book).item() for book in tokenizer.network.books)
    assert crowding > 0.01
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * crowding, rel=1e-3)
