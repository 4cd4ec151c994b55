"""What sequence models trained by gradient share: a network, a loss, scores from vectors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.data.batches import Batch, query_batches
from foretaste.data.sequences import Sequences
from foretaste.data.split import Queries, Split
from foretaste.nn.key_values import penalty_of
from foretaste.nn.losses import gbce, linear_cross_entropy, sampled_softmax
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext
from foretaste.recommenders.core.checkpoint import Origin
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.results import FitReport
from foretaste.recommenders.core.train_config import TrainConfig
from foretaste.recommenders.core.training import Objective, Trainer

TOKENS_WHEN_ASKED = 4_096
"""Events encoded at a time when scoring: hidden layers of a few MB, which stay in cache."""


class SequenceConfig(ModelConfig):
    """What every sequence model has.

    Attributes:
        dim: width of item and hidden vectors.
        max_length: events of a history that are read, the last ones.
        dropout: share of hidden values set to zero in training.
        loss: ``softmax`` over the whole catalog, ``sampled`` softmax with logQ correction, or
            ``gbce`` (gSASRec) over sampled negatives.
        negatives: items sampled, for ``sampled`` per batch and for ``gbce`` per event.
        train: how the network is trained (``[train]`` of a recipe).
    """

    dim: int = Field(default=64, ge=1)
    max_length: int = Field(default=50, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    loss: Literal["softmax", "sampled", "gbce"] = "softmax"
    negatives: int = Field(default=256, ge=1)
    train: TrainConfig = TrainConfig()


class AttentionConfig(SequenceConfig):
    """What every model with attention has besides.

    Attributes:
        layers: blocks of attention.
        heads: attention heads; ``dim`` must be a multiple.
    """

    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} must be a multiple of heads = {self.heads}")
        return self


class Histories(NamedTuple):
    """A batch as a network sees it, on its device: ``B`` sequences of at most ``L`` events.

    Attributes:
        items: int32 ``[B, L]``, right-padded with 0.
        lengths: int64 ``[B]``.
        times: int64 ``[B, L]`` milliseconds or positions, 0 on padding; None when unknown.
    """

    items: Tensor
    lengths: Tensor
    times: Tensor | None


class SequenceNetwork(nn.Module):
    """A network that reads histories. Its ``items`` embedding also scores the catalog."""

    items: nn.Embedding

    @abstractmethod
    def forward(self, histories: Histories) -> Tensor:
        """Vectors ``[B, L, D]``: at each event, what would come next."""

    def last(self, histories: Histories) -> Tensor:
        """The vector after the whole history, ``[B, D]``; faster than ``forward`` where it can."""
        hidden = self(histories)
        return hidden[torch.arange(len(hidden), device=hidden.device), histories.lengths - 1]

    def catalog(self) -> Tensor:
        """Vectors of all items, ``[N, D]``."""
        return self.items.weight


class NextItemLoss(nn.Module):
    """The sum, over the events of a batch, of the loss of predicting the next item."""

    log_q: Tensor
    frequency: Tensor

    def __init__(self, network: SequenceNetwork, config: SequenceConfig, counts: np.ndarray):
        """``counts`` int64 ``[items]`` of the training data give the sampling distribution."""
        super().__init__()
        self.network, self.config = network, config
        frequency = counts / counts.sum()
        expected = torch.from_numpy(frequency * config.negatives).float()
        self.register_buffer("log_q", expected.clamp_min(1e-12).log(), persistent=False)
        self.register_buffer("frequency", torch.from_numpy(frequency).float(), persistent=False)

    def forward(self, batch: Batch, half: bool) -> Tensor:
        """A scalar; ``half`` makes catalog products in bfloat16."""
        assert batch.targets is not None
        device = self.log_q.device
        targets = torch.from_numpy(batch.targets).to(device).flatten()
        real = (targets >= 0).nonzero().squeeze(1)
        histories = tensors(batch, device)
        hidden = self.network(histories).flatten(0, 1)
        loss = self.next_item(hidden[real], targets[real].long(), half)
        place = torch.arange(histories.items.shape[1], device=device)
        penalty = penalty_of(self.network, place < histories.lengths[:, None])
        return loss if penalty is None else loss + batch.tokens * penalty

    def next_item(self, hidden: Tensor, targets: Tensor, half: bool) -> Tensor:
        """The loss of ``hidden`` ``[T, D]`` against ``targets`` int64 ``[T]``, summed."""
        weight, count = self.network.catalog(), self.config.negatives
        if self.config.loss == "softmax":
            return linear_cross_entropy(hidden, weight, targets, half=half)
        if self.config.loss == "sampled":
            drawn = torch.multinomial(self.frequency, count, replacement=True)
            return sampled_softmax(hidden, weight, targets, drawn, self.log_q)
        drawn = torch.randint(len(weight), (len(targets), count), device=hidden.device)
        return gbce(hidden, weight, targets, drawn)


class SequenceRecommender(Recommender):
    """A scorer whose score is the product of a history's vector and an item's vector."""

    Config: ClassVar[type[ModelConfig]] = SequenceConfig
    network: SequenceNetwork

    @abstractmethod
    def _network(self, items: int) -> SequenceNetwork:
        """A fresh network for a catalog of this size."""

    def _loss(self, network: SequenceNetwork, counts: np.ndarray) -> nn.Module:
        return NextItemLoss(network, self.config, counts)

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        config: SequenceConfig = self.config
        torch.manual_seed(run.seed)
        self.network = self._begin(split, run)
        asked = some_queries(split.valid, config.train.validate_queries, run.seed)
        metric = config.train.metric

        def validate() -> float:
            answers = rank_queries(self, asked, [metric])
            return float(answers.metrics[metric].mean())

        objective = Objective(
            loss=self._loss(self.network, split.popularity),
            network=self.network,
            validate=validate if len(asked) else None,
            length=self._window(),
            items=split.items,
            origin=Origin(self.version),
        )
        return Trainer(objective, split.train, config.train, run).fit()

    def score_items(self, histories: Sequences, items: np.ndarray) -> Tensor:
        """The scores ``[B, n]`` of these item numbers alone; no history may be empty."""
        wanted = torch.from_numpy(items.astype(np.int64)).to(self.network.catalog().device)
        return self._vectors(histories) @ self.network.catalog().detach()[wanted].T

    def _score(self, histories: Sequences) -> Tensor:
        return self._vectors(histories) @ self.network.catalog().detach().T

    @torch.no_grad()
    def _vectors(self, histories: Sequences) -> Tensor:
        """What histories ask with, ``[B, D]``."""
        self.network.eval()
        weight = self.network.catalog()
        vectors = weight.new_empty(len(histories), weight.shape[1])
        length = self._readable()
        for batch in query_batches(histories, length, TOKENS_WHEN_ASKED):
            found = self.network.last(tensors(batch, weight.device))
            vectors[torch.from_numpy(batch.rows).to(weight.device)] = found.to(vectors.dtype)
        return vectors

    def _begin(self, split: Split, run: RunContext) -> SequenceNetwork:
        """The network with its first weights; the generator of PyTorch is seeded."""
        del run
        return self._network(split.items)

    def _window(self) -> int:
        """Events of a training window, its last target apart."""
        return self.config.max_length

    def _readable(self) -> int:
        """Events of a history that are read when asked, the last ones."""
        return self._window()

    def _arrays(self) -> dict[str, np.ndarray]:
        state = self.network.state_dict()
        return {f"network/{name}": value.detach().cpu().numpy() for name, value in state.items()}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.network = self._network(len(self._fitted_catalog()))
        state = {
            name.removeprefix("network/"): torch.from_numpy(value) for name, value in arrays.items()
        }
        self.network.load_state_dict(state)


def tensors(batch: Batch, device: torch.device) -> Histories:
    """A batch on a device; on the CPU without a copy."""
    times = None if batch.times is None else torch.from_numpy(batch.times).to(device)
    return Histories(
        torch.from_numpy(batch.items).to(device),
        torch.from_numpy(batch.lengths).to(device).long(),
        times,
    )


def some_queries(queries: Queries, limit: int, seed: int) -> Queries:
    """At most ``limit`` queries, always the same ones for a seed."""
    if len(queries) <= limit:
        return queries
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:limit])
    return replace(
        queries,
        users=queries.users[chosen],
        histories=queries.histories.take(chosen),
        targets=queries.targets.take(chosen),
    )
