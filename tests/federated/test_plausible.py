"""Replies that are declared and finite, and still cannot be: one node must not end a federation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.errors import InputError
from foretaste.federated.core.aggregation import aggregate
from foretaste.federated.core.base import Sums
from foretaste.federated.core.config import RobustConfig
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.messages import PROTOCOL, Order
from foretaste.federated.core.node import USERS, WEIGHT
from foretaste.federated.core.server import Server
from foretaste.federated.core.travelling import ASKED
from foretaste.federated.core.updates import Rows, Updates
from foretaste.recommenders.als import ALS

from . import tallying
from .rings import keys_of, method_of, nodes_of, ring, same, server_of

assert tallying
LOCAL = {"epochs": 1, "negatives": 6}


class Spoilt(LocalFleet):
    """Its first nodes change what they send."""

    def __init__(self, nodes, change, many: int = 1) -> None:
        super().__init__(nodes)
        self.change, self.bad = change, [f"node {number:03d}" for number in range(many)]

    def ask(self, orders, wait):
        for one in super().ask(orders, wait):
            if one.node in self.bad and one.reply is not None:
                arrays = {k: v.copy() for k, v in one.reply.arrays.items()}
                self.change(arrays)
                one = one._replace(reply=one.reply._replace(arrays=arrays))
            yield one


def counts(**values):
    names = {"users": USERS, "votes": WEIGHT}

    def change(arrays):
        for name, value in values.items():
            arrays[names[name]] = np.array(value, arrays[names[name]].dtype)

    return change


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed", "krum"])
@pytest.mark.parametrize(
    "change",
    [counts(votes=1e300), counts(votes=1e-300), counts(votes=-1.0), counts(users=-(10**6))],
)
def test_votes_that_cannot_be_are_left_out(rule, change):
    method = method_of(clients=1.0, rounds=2, local=LOCAL, robust={"rule": rule})
    server = Server(method, Spoilt(nodes_of(method, ring(6), 6), change), clients=6)
    honest = Server(method, LocalFleet(nodes_of(method, ring(6), 6)[1:]), clients=6)
    for _ in range(2):
        done = server.step()
        honest.step()
        assert (done.users, done.nodes) == (5, 5)
        assert any("cannot be" in text for text in done.problems)
    same(server.now.state, honest.now.state, 0.0)


@pytest.mark.parametrize("count", [1e30, 7.0, -1e6])
def test_counts_of_rows_that_cannot_be_are_left_out(count):
    """A row is divided by the votes that touched it: one node could freeze it, or throw it off."""
    method = method_of("fedmf", model=ALS(factors=4), clients=1.0, rounds=1, average="touched")

    def change(arrays):
        arrays["touched"][:] = count

    server = Server(method, Spoilt(nodes_of(method, ring(6), 2), change), clients=6)
    honest = Server(method, LocalFleet(nodes_of(method, ring(6), 2)[1:]), clients=6)
    done = server.step()
    honest.step()
    assert (done.users, done.nodes) == (3, 1)
    assert any(f"touched from {count:g}" in text and "cannot be" in text for text in done.problems)
    same(server.now.state, honest.now.state, 0.0)


def test_an_update_longer_than_the_clip_allows_is_left_out():
    method = method_of(clients=1.0, rounds=1, local=LOCAL, privacy={"clip": 0.05})

    def longer(arrays):
        for name in method.start():
            arrays[name] *= 50

    server = Server(method, Spoilt(nodes_of(method, ring(6), 6), longer), clients=6)
    done = server.step()
    assert done.users == 5
    assert any("clipped to 0.05" in text for text in done.problems)


@pytest.mark.parametrize(("claimed", "nodes"), [(10**7, 2), (5, 2), (2, 0)])
def test_users_that_do_not_exist_do_not_make_room_for_a_longer_update(claimed, nodes):
    """Six nodes of one user each; 5 could be, were the others not there, and 2 on other nodes."""
    config = {"clients": 1.0, "rounds": 1, "nodes": nodes, "local": LOCAL}
    method = method_of(**config, privacy={"clip": 0.05})

    def greedy(arrays):
        counts(users=claimed, votes=claimed)(arrays)
        for name in method.start():
            arrays[name] *= claimed

    server = Server(method, Spoilt(nodes_of(method, ring(6), 6), greedy), clients=6)
    honest = Server(method, LocalFleet(nodes_of(method, ring(6), 6)[1:]), clients=6)
    done = server.step()
    honest.step()
    assert done.users == 5
    assert any(f"{claimed} " in text and "cannot be" in text for text in done.problems)
    same(server.now.state, honest.now.state, 0.0)


def test_users_of_devices_that_the_server_has_no_data_of_can_be():
    method = method_of(clients=1.0, rounds=1, users=6, local=LOCAL)
    assert Server(method, LocalFleet(nodes_of(method, ring(6), 2)), clients=2).step().users == 6
    method = method_of(clients=1.0, rounds=1, local=LOCAL)
    with pytest.raises(InputError, match=r"3 users cannot be, where federated\.users"):
        Server(method, LocalFleet(nodes_of(method, ring(6), 2)), clients=2).step()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("figure/ndcg@10", 1e9),
        ("figure/hr@10", 3.1),
        ("figure/hr@10", -0.1),
        (ASKED, 10**7),
        (ASKED, -1),
        (ASKED, 4),
    ],
)
def test_figures_of_clients_that_cannot_be_are_left_out_and_told(name, value):
    """Six users on two nodes, three each."""
    method = method_of(clients=1.0, rounds=1, client_evaluation=True, local=LOCAL)
    told = []

    def change(arrays):
        if name in arrays:
            arrays[name] = np.array(value, arrays[name].dtype)

    fleet = Spoilt(nodes_of(method, ring(6), 2), change)
    server = Server(method, fleet, clients=6, log=lambda event, **facts: told.append(facts))
    found = server.step().on_clients
    (honest,) = LocalFleet(nodes_of(method, ring(6), 2)[1:]).ask(
        server.asking.orders("evaluate", 1, ["node 001"], server.now.state), 1.0
    )
    assert honest.reply is not None
    assert found["hr@10"] == float(honest.reply.arrays["figure/hr@10"]) / 3
    assert [one["node"] for one in told if "problem" in one] == ["node 000"]
    assert "cannot be" in told[0]["problem"]


def test_updates_that_add_up_to_no_number_leave_the_model_as_it_was(tmp_path):
    method = method_of(clients=1.0, rounds=3, local=LOCAL)

    def huge(arrays):
        name = next(iter(method.start()))
        arrays[name] = np.full_like(arrays[name], 3e38)  # a number, and so is each of them

    nodes = nodes_of(method, ring(6), 6)
    fleet = Spoilt(nodes, huge, many=2)
    told = []
    server = Server(
        method, fleet, clients=6, folder=tmp_path, log=lambda event, **facts: told.append(facts)
    )
    before = server.now.state
    server.step()
    assert server.now.state is before
    assert any("no finite number" in str(facts.get("problem")) for facts in told)
    server_of(method, ring(6), folder=tmp_path)  # the checkpoint can be gone on with


def test_one_hostile_node_of_four_does_not_reach_the_trimmed_mean():
    sums = [Sums({"x": np.array([v], np.float32)}, 1.0, 1) for v in (1.0, 1.1, 0.9, 1000.0)]
    found = aggregate(sums, RobustConfig(rule="trimmed", share=0.2)).mean()["x"]
    assert found[0] == pytest.approx(1.05)


def test_a_user_whose_update_is_no_number_is_left_out_alone():
    method = method_of(clients=1.0, rounds=1, local=LOCAL)
    train = method.train

    def broken(received, users, round, *, each):
        trained = train(received, users, round, each=each)
        bad = torch.from_numpy(users.keys == keys_of(20)[7])
        if bad.any():
            part = trained.updates.parts["items.weight"]
            values = part.values if isinstance(part, Rows) else part
            values[bad if each else slice(None)] = float("nan")
        return trained

    method.train = broken  # type: ignore[method-assign]
    done = server_of(method, ring(20), 2).step()
    assert (done.users, done.nodes) == (19, 2)
    assert not done.problems


def test_too_few_users_of_a_node_send_nothing():
    method = method_of(clients=0.1, rounds=1, local=LOCAL, min_users=4)
    (node,) = nodes_of(method, ring(20), 1)
    sent = [node.answer(Order("train", r, PROTOCOL, 0.1, method.start())) for r in range(1, 9)]
    users = [int(one.arrays[USERS]) for one in sent]
    assert all(count == 0 or count >= 4 for count in users)
    assert any(users)
    empty = sent[users.index(0)].arrays
    assert not any(np.any(empty[name]) for name in method.start())


def test_too_few_finite_updates_send_nothing():
    """A user whose update is no number is left out, and the other alone would be seen."""
    method = method_of("tallying", clients=1.0, min_users=2)
    honest = method.train

    def diverging(received, users, round, *, each):
        found = honest(received, users, round, each=each)
        weights = found.updates.weights.clone()
        weights[torch.from_numpy(users.keys == keys_of(2)[0])] = float("nan")
        parts = {
            name: part * weights[:, None]
            for name, part in found.updates.parts.items()
            if isinstance(part, torch.Tensor)
        }
        return found._replace(updates=Updates(weights, parts))

    method.train = diverging  # type: ignore[method-assign]
    (node,) = nodes_of(method, ring(2), 1)
    sent = node.answer(Order("train", 1, PROTOCOL, 1.0, method.start())).arrays
    assert not any(np.any(array) for array in sent.values())
    assert not node.store.before(2)[0]["rounds"].any()  # as if they had stayed away


def test_too_few_users_of_a_node_send_no_figures():
    method = method_of(clients=1.0, local=LOCAL, min_users=3, client_evaluation=True)
    asked = {}
    for users in (2, 3):
        (node,) = nodes_of(method, ring(users), 1)
        sent = node.answer(Order("evaluate", 1, PROTOCOL, 1.0, method.start())).arrays
        asked[users] = int(sent[ASKED])
        assert asked[users] or not any(np.any(array) for array in sent.values())
    assert asked == {2: 0, 3: 3}


def test_evaluation_that_was_not_declared_is_refused():
    method = method_of(clients=1.0, local=LOCAL)
    (node,) = nodes_of(method, ring(6), 1)
    with pytest.raises(InputError, match="evaluation on clients is off"):
        node.answer(Order("evaluate", 1, PROTOCOL, 1.0, method.start()))


def test_an_item_to_promote_that_is_none_is_told():
    with pytest.raises(InputError, match="item = 24: the catalog has 24 items"):
        method_of(attack={"kind": "promote", "item": 24})
