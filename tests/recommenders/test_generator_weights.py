"""The weights of generators: each is trained, by one process or by several."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.data.batches import Batch
from foretaste.data.split import Split
from foretaste.recommenders.core.generator import CodeLoss

from .generators import fitted, generator

NAMES = ["tiger", "mdgr", "s2gr"]
every = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *[(name, {"reads": reads}) for name in NAMES for reads in ("codes", "items")],
        ("tiger", {"architecture": "decoder-only"}),
        ("mdgr", {"normalise": "codes"}),
        ("s2gr", {"thinking": "first"}),
        ("s2gr", {"thinking": "blank"}),
        *[("s2gr", {part: 0.0}) for part in ("align", "contrast", "regularise")],
        ("s2gr", {"contrast": 0.0, "regularise": 0.0}),
    ],
)
def test_every_weight_takes_part_in_the_loss(name: str, parameters: dict, ordinary: Split):
    """Processes that train together wait for the gradient of each."""
    network = fitted(name, ordinary, **parameters).network.train()
    network.zero_grad(set_to_none=True)
    network.loss(torch.tensor([[0, 5, 3]]), torch.tensor([[5, 3, 9]]), 1.0).backward()
    trained = {name: one for name, one in network.named_parameters() if one.requires_grad}
    assert not [name for name, one in trained.items() if one.grad is None]


@every
def test_runs_with_weights_of_no_use_are_read(name: str, ordinary: Split):
    """As earlier versions wrote them."""
    model, again = fitted(name, ordinary), generator(name)
    again.catalog, again.popularity = model.catalog, model.popularity
    again._set_arrays(model._arrays() | {"network/level.weight": np.zeros((3, 16), np.float32)})
    asked = [["i0000", "i0005"]]
    np.testing.assert_array_equal(again.recommend(asked, 5).items, model.recommend(asked, 5).items)


@every
@pytest.mark.parametrize("reads", ["codes", "items"])
def test_a_process_without_histories_loses_nothing(name: str, reads: str, ordinary: Split):
    """Of a batch with fewer histories than processes; its gradients are zeros, but they are."""
    network = fitted(name, ordinary, reads=reads).network.train()
    network.zero_grad(set_to_none=True)
    nothing = np.zeros((0, 4), np.int32)
    loss = CodeLoss(network)(
        Batch(nothing, np.zeros(0, np.int64), np.arange(0), nothing, np.arange(0)), False
    )
    loss.backward()
    assert not bool(loss.detach())
    grads = [one.grad for one in network.parameters()]
    assert all(grad is not None and not bool(grad.any()) for grad in grads)
