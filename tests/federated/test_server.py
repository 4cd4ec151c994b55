"""Rounds, checkpoints, and the rule of who counts."""

from __future__ import annotations

import time

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.federated.core import server as server_module
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.checkpoint import CHECKPOINT
from foretaste.federated.core.config import ServerConfig
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.messages import PROTOCOL, Order
from foretaste.federated.core.node import USERS, held_out
from foretaste.federated.core.registry import find_method, names
from foretaste.federated.core.server import Server
from foretaste.federated.core.server_step import server_step

from .rings import keys_of, method_of, nodes_of, ring, server_of

LOCAL = {"epochs": 2, "negatives": 6, "learning_rate": 0.02}


class Stopped(Exception):
    """The server was killed."""


def test_the_ring_is_learnt():
    """Users walk a ring, so that the next item is known; the federation must find it out."""
    from foretaste.data.split import Queries
    from foretaste.recommenders.core.ranking import rank_queries

    histories = ring(150, longest=12)
    asked = Queries(
        np.arange(24, dtype=np.int32),
        type(histories).from_lists([[(n - 2) % 24, (n - 1) % 24] for n in range(24)]),
        type(histories).from_lists([[n] for n in range(24)]),
    )

    def evaluate(recommender) -> dict[str, float]:
        return {"valid": float(rank_queries(recommender, asked, ["hr@3"]).metrics["hr@3"].mean())}

    method = method_of(
        rounds=25,
        clients=0.5,
        evaluate_every=5,
        local={"epochs": 3, "negatives": 0, "learning_rate": 0.01},
        server={"optimizer": "adam", "learning_rate": 0.05, "momentum": 0.5, "epsilon": 1e-3},
    )
    server = server_of(method, histories, evaluate=evaluate)
    done = server.run()
    assert done.best_value is not None
    assert done.best_value > 0.9  # by chance 3 / 22
    losses = [one.loss for one in done.curve]
    assert losses[-1] < losses[0] / 2  # type: ignore[operator]
    assert done.best.keys() == method.start().keys()


def test_a_killed_server_goes_on_bit_for_bit(tmp_path):
    config = {"rounds": 6, "clients": 0.6, "evaluate_every": 2, "local": LOCAL}
    config["server"] = {"optimizer": "adam", "learning_rate": 0.01, "momentum": 0.9}
    whole = server_of(method_of(**config), ring(20), folder=tmp_path / "whole").run()

    folder = tmp_path / "cut"
    first = server_of(method_of(**config), ring(20), folder=folder)
    first.step()
    first.step()

    def killed(state, sums, round):
        raise Stopped  # after the nodes have trained, before anything is kept

    first.method.next_state = killed  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        first.step()
    again = server_of(method_of(**config), ring(20), folder=folder)
    assert again.now.next_round == 3
    ended = again.run()
    assert ended.state.keys() == whole.state.keys()
    for name, array in whole.state.items():
        np.testing.assert_array_equal(array, ended.state[name])
    assert [one.users for one in ended.curve] == [one.users for one in whole.curve]


def test_a_damaged_checkpoint_is_told(tmp_path):
    server = server_of(method_of(rounds=2, local=LOCAL), ring(20), folder=tmp_path)
    server.step()
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        server_of(method_of(rounds=2, local=LOCAL), ring(20), folder=tmp_path)


def test_a_checkpoint_of_another_network_is_told(tmp_path):
    from .rings import small_sasrec

    server_of(method_of(rounds=2, local=LOCAL), ring(20), folder=tmp_path).step()
    other = method_of(model=small_sasrec(dim=16), rounds=2, local=LOCAL)
    with pytest.raises(InputError, match="declared as"):
        server_of(other, ring(20), folder=tmp_path)


def test_who_takes_part_is_a_coin_of_each_user():
    method = method_of(clients=0.3, rounds=1, local=LOCAL)
    nodes = nodes_of(method, ring(400), 2)
    order = Order("train", 1, PROTOCOL, 0.3, method.start())
    first = sum(len(node._taking_part(order)) for node in nodes)
    assert 80 < first < 160
    again = [node._taking_part(order).tolist() for node in nodes]
    assert again == [node._taking_part(order).tolist() for node in nodes]
    assert again != [node._taking_part(order._replace(round=2)).tolist() for node in nodes]


