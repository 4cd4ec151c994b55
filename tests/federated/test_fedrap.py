"""FedRAP: own item vectors stay, and only those of items that a user trained with are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.federated.core.base import LocalUsers
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.node import Node, NodeUsers
from foretaste.federated.core.personal import PersonalStore, as_rows
from foretaste.federated.core.server import Server
from foretaste.federated.explaining import explain
from foretaste.federated.fedrap import OWN, OWN_ITEMS, FedRAP
from foretaste.recommenders.als import ALS

from .rings import ITEMS, keys_of, nodes_of, ring, same, server_of
from .rings import method_of as any_method
from .test_fedmf import DIM, summed, table_method, users_of


def method_of(**config) -> FedRAP:
    found = table_method("fedrap", **config)
    assert isinstance(found, FedRAP)
    return found


def dense(method: FedRAP, personal, users: int) -> np.ndarray:
    """Own tables ``[C, items, D]`` written out."""
    found = np.zeros((users, ITEMS, DIM), np.float32)
    for user in range(users):
        found[user, personal[OWN_ITEMS][user]] = personal[OWN][user]
    return found


def trained_once(method: FedRAP, histories: Sequences, round: int) -> LocalUsers:
    """Users who have trained in one round, and so have own rows."""
    users = users_of(method, histories)
    trained = method.train(method.start(), users, round, each=False)
    return LocalUsers(users.keys, users.draws, histories, trained.personal)


@pytest.mark.parametrize("epochs", [1, 3])
def test_both_tables_take_the_gradient_of_the_loss_of_the_paper(epochs):
    """Against PyTorch's own gradient of the loss, on tables written out."""
    settings = {"apart": 0.7, "sparse": 0.3, "own_rate": 5.0, "spread": 1.0}
    method, histories = method_of(local={"epochs": epochs}, **settings), ring(5)
    users, round = trained_once(method, histories, 2), 3
    state = method.start()
    trained = method.train(state, users, round, each=True)
    found = trained.updates.whole().parts["table"].numpy()  # type: ignore[union-attr]
    before, after = (dense(method, one, 5) for one in (users.personal, trained.personal))
    chosen, strength = method.examples(users), np.tanh(0.3)
    for user in range(5):
        real = chosen.weights[user] > 0
        items, labels = chosen.items[user][real], chosen.labels[user][real]
        head = torch.from_numpy(users.personal["head"][user])
        common = torch.from_numpy(state["table"].copy()).requires_grad_()
        own = torch.from_numpy(before[user].copy()).requires_grad_()
        for _ in range(epochs):
            both = common[items] + own[items]
            loss = F.binary_cross_entropy_with_logits(both @ head[:DIM] + head[DIM], labels)
            loss = loss - strength * 0.7 * F.mse_loss(own[items], common[items])
            loss = loss + strength * 0.3 * common[items].abs().mean()
            to_common, to_own = torch.autograd.grad(loss, (common, own))
            with torch.no_grad():
                common -= to_common
                own -= 5.0 * to_own
        wanted = common.detach().numpy() - state["table"]
        np.testing.assert_allclose(found[user], wanted, atol=2e-6)
        np.testing.assert_allclose(after[user], own.detach().numpy(), atol=2e-5)
    assert np.abs(after - before).max() > 0.01


def test_only_rows_that_a_user_trained_with_are_kept():
    method, histories = method_of(), ring(6)
    users = trained_once(method, histories, 1)
    chosen = method.examples(users)
    for user in range(6):
        items = users.personal[OWN_ITEMS][user]
        np.testing.assert_array_equal(items, chosen.items[user][chosen.weights[user] > 0])
        assert set(histories[user].tolist()) <= set(items.tolist())
    # A history that has lost its events (they were deleted, say) loses no row.
    shorter = LocalUsers(users.keys, users.draws, histories.last(1), users.personal)
    again = method.train(method.start(), shorter, 2, each=False).personal
    for user in range(6):
        np.testing.assert_array_equal(again[OWN_ITEMS][user], users.personal[OWN_ITEMS][user])
    # Items are drawn once: another round trains with the same.
    later = LocalUsers(users.keys, users.draws + np.uint64(1), histories, users.personal)
    assert torch.equal(method.examples(later).items, chosen.items)


def test_scores_are_those_of_tables_written_out():
    method, histories = method_of(spread=1.0, head={"epochs": 3}), ring(7)
    users = trained_once(method, histories, 4)
    state = method.start()
    found = method.scores(state, users)
    whole = torch.from_numpy(state["table"] + dense(method, users.personal, 7))
    chosen = method.examples(users)
    vectors = torch.stack([whole[user, chosen.items[user]] for user in range(7)])
    heads, _ = method.fit_heads(torch.from_numpy(users.personal["head"]), vectors, chosen)
    head, constant = method.split_head(heads)
    wanted = torch.einsum("cd,cid->ci", head, whole) + constant[:, None]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    strangers = users_of(method, histories)  # without own rows: what is common alone
    assert method.scores(state, strangers).shape == (7, ITEMS)


