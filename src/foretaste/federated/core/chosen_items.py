"""What a user chose against items drawn at random, and gradient descent on item vectors with it.

All users of a group at once; results do not depend on how they are grouped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from foretaste.data.sequences import Sequences
from foretaste.federated.core.config import LocalConfig
from foretaste.federated.core.randomness import draws


class ChosenItems(NamedTuple):
    """Examples of ``C`` users, at most ``U`` each.

    Attributes:
        items: int64 ``[C, U]``, distinct, ascending; 0 where there is none.
        labels: float32 ``[C, U]``, 1 for items of the history.
        weights: float32 ``[C, U]``, the same for all examples of a user, 0 where there is none;
            those of a user sum to 1.
    """

    items: Tensor
    labels: Tensor
    weights: Tensor


class Steps(NamedTuple):
    """What gradient descent came to.

    Attributes:
        tables: changes ``[C, R, D]``.
        items: changes ``[C, U, D]`` that the item vectors themselves asked for.
    """

    tables: Tensor
    items: Tensor


def drawn_examples(
    histories: Sequences, keys: np.ndarray, negatives: int, items: int
) -> ChosenItems:
    """The items of every history, and ``negatives`` drawn for each of its events.

    Drawn with replacement from the whole catalog; what was drawn twice counts once, and what the
    user has chosen counts as chosen.

    Args:
        histories: a row for each user, of one event at least.
        keys: uint64 ``[C]``, the start of each user's draws.
        negatives: drawn for every event.
        items: size of the catalog.
    """
    lengths = histories.lengths
    users, longest = len(histories), int(lengths.max(initial=1))
    own = np.full((users, longest), items)
    places = np.arange(histories.events) - histories.offsets[:-1][histories.rows]
    own[histories.rows, places] = histories.items
    drawn = (draws(keys, negatives * longest) % np.uint64(items)).astype(np.int64)
    drawn[np.arange(negatives * longest) >= negatives * lengths[:, None]] = items
    chosen = np.zeros((users, items + 1), bool)
    chosen[histories.rows, histories.items] = True
    rows = np.sort(np.concatenate([own, drawn], 1), 1)
    rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = items
    rows.sort(1)
    counts = (rows < items).sum(1)
    rows = rows[:, : int(counts.max(initial=1))]
    real = rows < items
    labels = chosen[np.arange(users)[:, None], rows] & real
    weights = real / np.maximum(counts, 1)[:, None]
    return ChosenItems(
        torch.from_numpy(np.where(real, rows, 0)),
        torch.from_numpy(labels.astype(np.float32)),
        torch.from_numpy(weights.astype(np.float32)),
    )


def fit_heads(
    heads: Tensor,
    vectors: Tensor,
    chosen: ChosenItems,
    regularization: float,
    epochs: int,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """``epochs`` steps of Adam on every user's own head, each over all of its examples.

    As ``train_users`` with this loss would do, several times faster: the loss is the weighted
    cross-entropy of ``vector . head`` and half the head's squared length times ``regularization``,
    so the gradient is written down instead of being derived.

    Args:
        heads: ``[C, H]``.
        vectors: ``[C, U, H]``, of the examples.
        chosen: examples.
        regularization: see above.
        epochs: steps.
        rate: learning rate.

    Returns:
        New heads ``[C, H]``, and the losses ``[C]`` of the old ones.
    """
    now, losses = heads.clone(), torch.zeros(len(heads))
    mean, square = torch.zeros_like(heads), torch.zeros_like(heads)
    for step in range(1, epochs + 1):
        logits = torch.bmm(vectors, now.unsqueeze(-1)).squeeze(-1)  # [C, U]
        if step == 1:
            own = binary_cross_entropy_with_logits(logits, chosen.labels, reduction="none")
            losses = (own * chosen.weights).sum(1) + 0.5 * regularization * now.square().sum(1)
        errors = (logits.sigmoid_() - chosen.labels) * chosen.weights
        gradient = torch.bmm(errors.unsqueeze(1), vectors).squeeze(1) + regularization * now
        mean.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        divisor = square.sqrt().div_((1 - 0.999**step) ** 0.5).add_(1e-8)
        now.addcdiv_(mean, divisor, value=-rate / (1 - 0.9**step))
    return now, losses


def asked_by_items(
    vectors: Tensor, chosen: ChosenItems, heads: Tensor, constants: Tensor, rate: float
) -> Tensor:
    """One step of gradient descent on item vectors, ``[C, U, D]``.

    The loss is the weighted cross-entropy of ``vector . head + constant``; its gradient by an item
    vector is (probability - label) head.

    Args:
        vectors: ``[C, U, D]``, of the examples.
        chosen: examples.
        heads: ``[C, D]``.
        constants: ``[C]``.
        rate: of the step.
    """
    logits = torch.einsum("cud,cd->cu", vectors, heads) + constants[:, None]
    errors = (torch.sigmoid(logits) - chosen.labels) * chosen.weights  # [C, U]
    return (-rate * errors).unsqueeze(-1) * heads.unsqueeze(1)


def descend(
    vectors: Tensor,
    table: Tensor,
    places: Tensor | None,
    chosen: ChosenItems,
    heads: Tensor,
    constants: Tensor,
    config: LocalConfig,
) -> Steps:
    """``config.epochs`` steps of gradient descent on every user's own copy of what it touches.

    Args:
        vectors: ``[C, U, D]``, of the examples as they came down.
        table: ``[R, D]``, whose rows they add up.
        places: int64 ``[C, U, L]``, which rows; None when every item has its own, and then a
            user's table is that of its ``U`` examples.
        chosen: examples.
        heads: ``[C, D]``.
        constants: ``[C]``.
        config: ``epochs``, ``learning_rate``, and ``clip`` of a user's gradient of the table.
    """
    users = len(vectors)
    change = torch.zeros(vectors.shape if places is None else (users, *table.shape))
    asked, now = torch.zeros_like(vectors), vectors
    for _ in range(config.epochs):
        by_item = asked_by_items(now, chosen, heads, constants, config.learning_rate)
        by_row = by_item if places is None else scattered(by_item, places, len(table))
        if config.clip:
            norms = by_row.flatten(1).norm(dim=1) / config.learning_rate
            factor = (config.clip / (norms + 1e-6)).clamp(max=1.0).view(-1, 1, 1)
            by_item, by_row = factor * by_item, factor * by_row
        change, asked = change + by_row, asked + by_item
        if config.epochs > 1:
            now = vectors + (change if places is None else _gathered(change, places))
    return Steps(change, asked)


def scattered(values: Tensor, places: Tensor, rows: int) -> Tensor:
    """Every user's values ``[C, U, D]`` added up at places ``[C, U, L]``: ``[C, rows, D]``."""
    users, dim = len(values), values.shape[-1]
    total = torch.zeros(users * rows, dim)
    index = places + torch.arange(users).view(-1, 1, 1) * rows
    for level in range(places.shape[2]):
        total.index_add_(0, index[..., level].flatten(), values.flatten(0, 1))
    return total.view(users, rows, dim)


def touched_rows(places: Tensor, chosen: ChosenItems, rows: int) -> Tensor:
    """Which rows a user's examples add up, float32 ``[C, rows]`` of 0 and 1."""
    users = len(places)
    real = (chosen.weights > 0).unsqueeze(-1)
    index = torch.where(real, places, rows) + torch.arange(users).view(-1, 1, 1) * (rows + 1)
    marks = torch.zeros(users * (rows + 1), dtype=torch.bool)
    marks[index.flatten()] = True
    return marks.view(users, rows + 1)[:, :rows].float()


def _gathered(own: Tensor, places: Tensor) -> Tensor:
    """Sums ``[C, U, D]`` of each user's own rows."""
    users, rows, dim = own.shape
    index = places + torch.arange(users).view(-1, 1, 1) * rows
    return own.reshape(-1, dim)[index].sum(2)
