"""Attacks, and aggregation that bears them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.data.sequences import Sequences
from foretaste.federated.core.aggregation import aggregate, hostile_of, krum
from foretaste.federated.core.attacks import hostile, spoilt, spoilt_histories
from foretaste.federated.core.base import Sums
from foretaste.federated.core.config import AttackConfig, RobustConfig
from foretaste.federated.core.updates import Rows, Updates

from .rings import keys_of, method_of, ring, server_of

LOCAL = {"epochs": 2, "negatives": 0, "learning_rate": 0.02}


def sums(*values: float) -> list[Sums]:
    """Nodes with one user each, whose update is one number (in two arrays)."""
    return [
        Sums({"a": np.array([value], np.float32), "b": np.array([2 * value], np.float32)}, 1.0, 1)
        for value in values
    ]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RobustConfig(), 22.0),
        (RobustConfig(rule="median"), 3.0),
        (RobustConfig(rule="trimmed", share=0.2), 3.0),
        (RobustConfig(rule="krum", share=0.2), 2.0),
    ],
)
def test_rules_by_hand(config, expected):
    found = aggregate(sums(1.0, 2.0, 3.0, 4.0, 100.0), config).mean()
    assert found["a"] == pytest.approx(expected)
    assert found["b"] == pytest.approx(2 * expected)


def test_a_node_of_many_users_counts_by_its_mean():
    many = Sums({"a": np.array([30.0], np.float32)}, 10.0, 10)
    one = Sums({"a": np.array([1.0], np.float32)}, 1.0, 1)
    mean = aggregate([many, one], RobustConfig())
    assert (mean.weight, mean.users) == (11.0, 11)
    assert mean.mean()["a"] == pytest.approx(31 / 11)
    median = aggregate([many, one, one], RobustConfig(rule="median"))
    assert median.mean()["a"] == pytest.approx(1.0)


def test_nodes_without_users_do_not_vote():
    nothing = Sums({"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}, 0.0, 0)
    found = aggregate([*sums(5.0, 5.0), nothing, nothing, nothing], RobustConfig(rule="median"))
    assert found.mean()["a"] == pytest.approx(5.0)
    assert aggregate([nothing], RobustConfig()).weight == 0


def test_rules_are_those_of_flower():
    """Multi-Krum's choice and the trimmed mean, as Flower's own strategies compute them."""
    pytest.importorskip("flwr", reason="the extra 'federated' is not installed")
    from flwr.app import Array, ArrayRecord, RecordDict
    from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
    from flwr.serverapp.strategy.multikrum import select_multikrum

    rng = np.random.default_rng(0)
    updates = [{"w": rng.standard_normal((3, 4)).astype(np.float32)} for _ in range(9)]
    records = [RecordDict({"a": ArrayRecord({"w": Array(one["w"])})}) for one in updates]
    chosen = select_multikrum(records, 2, 3)
    theirs = sorted(next(n for n, one in enumerate(records) if one is of) for of in chosen)
    assert krum(updates, 2, 3) == theirs
    nodes = [Sums(one, 1.0, 1) for one in updates]
    trimmed = aggregate(nodes, RobustConfig(rule="trimmed", share=0.25)).mean()["w"]
    expected = trim_mean(np.stack([one["w"] for one in updates]), 0.25)
    np.testing.assert_allclose(trimmed, expected, atol=1e-6)


def test_krum_reckons_with_as_many_as_it_can_bear():
    assert [hostile_of(nodes, 0.4) for nodes in (2, 4, 5, 10, 20)] == [0, 0, 1, 3, 8]


def test_hostile_users_are_always_the_same():
    config = AttackConfig(kind="flip", share=0.3)
    keys = keys_of(500)
    bad = hostile(keys, config, 0)
    assert 100 < bad.sum() < 200
    np.testing.assert_array_equal(bad[::7], hostile(keys[::7], config, 0))
    assert not hostile(keys, AttackConfig(), 0).any()


def test_attacks_by_hand():
    updates = Updates(
        torch.ones(2),
        {
            "v": torch.tensor([[1.0, 2.0], [0.0, 2.0]]),
            "t": Rows(torch.tensor([[0], [3]]), torch.ones(2, 1, 2), 4),
        },
    )
    draws = keys_of(2)
    flipped = spoilt(updates, draws, AttackConfig(kind="flip", scale=3.0))
    assert flipped.parts["v"].tolist() == [[-3.0, -6.0], [0.0, -6.0]]  # type: ignore[union-attr]
    assert flipped.parts["t"].values[0].tolist() == [[-3.0, -3.0]]  # type: ignore[union-attr]
    grown = spoilt(updates, draws, AttackConfig(kind="scale", scale=10.0))
    torch.testing.assert_close(grown.norms(), 10 * updates.norms())
    noise = spoilt(updates, draws, AttackConfig(kind="noise", scale=2.0))
    torch.testing.assert_close(noise.norms(), 2 * updates.norms())
    alone = spoilt(updates.pick(torch.tensor([1])), draws[1:], AttackConfig(kind="noise", scale=2))
    torch.testing.assert_close(alone.parts["v"][0], noise.parts["v"][1])  # type: ignore[index]


def test_a_promoting_user_puts_its_item_after_every_event():
    histories = Sequences(
        np.array([1, 2, 3, 4], np.int32), np.array([0, 2, 4]), np.array([10, 20, 30, 40])
    )
    config = AttackConfig(kind="promote", item=9)
    bad = spoilt_histories(histories, np.array([False, True]), config)
    assert [row.tolist() for row in bad] == [[1, 2], [3, 9, 4, 9]]
    assert bad.times is not None
    assert bad.times.tolist() == [10, 20, 30, 30, 40, 40]
    assert spoilt_histories(histories, np.array([False, False]), config) is histories


def test_promotion_raises_its_item():
    shares = {}
    for kind in ("none", "promote"):
        method = method_of(
            clients=1.0,
            rounds=6,
            local=LOCAL,
            attack={"kind": kind, "share": 0.3, "scale": 3.0, "item": 5},
        )
        done = server_of(method, ring(40)).run()
        recommender = method.recommender(done.best)
        scores = next(iter(recommender.scores(ring(24, seed=5), exclude="none")))[1]
        shares[kind] = float((scores.argsort(1, descending=True)[:, :3] == 5).any(1).float().mean())
    assert shares["none"] < 0.4
    assert shares["promote"] > shares["none"] + 0.4


def attacked(rule: str) -> list[float]:
    """Losses of rounds over nodes of one user; a fifth send their update turned and enlarged."""
    method = method_of(
        clients=1.0,
        rounds=4,
        nodes=0,
        evaluate_every=10,
        local={"epochs": 1, "negatives": 0, "learning_rate": 0.03},
        attack={"kind": "flip", "share": 0.2, "scale": 20.0},
        robust={"rule": rule, "share": 0.35, "keep": 5},
    )
    bad = hostile(keys_of(16), method.config.attack, method.world.seed)
    assert 2 <= bad.sum() <= 5
    curve = server_of(method, ring(16), nodes=16).run().curve
    return [one.loss for one in curve if one.loss is not None]


def test_the_mean_is_driven_away():
    losses = attacked("mean")
    assert losses[-1] > losses[0] + 0.2


@pytest.mark.parametrize("rule", ["median", "trimmed", "krum"])
def test_robust_rules_are_not(rule):
    losses = attacked(rule)
    assert losses[-1] < losses[0]
