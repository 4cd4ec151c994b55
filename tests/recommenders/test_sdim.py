"""SDIM: buckets by hand, and what many rounds come near."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from foretaste.data.sequences import Sequences
from foretaste.recommenders.core import ranker
from foretaste.recommenders.core.ranker_network import History, Memory
from foretaste.recommenders.sdim import SDIM, SDIMConfig, SDIMNetwork, expected_share

CONFIG = {"dim": 8, "hidden": 8, "heads": 2, "max_length": 30}


def network(**parameters) -> SDIMNetwork:
    torch.manual_seed(0)
    return SDIMNetwork(12, 0, SDIMConfig(**{**CONFIG, **parameters})).eval()


def memory(keys: torch.Tensor) -> Memory:
    return Memory(keys, torch.randn_like(keys))


NUMBER = torch.zeros(1, 1, dtype=torch.int64)


@torch.no_grad()
def test_buckets_by_hand():
    made = network(rounds=2, bits=2)
    # In each round the signs of two coordinates; the second round looks at the others.
    made.planes[:] = torch.eye(4)
    candidate = torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(1, 2, 1, 4)
    keys = torch.tensor([
        [2.0, 1.0, -3.0, -1.0],  # both rounds
        [1.0, 5.0, 1.0, 1.0],  # the first
        [-1.0, 1.0, -1.0, -2.0],  # the second
        [-1.0, 1.0, 1.0, -2.0],  # none
        [1.0, 1.0, -1.0, -1.0],  # both, but unseen
    ]).expand(1, 2, 5, 4)  # fmt: skip
    assert made.meetings(memory(keys), candidate)[0, 0, 0].tolist() == [2, 1, 1, 0, 2]
    weights = made.weigh(memory(keys), candidate, torch.tensor([[4]]), NUMBER)
    torch.testing.assert_close(weights[0, 1, 0], torch.tensor([0.5, 0.25, 0.25, 0, 0]))


@torch.no_grad()
def test_an_empty_bucket_gives_nothing():
    made = network(rounds=2, bits=2)
    made.planes[:] = torch.eye(4)
    candidate = torch.ones(1, 2, 1, 4)
    weights = made.weigh(memory(-candidate), candidate, torch.tensor([[1]]), NUMBER)
    assert (weights == 0).all()


@torch.no_grad()
def test_summed_buckets_equal_weighed_events():
    made = network(rounds=5, bits=2)
    asked = memory(torch.randn(3, 2, 9, 4))
    query, ends = torch.randn(1, 2, 7, 4), torch.tensor([[9], [4], [1]])
    by_buckets = made.answer(asked, query, ends, NUMBER)
    by_weights = asked.mix(made.weigh(asked, query, ends, NUMBER))
    torch.testing.assert_close(by_buckets, by_weights)
    # Of each its own end: no bucket is the same for two candidates.
    each = made.answer(asked, query, ends.expand(-1, 7), NUMBER)
    torch.testing.assert_close(each, by_weights)


@pytest.mark.parametrize("bits", [1, 3])
@torch.no_grad()
def test_many_rounds_come_near_the_expectation(bits: int):
    made = network(rounds=6_000, bits=bits)
    query, keys = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 6, 4)
    share = made.meetings(memory(keys), query) / made.rounds
    expected = expected_share(query, keys, bits)
    torch.testing.assert_close(share, expected, atol=0.03, rtol=0)
    weights = made.weigh(memory(keys), query, torch.tensor([[6]]), NUMBER)
    torch.testing.assert_close(
        weights, expected / expected.sum(-1, keepdim=True), atol=0.02, rtol=0
    )


@pytest.mark.parametrize(
    ("angle", "bits", "share"),
    [(0, 5, 1), (math.pi / 2, 1, 1 / 2), (math.pi / 2, 3, 1 / 8), (math.pi, 2, 0)],
)
def test_expected_shares_of_known_angles(angle: float, bits: int, share: float):
    one = torch.tensor([[3.0, 0.0]])
    other = torch.tensor([[math.cos(angle), math.sin(angle)]])
    # Cosines are kept a little within 1, hence the tolerance.
    assert float(expected_share(one, other, bits)) == pytest.approx(share, abs=0.03)


def test_training_counts_hard_and_learns_soft():
    made = network(rounds=8, bits=2)
    asked = History(torch.randint(12, (3, 10)), None, torch.tensor([10, 7, 4]))
    candidates, ends = torch.randint(12, (3, 5)), torch.tensor([[10], [7], [4]])
    torch.manual_seed(1)
    made.dropout.p = 0.0
    hard = made(asked, candidates, ends)
    made.train()
    soft = made(asked, candidates, ends)
    torch.testing.assert_close(soft, hard)  # the same weights, with a slope
    soft.sum().backward()
    grads = [made.query.weight.grad, next(made.key_values.parameters()).grad]
    for grad in grads:
        assert grad is not None
        assert np.isfinite(grad.numpy()).all() and grad.abs().max() > 0


def test_gradients_are_finite_where_candidate_and_event_are_one():
    vector = torch.ones(1, 4, requires_grad=True)
    expected_share(vector, vector, 3).sum().backward()
    assert vector.grad is not None and torch.isfinite(vector.grad).all()


def test_hashes_are_kept_with_the_weights():
    made = network()
    assert "planes" in made.state_dict()
    assert not any(name == "planes" for name, _ in made.named_parameters())


def test_buckets_of_candidates_are_held_a_few_at_a_time(ordinary, monkeypatch):
    model = SDIM(dim=8, hidden=8, rounds=16, bits=8, train={"epochs": 0})
    model.fit(ordinary)
    whole = model.score_items(Sequences.from_lists([[1, 2]]), np.arange(ordinary.items))
    monkeypatch.setattr(ranker, "PAIRS_AT_ONCE", 100_000)
    made, held = SDIMNetwork._buckets, []

    def counted(self: SDIMNetwork, products: torch.Tensor) -> torch.Tensor:
        found = made(self, products)
        held.append(found.numel())
        return found

    monkeypatch.setattr(SDIMNetwork, "_buckets", counted)
    parts = model.score_items(Sequences.from_lists([[1, 2]]), np.arange(ordinary.items))
    torch.testing.assert_close(parts, whole)
    assert max(held) <= 100_000