@pytest.mark.parametrize(
    "config",
    [{}, {"average": "touched", "weighting": "events"}, {"privacy": {"clip": 0.01}}],
    ids=lambda config: "-".join(config) or "plain",
)
def test_many_users_on_a_node_equal_nodes_of_one(config, tmp_path):
    config = {"server": {"epsilon": 0.01}, "rounds": 3, "clients": 0.7, **config}
    histories, states, tables = ring(20), [], []
    for nodes in (20, 1):
        method, folder = method_of(**config), tmp_path / str(nodes)
        states.append(server_of(method, histories, nodes, folder).run().state)
        read = [node.store.before(4)[0] for node in nodes_of(method, histories, nodes, folder)]
        order = np.argsort(np.concatenate([np.arange(n, 20, nodes) for n in range(nodes)]))
        joined = {name: np.concatenate([one[name] for one in read])[order] for name in read[0]}
        tables.append(dense(method, joined, 20))
    same(states[0], states[1], 2e-6)
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-5)
    assert np.abs(tables[0]).max() > 0.1


def test_a_round_asked_again_begins_from_the_same_rows(tmp_path):
    method, histories = method_of(rounds=4, clients=0.6), ring(12)
    whole = server_of(method, histories, folder=tmp_path / "whole").run()
    cut = server_of(method, histories, folder=tmp_path / "cut")
    cut.step()
    cut.step()
    ended = server_of(method, histories, folder=tmp_path / "cut").run()
    np.testing.assert_array_equal(ended.state["table"], whole.state["table"])


def test_rows_of_another_width_are_told(tmp_path):
    histories = ring(3)
    server_of(method_of(clients=1.0), histories, 1, tmp_path).step()
    wider = any_method("fedrap", model=ALS(factors=DIM + 1), clients=1.0)
    (node,) = nodes_of(wider, histories, 1, tmp_path)
    with pytest.raises(InputError, match="not the personal arrays of this method"):
        node.store.before(2)
    (declared,) = (one for one in wider.personal() if one.name == OWN)
    keys = keys_of(3)
    PersonalStore((declared,), keys, tmp_path / "cut").after(
        1, {OWN: as_rows([np.zeros((2, DIM + 1), np.float32)] * 3)}, np.ones(3, bool)
    )
    narrower = PersonalStore((declared._replace(shape=(-1, DIM)),), keys, tmp_path / "cut")
    with pytest.raises(InputError, match="not the personal arrays of this method"):
        narrower.before(2)


def test_own_vectors_never_travel():
    method = method_of()
    assert {one.name for one in (*method.down(), *method.up())} == {"table"}
    stays = {one.name for one in explain(method).personal}
    assert stays == {"head", OWN, OWN_ITEMS}


def test_own_vectors_learn_what_a_user_chose():
    """Two kinds of users who choose opposite halves: the common vectors alone cannot say both."""
    rng = np.random.default_rng(0)
    lists = [(rng.choice(12, 6, replace=False) + 12 * (user % 2)).tolist() for user in range(30)]
    method = method_of(rounds=30, clients=1.0, server={"learning_rate": 0.1})
    node = Node(method, NodeUsers(keys_of(30), Sequences.from_lists(lists)), "node")
    curve = Server(method, LocalFleet([node]), clients=30).run().curve
    assert curve[0].loss is not None
    assert curve[-1].loss is not None
    assert curve[-1].loss < 0.7 * curve[0].loss
    own = dense(method, node.store.before(31)[0], 30)
    chosen = np.zeros((30, ITEMS), bool)
    for user, items in enumerate(lists):
        chosen[user, items] = True
    heads = node.store.before(31)[0]["head"][:, :DIM]
    adds = np.einsum("cd,cid->ci", heads, own)
    trained = (own != 0).any(2)
    assert adds[chosen].mean() > adds[trained & ~chosen].mean() + 0.5


def test_the_weights_of_both_regularisers_rise():
    method = method_of()
    assert [round_ for round_ in (1, 10, 100) if method.strength(round_) < 0.8] == [1, 10]
    assert method.strength(10) == pytest.approx(np.tanh(1.0))


@pytest.mark.parametrize("config", [{"rows": 5}, {"local": {"clip": 1.0}}])
def test_wrong_options_are_told(config):
    with pytest.raises(InputError, match=r"leave rows and local\.clip at 0"):
        method_of(**config)


def test_the_sum_of_what_goes_up_is_that_of_each():
    method, histories = method_of(), ring(9)
    users, state = users_of(method, histories), method.start()
    one = summed(method, method.train(state, users, 1, each=False))
    other = summed(method, method.train(state, users, 1, each=True))
    same(one, other, 1e-6)
