"""FedMF and what all methods on item tables share: examples, steps, heads, averaging."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.federated.core.base import LocalUsers, Sums
from foretaste.federated.core.chosen_items import drawn_examples, scattered
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.server import Server
from foretaste.federated.core.updates import zeros
from foretaste.federated.fedmf import FedMF
from foretaste.recommenders.als import ALS
from foretaste.recommenders.core.base import Recommender

from .rings import ITEMS, keys_of, method_of, nodes_of, ring, same, server_of

DIM = 4


def table_method(name: str = "fedmf", **config: Any) -> FedMF:
    found = method_of(name, model=ALS(factors=DIM), **config)
    assert isinstance(found, FedMF)
    return found


def users_of(method, histories: Sequences) -> LocalUsers:
    keys = keys_of(len(histories))
    return LocalUsers(keys, keys, histories, method.first_personal(keys))


def summed(method, trained) -> dict[str, np.ndarray]:
    total = zeros({one.name: one.shape for one in method.up()})
    trained.updates.add_to(total)
    return total


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=9), min_size=1, max_size=6))
def test_examples_are_the_history_and_items_drawn_whoever_else_is_there(lists):
    keys = keys_of(len(lists))
    together = drawn_examples(Sequences.from_lists(lists), keys, 3, 12)
    for user, history in enumerate(lists):
        alone = drawn_examples(Sequences.from_lists([history]), keys[user : user + 1], 3, 12)
        real = together.weights[user] > 0
        items = together.items[user][real]
        assert torch.equal(items, alone.items[0])
        assert torch.equal(together.labels[user][real], alone.labels[0])
        assert set(items[together.labels[user][real] > 0].tolist()) == set(history)
        assert len(set(items.tolist())) == len(items) <= 4 * len(history)
        assert float(together.weights[user].sum()) == pytest.approx(1.0, abs=1e-6)


def test_adding_up_at_places():
    values = torch.tensor([[[1.0, 2.0], [10.0, 20.0]], [[5.0, 5.0], [0.0, 1.0]]])
    places = torch.tensor([[[0, 2], [2, 2]], [[1, 1], [0, 2]]])
    found = scattered(values, places, 3)
    assert found[0].tolist() == [[1, 2], [0, 0], [21, 42]]
    assert found[1].tolist() == [[0, 1], [10, 10], [0, 1]]


@pytest.mark.parametrize("name", ["fedmf", "pfedrec"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"average": "touched", "weighting": "events"},
        {"local": {"epochs": 3, "clip": 0.1}},
        {"rows": 7, "hashes": 2},
        {"rows": 7, "average": "touched", "local": {"epochs": 2}},
        {"privacy": {"clip": 0.01}},
    ],
    ids=lambda config: "-".join(config) or "plain",
)
def test_many_users_on_a_node_equal_nodes_of_one(name, config):
    # A large epsilon: tiny means, equal but for rounding, must not be blown up to whole steps.
    config = {"server": {"epsilon": 0.01}, "rounds": 2, "clients": 0.7, **config}
    histories, states = ring(20), []
    for nodes in (20, 1):
        server = server_of(table_method(name, **config), histories, nodes)
        states.append(server.run().state)
    same(states[0], states[1], 2e-6)
    assert np.abs(states[0]["table"] - table_method(name, **config).start()["table"]).max() > 1e-4


def test_items_take_the_gradient_of_the_loss():
    """Against PyTorch's own gradient of the same loss at the vectors that users had before."""
    method, histories = table_method(), ring(5)
    users = users_of(method, histories)
    found = summed(method, method.train(method.start(), users, 1, each=False))["table"]
    table = torch.from_numpy(method.start()["table"]).requires_grad_()
    heads = torch.from_numpy(users.personal["head"])
    chosen = drawn_examples(histories, users.draws, 4, ITEMS)
    for user in range(5):
        real = chosen.weights[user] > 0
        logits = table[chosen.items[user][real]] @ heads[user]
        F.binary_cross_entropy_with_logits(logits, chosen.labels[user][real]).backward()
    gradient = table.grad
    assert gradient is not None
    np.testing.assert_allclose(found, -gradient.numpy(), atol=1e-7)


def test_a_sum_over_users_equals_the_sum_of_each():
    method, histories = table_method(rows=7, hashes=2, average="touched"), ring(9)
    users, state = users_of(method, histories), method.start()
    one = summed(method, method.train(state, users, 1, each=False))
    other = summed(method, method.train(state, users, 1, each=True))
    same(one, other, 1e-6)
    assert one["touched"].max() <= 9


