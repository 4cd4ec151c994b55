"""Training many users at once, each with its own copy of what it changes.

A loss is written for one user; ``torch.func`` computes it, and its gradients, for a chunk of users
in one pass. The result is that of one user after another, to float tolerance.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from foretaste.federated.core.config import LocalConfig
from foretaste.federated.core.randomness import hashed, torch_keys

Tensors = dict[str, Tensor]
LocalLoss = Callable[[Tensors, Tensors, Tensor], Tensor]
"""``loss(parameters, data, key)``: a scalar, for one user. ``key`` is for ``KeyedDropout``."""

USERS_AT_ONCE = 64
"""Users computed together, at most: more of them fall out of the cache."""
COPIES = 5
"""Of what a user changes: parameters, gradients, two moments, a temporary."""


class LocalResult(NamedTuple):
    """What local training of ``C`` users came to.

    Attributes:
        changes: new minus old values by name, ``[C, *shape]``.
        losses: float32 ``[C]``, of the values that came down.
    """

    changes: Tensors
    losses: Tensor


def train_users(
    loss: LocalLoss,
    shared: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    data: Tensors,
    keys: np.ndarray,
    config: LocalConfig,
    *,
    broadcast: bool = True,
) -> LocalResult:
    """Train ``C`` users for ``config.epochs`` steps each.

    Args:
        loss: of one user.
        shared: first values that all users have in common, ``[*shape]``.
        own: first values that each user has for itself, ``[C, *shape]``.
        data: what the loss reads, ``[C, ...]``.
        keys: uint64 ``[C]``, of the users in this round.
        config: optimiser and steps.
        broadcast: the network can compute users with common weights in one product; recurrent
            layers of PyTorch cannot.
    """
    users = len(keys)
    first = {**shared, **own}
    values = {
        name: (one.expand(users, *one.shape) if name in shared else one).clone(
            memory_format=torch.contiguous_format
        )
        for name, one in first.items()
    }
    optimizer = _optimizer(values, config)
    losses = torch.zeros(users)
    # Until the first step nobody differs from the others, which is quicker to compute.
    at, dims = _first(shared, own, 0 if broadcast else users)
    with _quiet():
        for step in range(config.epochs):
            key = torch_keys(hashed(keys, step))
            gradients, loss_now = vmap(grad_and_value(loss), in_dims=(dims, 0, 0))(at, data, key)
            if step == 0:
                losses = loss_now.detach()
                at, dims = values, dict.fromkeys(values, 0)
            _clip(gradients, config.clip)
            for name, value in values.items():
                # The fused step reads memory in order, whatever the strides are.
                value.grad = gradients[name].contiguous()
            optimizer.step()
    return LocalResult({name: values[name] - first[name] for name in first}, losses)


def summed_gradients(
    loss: LocalLoss,
    shared: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    data: Tensors,
    keys: np.ndarray,
    weights: Tensor,
) -> LocalResult:
    """The sum over users of weighted gradients, without a gradient for each: FedSGD.

    Exact for one step of plain gradient descent, since the gradient of a sum is the sum of
    gradients.

    Returns:
        ``changes`` holds ``[*shape]`` for ``shared`` and ``[C, *shape]`` for ``own``: weighted
        gradients, not yet times a learning rate.
    """
    key = torch_keys(hashed(keys, 0))
    _, dims = _first(shared, own, 0)

    def total(first: Tensors) -> tuple[Tensor, Tensor]:
        losses = vmap(loss, in_dims=(dims, 0, 0))(first, data, key)
        return (losses * weights).sum(), losses

    with _quiet():
        gradients, losses = grad(total, has_aux=True)({**shared, **own})
    return LocalResult(gradients, losses.detach())


def is_one_gradient(config: LocalConfig) -> bool:
    """Whether local training is one step of plain gradient descent, so that sums suffice."""
    plain = config.optimizer == "sgd" and not config.clip and not config.weight_decay
    return plain and config.epochs == 1


def chunks(costs: np.ndarray, memory: int) -> Iterator[np.ndarray]:
    """Users in groups that are computed together, those of like cost side by side.

    Args:
        costs: floats that one user changes and holds, ``[users]``; it grows with the history.
        memory: MB that a group may take.

    Yields:
        Index arrays into ``costs``; together they hold every user once.
    """
    order = np.argsort(costs, kind="stable")
    first = 0
    while first < len(order):
        ahead = costs[order[first : first + USERS_AT_ONCE]]
        fits = ahead * 4 * COPIES * np.arange(1, len(ahead) + 1) <= memory * 2**20
        count = max(1, int(fits.sum()))
        yield order[first : first + count]
        first += count


def _first(
    shared: Mapping[str, Tensor], own: Mapping[str, Tensor], users: int
) -> tuple[Tensors, dict[str, int | None]]:
    """First values and the axes of their users; ``users`` above 0 gives shared ones an axis too."""
    if users:
        shared = {name: one.expand(users, *one.shape) for name, one in shared.items()}
    dims: dict[str, int | None] = dict.fromkeys(shared, 0 if users else None)
    return {**shared, **own}, dims | dict.fromkeys(own, 0)


def _clip(gradients: Tensors, limit: float) -> None:
    if not limit:
        return
    norms = [torch.linalg.vector_norm(one.flatten(1), dim=1) for one in gradients.values()]
    whole = torch.linalg.vector_norm(torch.stack(norms), dim=0)  # [C]
    factors = (limit / (whole + 1e-6)).clamp(max=1.0)
    if bool((factors < 1).any()):
        for one in gradients.values():
            one.mul_(factors.view(-1, *[1] * (one.ndim - 1)))


def _optimizer(values: Tensors, config: LocalConfig) -> torch.optim.Optimizer:
    """One optimiser over all users' values: its steps are elementwise, so each user has its own."""
    if config.optimizer == "sgd":
        kind: Callable[..., torch.optim.Optimizer] = partial(torch.optim.SGD, foreach=True)
    else:
        kind = partial(torch.optim.AdamW, fused=True)
    # A matrix has an axis more here, that of users.
    matrices = [value for value in values.values() if value.ndim > 2]
    others = [value for value in values.values() if value.ndim <= 2]
    decays = (config.weight_decay, 0.0)
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in zip((matrices, others), decays, strict=True)
        if params
    ]
    return kind(groups, lr=config.learning_rate)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns of operations that it computes user by user; they are a twentieth of it all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop", append=False)
        yield
