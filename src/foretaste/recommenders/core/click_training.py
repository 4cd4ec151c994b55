"""What rankers learn from: impressions, or the events of a split with sampled negatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.data.click_batches import ClickBatch, ClickBatches, click_batches
from foretaste.data.clicks import ClickTask, Impressions, with_negatives
from foretaste.data.negatives import Negatives
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.metrics import auc, gauc, log_loss, user_clicks
from foretaste.nn.key_values import penalty_of
from foretaste.recommenders.core.ranker_config import RankerConfig
from foretaste.recommenders.core.ranker_network import History, RankerNetwork

PRIOR = 5
"""Impressions that stand for what is not known of an item's own rate of clicks."""


class ClickLoss(nn.Module):
    """The sum of the cross-entropies of clicks."""

    def __init__(self, network: RankerNetwork) -> None:
        """``network`` gives the logits."""
        super().__init__()
        self.network = network

    def forward(self, batch: ClickBatch, half: bool) -> Tensor:
        """A scalar. ``half`` is of no matter: no product is over the catalog."""
        del half
        device = self.network.items.weight.device
        logits = self.network(*click_tensors(batch, device))  # [B, C]
        labels = torch.from_numpy(batch.labels).to(device)
        asked = torch.from_numpy(batch.index >= 0).to(device)
        losses = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
        loss = (losses * asked).sum()
        penalty = penalty_of(self.network)
        return loss if penalty is None else loss + batch.tokens * penalty


@dataclass(frozen=True)
class Clicks:
    """The impressions of a task as training data."""

    events: Sequences
    levels: np.ndarray | None
    impressions: Impressions
    length: int
    budget: int

    def batches(self, rng: np.random.Generator) -> ClickBatches:
        """See ``TrainingData``."""
        return click_batches(
            self.events, self.levels, self.impressions, self.length, self.budget, rng
        )


@dataclass(frozen=True)
class SampledClicks:
    """Events as clicks, with negatives that are drawn anew for every epoch."""

    events: Sequences
    clicks: Impressions
    sampler: Negatives
    config: RankerConfig

    def batches(self, rng: np.random.Generator) -> ClickBatches:
        """See ``TrainingData``."""
        shown, _ = with_negatives(self.clicks, self.sampler, self.config.negatives, rng)
        budget = self.config.train.batch_tokens
        return click_batches(self.events, None, shown, self.config.max_length, budget, rng)


def require_labels(task: ClickTask, metric: str) -> None:
    """Look at a task before ``metric`` is to choose the best epoch.

    Raises:
        InputError: when train or valid has one label only, or no user of valid has both and
            ``metric`` is ``gauc``.
    """
    for name, part in (("train", task.train), ("valid", task.valid)):
        if len(np.unique(part.labels)) == 1 or (name == "train" and not len(part)):
            raise InputError(
                f"the {name} part of the click task has one label only, so there is nothing to "
                "tell apart. Change its threshold or shares."
            )
    if metric == "gauc" and len(task.valid):
        own = user_clicks(task.valid.labels, np.zeros(len(task.valid)), task.valid.users)
        if np.isnan(own.auc).all():
            raise InputError(
                "no user has both labels in the valid part of the click task, so there is no "
                'GAUC. Give it a larger share, or set click_metric = "auc".'
            )


def click_metric_of(asked: Impressions, found: np.ndarray, metric: str) -> float:
    """AUC, GAUC or log-loss with its sign turned, of probabilities ``[n]``: more is better."""
    if metric == "gauc":
        return gauc(asked.labels, found, asked.users).value
    if metric == "log_loss":
        return -log_loss(asked.labels, found)
    return auc(asked.labels, found)


def after_the_first(sequences: Sequences) -> Impressions:
    """Every event but the first of its row, as a click after those before it."""
    rows = sequences.rows
    ends = np.arange(sequences.events) - sequences.offsets[:-1][rows]
    whole = Impressions(
        rows.astype(np.int32),
        ends.astype(np.int32),
        sequences.items,
        np.ones(sequences.events, bool),
        np.zeros(sequences.events, np.int64),
    )
    return whole.take(ends > 0)


def log_odds(clicked: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Of a click on each item, less those on any item; both arguments are counts ``[items]``.

    Shrunk by ``PRIOR`` impressions at the common rate, for items that are rarely shown.
    """
    common = clicked.sum() / shown.sum()
    rate = (clicked + PRIOR * common) / (shown + PRIOR)
    return np.log(rate / (1 - rate)) - np.log(common / (1 - common))


def click_tensors(batch: ClickBatch, device: torch.device) -> tuple[History, Tensor, Tensor]:
    """What a network takes: history, candidates, ends."""
    levels = None if batch.levels is None else torch.from_numpy(batch.levels).to(device).int()
    history = History(
        torch.from_numpy(batch.items).to(device),
        levels,
        torch.from_numpy(batch.lengths).to(device).long(),
    )
    candidates = torch.from_numpy(batch.candidates).to(device)
    return history, candidates, torch.from_numpy(batch.ends).to(device)