def test_a_row_is_averaged_over_those_who_touched_it():
    """Two clients, by hand: 3.0 from one of them is 3.0 by touch, and 1.5 over all."""
    table, touched = np.zeros((ITEMS, DIM), np.float32), np.zeros((ITEMS, 1), np.float32)
    table[1], touched[1] = 3.0, 1.0
    table[2], touched[2] = 3.0, 2.0
    config: dict[str, Any] = {
        "server": {"optimizer": "average", "learning_rate": 1.0, "momentum": 0.0}
    }
    by_touch = table_method(average="touched", **config)
    before = by_touch.start()
    after = by_touch.next_state(before, Sums({"table": table, "touched": touched}, 2.0, 2), 1)
    moved = after["table"] - before["table"]
    np.testing.assert_allclose(moved[:3, 0], [0.0, 3.0, 1.5], atol=1e-6)
    over_all = table_method(**config)
    moved = over_all.next_state(before, Sums({"table": table}, 2.0, 2), 1)["table"]
    np.testing.assert_allclose((moved - before["table"])[:3, 0], [0.0, 1.5, 1.5], atol=1e-6)


def test_the_user_vector_never_travels():
    method = table_method()
    travelling = {one.name for one in (*method.down(), *method.up())}
    assert travelling == {"table"}
    assert [one.name for one in method.personal()] == ["head"]


@pytest.mark.parametrize("rows", [0, 6])
def test_bytes_are_those_of_the_table(rows):
    method = table_method(rows=rows, clients=1.0)
    done = server_of(method, ring(12)).step()
    values = 4 * DIM * (rows or ITEMS)
    assert method.down()[0].bytes == values
    for measured in (done.down, done.up):
        assert values < measured < values + 600  # header: names, shapes, round; and counts


def test_a_table_of_bytes_comes_down_and_is_read_as_what_it_was():
    method = table_method("pfedrec", precision="int8", clients=1.0, spread=1.0)
    state = method.start()
    done = server_of(method, ring(12)).step()
    values = ITEMS * (DIM + 4)
    assert sum(one.bytes for one in method.down()) == values
    assert values < done.down < values + 700
    sent = method.to_send(state, 1)
    assert sent["table"].dtype == np.int8
    found, exact = method.item_vectors(sent), method.item_vectors(state)
    np.testing.assert_array_equal(exact, state["table"])
    within = np.abs(state["table"]).max(1, keepdims=True) / 254 + 1e-6  # half a step of the row
    assert (np.abs(found - exact) <= within).all()
    assert (found != exact).any()


@pytest.mark.parametrize(
    ("name", "config"), [("fedmf", {}), ("pfedrec", {}), ("pfedrec", {"precision": "int8"})]
)
def test_devices_learn_what_their_users_choose(name, config):
    """Even users choose the first half of the catalog, odd ones the rest."""
    rng = np.random.default_rng(0)
    lists = [(rng.choice(12, 6, replace=False) + 12 * (user % 2)).tolist() for user in range(40)]
    histories = Sequences.from_lists(lists)
    method = table_method(name, rounds=40, server={"learning_rate": 0.1}, **config)
    (node,) = nodes_of(method, histories, 1)
    state = Server(method, LocalFleet([node]), clients=40).run().state
    heads, known = node.store.before(41)
    assert known.all()
    users = LocalUsers(keys_of(40), keys_of(40), histories, heads)
    scores = method.scores(state, users).numpy()
    right = scores[:, :12].mean(1) > scores[:, 12:].mean(1)
    assert (right == (np.arange(40) % 2 == 0)).mean() > 0.95
    strangers = Sequences.from_lists([[0, 5, 7], [13, 20, 22]])
    answers = method.recommender(state).recommend(strangers, k=3).items  # solved, not trained
    assert (answers[0] < 12).all()
    assert (answers[1] >= 12).all()


def test_the_server_answers_for_unknown_users_and_its_model_can_be_loaded(tmp_path):
    method = table_method("pfedrec", rounds=2)
    state = server_of(method, ring(20)).run().state
    found = method.recommender(state)
    answer = found.recommend([["i001", "i002"], []], k=3)
    found.save(tmp_path)
    again = Recommender.load(tmp_path).recommend([["i001", "i002"], []], k=3)
    np.testing.assert_array_equal(answer.items, again.items)
    np.testing.assert_array_equal(found._arrays()["factors"][:, :DIM], state["table"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"local": {"optimizer": "adam"}}, "plain gradient descent"),
        ({"local": {"windows": 2}}, "plain gradient descent"),
        ({"rows": -1}, "rows"),
    ],
)
def test_wrong_options_are_told(config, words):
    with pytest.raises(InputError, match=words):
        table_method(**config)


def test_a_network_is_refused():
    with pytest.raises(InputError, match="Choose --model als"):
        method_of("fedmf")
