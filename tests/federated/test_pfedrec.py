"""PFedRec: the head is fitted first, stays on the device, and comes back in the next round."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from foretaste.federated.core.base import LocalUsers
from foretaste.federated.core.chosen_items import asked_by_items, drawn_examples, fit_heads
from foretaste.federated.core.config import LocalConfig
from foretaste.federated.core.local_training import Tensors, train_users

from .rings import keys_of, nodes_of, ring, server_of
from .test_fedmf import DIM, summed, table_method, users_of


def test_items_step_with_the_head_that_was_just_fitted():
    method, histories = table_method("pfedrec", spread=1.0), ring(5)
    users, state = users_of(method, histories), method.start()
    trained = method.train(state, users, 1, each=False)
    chosen = drawn_examples(histories, users.draws, 4, method.items)
    vectors = torch.from_numpy(state["table"])[chosen.items]
    heads = torch.from_numpy(trained.personal["head"])
    asked = asked_by_items(vectors, chosen, *method.split_head(heads), 1.0)
    wanted = torch.zeros(method.items, DIM)
    wanted.index_add_(0, chosen.items.flatten(), asked.flatten(0, 1))
    np.testing.assert_allclose(summed(method, trained)["table"], wanted.numpy(), atol=1e-6)
    assert np.abs(trained.personal["head"] - users.personal["head"]).max() > 0.1


def test_heads_are_fitted_as_automatic_differentiation_would():
    method, histories = table_method("pfedrec", spread=1.0), ring(5)
    users, state = users_of(method, histories), method.start()
    chosen = drawn_examples(histories, users.draws, 4, method.items)
    vectors = F.pad(torch.from_numpy(state["table"])[chosen.items], (0, 1), value=1.0)
    data = {"vectors": vectors, "labels": chosen.labels, "weights": chosen.weights}

    def loss(parameters: Tensors, data: Tensors, key: torch.Tensor) -> torch.Tensor:
        del key
        logits = data["vectors"] @ parameters["head"]
        own = F.binary_cross_entropy_with_logits(logits, data["labels"], reduction="none")
        return (own * data["weights"]).sum() + 5e-4 * parameters["head"].square().sum()

    heads = torch.from_numpy(users.personal["head"])
    config = LocalConfig(epochs=5, learning_rate=0.05, clip=0)
    wanted = train_users(loss, {}, {"head": heads}, data, users.draws, config)
    found, losses = fit_heads(heads, vectors, chosen, 1e-3, 5, 0.05)
    torch.testing.assert_close(found - heads, wanted.changes["head"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses, wanted.losses)


def test_fitting_lowers_the_loss_and_takes_the_constant_along():
    method, histories = table_method("pfedrec", spread=1.0, head={"epochs": 50}), ring(6)
    users, state = users_of(method, histories), method.start()
    first = method.train(state, users, 1, each=False)
    again = LocalUsers(users.keys, users.draws, histories, first.personal)
    second = method.train(state, again, 1, each=False)
    assert (second.losses < first.losses).all()
    assert np.abs(first.personal["head"][:, DIM]).min() > 1e-3


def test_heads_stay_on_the_disk_of_the_node(tmp_path):
    histories = ring(8)
    method = table_method("pfedrec", rounds=3, clients=1.0)
    server_of(method, histories, nodes=1, folder=tmp_path).run()
    (node,) = nodes_of(method, histories, 1, tmp_path)
    heads, known = node.store.before(4)
    assert known.all()
    alone = table_method("pfedrec", rounds=3, clients=1.0)
    server_of(alone, histories, nodes=8, folder=tmp_path / "apart").run()
    for number, one in enumerate(nodes_of(alone, histories, 8, tmp_path / "apart")):
        np.testing.assert_allclose(
            one.store.before(4)[0]["head"][0], heads["head"][number], atol=1e-5
        )


def test_first_heads_are_the_same_for_all():
    heads = table_method("pfedrec").first_personal(keys_of(3))["head"]
    assert heads.tolist() == [[0.5] * DIM + [0.0]] * 3
