"""A node of many users gives what nodes of one user give together, and what a plain loop gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from foretaste.data.sequences import Sequences
from foretaste.federated.core.base import FederatedMethod, LocalUsers, Trained
from foretaste.federated.core.updates import zeros
from foretaste.federated.fedavg import FedAvg
from foretaste.recommenders.core.sequence import Histories
from foretaste.recommenders.gru4rec import GRU4Rec

from .rings import ITEMS, keys_of, method_of, ring, same, server_of, small_sasrec

ADAM = {"epochs": 3, "negatives": 6, "learning_rate": 0.01}
VARIANTS = {
    "sampled": {"local": ADAM},
    "whole catalog": {"local": {**ADAM, "negatives": 0}},
    "sgd": {"local": {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.1, "negatives": 6}},
    "fedsgd": {"local": {"epochs": 1, "optimizer": "sgd", "clip": 0, "learning_rate": 0.1}},
    "clipped users": {"local": ADAM, "privacy": {"clip": 0.05}},
    "votes by events": {"local": ADAM, "weighting": "events"},
    "adam at the server": {
        "local": ADAM,
        # A large epsilon: tiny means, equal but for rounding, must not be blown up to whole steps.
        "server": {"optimizer": "adam", "learning_rate": 0.01, "momentum": 0.9, "epsilon": 0.01},
    },
    "hostile": {"local": ADAM, "attack": {"kind": "noise", "share": 0.3, "scale": 2.0}},
}


def trained(method: FederatedMethod, histories: Sequences, *, each: bool) -> Trained:
    keys = keys_of(len(histories))
    users = LocalUsers(keys, keys, histories, {})
    return method.train(method.start(), users, 1, each=each)


@pytest.mark.parametrize("variant", VARIANTS)
def test_many_users_on_a_node_equal_nodes_of_one(variant):
    histories, states = ring(20), []
    for nodes in (20, 3, 1):
        method = method_of(rounds=2, clients=0.7, evaluate_every=10, **VARIANTS[variant])
        server = server_of(method, histories, nodes)
        server.run()
        states.append(server.now)
    assert [one.users for one in states[0].curve] == [one.users for one in states[2].curve]
    assert 5 < states[0].curve[0].users < 20
    start = method_of().start()
    assert any(np.abs(states[0].state[name] - start[name]).max() > 1e-3 for name in start)
    for other in states[1:]:
        same(states[0].state, other.state, 2e-5)


@pytest.mark.parametrize("variant", ["sampled", "fedsgd"])
def test_gru4rec_too(variant):
    histories, states = ring(8), []
    for nodes in (8, 1):
        model = GRU4Rec(dim=8, hidden=12, max_length=6, dropout=0.2)
        method = method_of(model=model, rounds=1, clients=1.0, **VARIANTS[variant])
        states.append(server_of(method, histories, nodes).run().state)
    same(states[0], states[1], 2e-5)


def test_a_user_trains_as_plain_pytorch_would():
    """The same network, torch.optim.Adam and a softmax over the catalog, one user at a time."""
    histories = ring(5, longest=20)
    local = {"epochs": 3, "negatives": 0, "learning_rate": 0.01, "clip": 0.5, "windows": 4}
    method = method_of(model=small_sasrec(dropout=0.0), local=local)
    assert isinstance(method, FedAvg)
    found = trained(method, histories, each=True).updates.whole()
    for user in range(len(histories)):
        network = method._fresh()
        before = {name: one.detach().clone() for name, one in network.named_parameters()}
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            _plain_loss(network, histories[user], 6).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
        for name, one in network.named_parameters():
            change = (one - before[name]).detach()
            torch.testing.assert_close(found.parts[name][user], change, rtol=1e-3, atol=2e-5)


def _plain_loss(network: torch.nn.Module, history: np.ndarray, length: int) -> torch.Tensor:
    """Mean over events; windows end at the newest event, the oldest may be short."""
    inputs, targets = history[:-1], history[1:]
    total = torch.zeros(())
    for end in range(len(inputs), 0, -length):
        part = slice(max(0, end - length), end)
        items = torch.from_numpy(inputs[part].astype(np.int32))[None]
        hidden = network(Histories(items, torch.tensor([items.shape[1]]), None))[0]
        logits = hidden @ network.items.weight.T  # type: ignore[union-attr]
        wanted = torch.from_numpy(targets[part].astype(np.int64))
        total = total + F.cross_entropy(logits, wanted, reduction="sum")
    return total / len(inputs)


def test_rows_that_a_user_does_not_touch_do_not_change():
    method = method_of(local={**ADAM, "negatives": 2})
    histories = Sequences.from_lists([[3, 4, 5]])
    update = trained(method, histories, each=True).updates.whole().parts["items.weight"][0]
    changed = set(update.abs().sum(1).nonzero().flatten().tolist())
    assert {3, 4, 5} <= changed
    assert len(changed) <= 5


def test_drawn_items_stand_for_the_whole_catalog():
    """The mean over draws of the sampled normaliser is the normaliser over all items."""
    method = method_of(model=small_sasrec(dropout=0.0), local={"epochs": 1, "negatives": 6})
    whole = method_of(model=small_sasrec(dropout=0.0), local={"epochs": 1, "negatives": 0})
    history = ring(1, longest=6, seed=2)
    repeated = history.take(np.zeros(3_000, np.int64))
    draws = keys_of(3_000)
    sampled = method.train(
        method.start(), LocalUsers(draws, draws, repeated, {}), 1, each=True
    ).losses
    exact = trained(whole, history, each=True).losses
    # First weights are tiny, so the log of the normaliser is nearly linear in it.
    assert abs(float(sampled.mean()) - float(exact[0])) < 0.02
    assert float(sampled.std()) > 0.01
    assert abs(float(exact[0]) - np.log(ITEMS)) < 0.2


def test_one_step_of_gradient_descent_needs_no_copies():
    method = method_of(local=VARIANTS["fedsgd"]["local"], weighting="events")
    histories = ring(12)
    sums = []
    for each in (True, False):
        result = trained(method, histories, each=each)
        total = zeros({one.name: one.shape for one in method.up()})
        result.updates.add_to(total)
        sums.append(total)
        assert result.weight == histories.events - 12
        assert len(result.losses) == 12
    assert len(trained(method, histories, each=False).updates) == 1
    same(sums[0], sums[1], 1e-5)


def test_randomness_is_of_the_user_and_the_round():
    method = method_of(local=ADAM)
    histories = ring(1)
    keys = keys_of(1)

    def update(draws: np.ndarray) -> torch.Tensor:
        users = LocalUsers(keys, draws, histories, {})
        parts = method.train(method.start(), users, 1, each=True).updates.parts
        return parts["norm.weight"]  # type: ignore[return-value]

    assert torch.equal(update(keys), update(keys))
    assert not torch.equal(update(keys), update(keys + np.uint64(1)))