def test_held_out_users_never_train():
    method = method_of(clients=1.0, held_out=0.4, local=LOCAL)
    (node,) = nodes_of(method, ring(100), 1)
    order = Order("train", 1, PROTOCOL, 1.0, method.start())
    out = held_out(keys_of(100), 0.4, method.world.seed)
    assert 25 < out.sum() < 55
    assert not out[node._taking_part(order)].any()
    assert int(node.answer(order).arrays[USERS]) == 100 - out.sum()


def test_dropped_clients_do_not_count_and_the_round_goes_on():
    method = method_of(clients=1.0, rounds=1, local=LOCAL, faults={"drop": 0.5})
    done = server_of(method, ring(60)).step()
    assert 15 < done.users < 45
    assert not done.problems


def test_late_nodes_are_left_out():
    method = method_of(clients=1.0, rounds=1, local=LOCAL, faults={"late": 0.4})
    server = server_of(method, ring(40), nodes=40)
    done = server.step()
    assert done.problems["too late"] == 40 - done.nodes
    assert 10 < done.users < 36


def test_a_sample_of_nobody_leaves_the_state():
    method = method_of(clients=1e-9, rounds=1, local=LOCAL)
    server = server_of(method, ring(10))
    before = server.now.state
    done = server.step()
    assert done.users == 0
    assert server.now.state is before


def test_all_clients_gone_is_told_and_nothing_is_lost(tmp_path):
    class Empty(LocalFleet):
        def nodes(self):
            return []

    method = method_of(clients=1.0, rounds=3, local=LOCAL, wait=0.1)
    with pytest.raises(InputError, match=r"round 1: 0 clients.*nothing to go on from\.$"):
        Server(method, Empty([]), clients=10, folder=tmp_path).step()
    server_of(method, ring(10), folder=tmp_path).step()
    server = Server(method, Empty([]), clients=10, folder=tmp_path)
    with pytest.raises(InputError, match=r"round 2: 0 clients of 0 nodes.*Rounds up to 1 are kept"):
        server.step()
    back = server_of(method, ring(10), folder=tmp_path)
    assert back.now.next_round == 2
    assert len(back.run().curve) == 3


def test_a_round_waits_for_a_node_to_be_there(monkeypatch):
    """Looks for nodes cost no retries."""
    monkeypatch.setattr(server_module, "POLL", 0.01)

    class Slow(LocalFleet):
        looks = 0

        def nodes(self):
            self.looks += 1
            return super().nodes() if self.looks > 9 else []

    method = method_of(clients=1.0, rounds=1, local=LOCAL, wait=20.0, retries=0)
    fleet = Slow(nodes_of(method, ring(10), 2))
    assert Server(method, fleet, clients=10).step().users == 10

    class Empty(LocalFleet):
        def nodes(self):
            return []

    method = method_of(clients=1.0, rounds=1, local=LOCAL, wait=0.5, retries=3)
    begin = time.monotonic()
    with pytest.raises(InputError, match="0 clients of 0 nodes"):
        Server(method, Empty([]), clients=10).step()
    assert 0.5 <= time.monotonic() - begin < 1.5


def test_a_node_that_comes_back_takes_part():
    method = method_of(clients=1.0, rounds=3, local=LOCAL)

    class Flaky(LocalFleet):
        here = True

        def nodes(self):
            return [name for name in super().nodes() if self.here or name == "node 000"]

    fleet = Flaky(nodes_of(method, ring(10), 2))
    server = Server(method, fleet, clients=10)
    users = []
    for fleet.here in (True, False, True):
        users.append(server.step().users)
    assert users == [10, 5, 10]


class OneFails(LocalFleet):
    """The first node has another protocol for ever."""

    def ask(self, orders, wait):
        """As of ``Fleet``."""
        for one in super().ask(orders, wait):
            wrong = one.node == self.nodes()[0]
            yield one._replace(reply=None, problem="another protocol") if wrong else one


def test_a_node_that_always_fails_does_not_stop_the_others():
    """Six nodes of one user, a tenth of whom take part: most rounds are of nobody, by chance."""
    for seed in range(10):
        method = method_of(clients=0.1, rounds=20, local=LOCAL)
        method.world = method.world._replace(seed=seed)
        server = Server(method, OneFails(nodes_of(method, ring(6), 6)), clients=6)
        done = server.run()
        assert done.next_round == 21
        assert sum(one.users for one in done.curve) > 0


def test_nobody_but_failing_nodes_for_long_is_no_chance(monkeypatch):
    monkeypatch.setattr(server_module, "MOST_SKIPPED", 3)
    method = method_of(clients=1e-9, rounds=20, local=LOCAL)
    server = Server(method, OneFails(nodes_of(method, ring(6), 6)), clients=6)
    with pytest.raises(InputError, match=r"round 3: 0 clients of 5 nodes.*another protocol"):
        server.run()
    certain = method_of(clients=1.0, rounds=20, min_clients=6, local=LOCAL)
    server = Server(certain, OneFails(nodes_of(certain, ring(6), 6)), clients=6)
    with pytest.raises(InputError, match="round 1: 5 clients of 5 nodes"):
        server.run()


def test_silent_nodes_are_waited_for_once_a_round():
    asked = []

    class Silent(OneFails):
        def ask(self, orders, wait):
            asked.extend(orders)
            for one in super().ask(orders, wait):
                yield one._replace(silent=one.reply is None)

    method = method_of(clients=1e-9, rounds=1, local=LOCAL)
    Server(method, Silent(nodes_of(method, ring(3), 3)), clients=3).run()
    assert len(asked) == len(set(asked)) == 3


def test_bytes_are_those_of_the_messages_of_one_user():
    histories = ring(12)
    many, one = (
        server_of(method_of(clients=1.0, local=LOCAL), histories, nodes).step() for nodes in (1, 12)
    )
    assert many.down == pytest.approx(one.down, abs=40)
    assert many.up == pytest.approx(one.up, abs=40)
    assert one.wire_up > 11 * many.wire_up
    floats = sum(array.size for array in method_of().start().values())
    assert 4 * floats < many.up < 4 * floats + 6_000  # names and shapes besides


def test_bytes_of_evaluation_are_measured_by_themselves():
    """A model goes down to every node, and three numbers with their names come up."""
    plain, measured = (
        server_of(method_of(clients=1.0, rounds=2, local=LOCAL, **asked), ring(12), 3).step()
        for asked in ({}, {"client_evaluation": True, "evaluate_every": 1})
    )
    assert plain[-4:] == (0.0, 0.0, 0, 0)
    for name in ("down", "wire_down", "up", "wire_up"):  # of training, as they were
        assert getattr(measured, name) == pytest.approx(getattr(plain, name), abs=30)
    floats = sum(array.size for array in method_of().start().values())
    assert measured.evaluation_down > 4 * floats
    assert measured.evaluation_wire_down == pytest.approx(3 * measured.evaluation_down, abs=30)
    assert 3 * 8 < measured.evaluation_up < 1_000
    assert measured.evaluation_wire_up == pytest.approx(3 * measured.evaluation_up, abs=30)


def test_clients_measure_the_metric_that_chooses_the_best_round():
    """The last round spoils the model, so the first is the best."""
    method = method_of(
        clients=1.0,
        rounds=2,
        local=LOCAL,
        metric="ndcg@3",
        client_evaluation=True,
        evaluate_every=1,
    )
    step = method.next_state

    def spoilt(state, sums, round):
        following = step(state, sums, round)
        return following if round == 1 else {name: -array for name, array in following.items()}

    method.next_state = spoilt  # type: ignore[method-assign]
    done = server_of(method, ring(60)).run()
    first, last = (one.on_clients["ndcg@3"] for one in done.curve)
    assert first > last
    assert (done.best_round, done.best_value) == (1, first)


def test_methods_are_found_by_the_names_of_their_files():
    found = names()
    assert {"fedavg"} <= set(found)
    for name in found:
        assert issubclass(find_method(name), FederatedMethod)
        assert find_method(name).name == name
    with pytest.raises(InputError, match="fedavg"):
        find_method("fedavgg")


def test_the_server_can_take_momentum_or_adam():
    """One array, two rounds of a mean change of 0.1, by hand."""
    state, change = {"w": np.zeros(1, np.float32)}, {"w": np.full(1, 0.1, np.float32)}
    plain = server_step(state, change, ServerConfig(learning_rate=0.5))
    assert plain["w"] == pytest.approx(0.05)
    assert list(plain) == ["w"]
    momentum = ServerConfig(momentum=0.5)
    twice = server_step(server_step(state, change, momentum), change, momentum)
    assert twice["w"] == pytest.approx(0.1 + (0.05 + 0.1))
    adam = ServerConfig(optimizer="adam", learning_rate=1.0, momentum=0.9, second=0.99, epsilon=0.5)
    once = server_step(state, change, adam)
    assert once["w"] == pytest.approx(0.01 / (0.01 + 0.5))
    assert state["w"] == 0
