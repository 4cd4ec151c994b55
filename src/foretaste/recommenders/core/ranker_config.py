"""The parameters that all rankers share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from foretaste.nn.collective import CollectiveConfig
from foretaste.recommenders.core.base import ModelConfig
from foretaste.recommenders.core.train_config import TrainConfig


class RankerTrainConfig(TrainConfig):
    """How a ranker is trained: the fields of ``TrainConfig``, with other defaults.

    Attributes:
        patience: an impression is learnt by heart within a few epochs, so waiting is of no use.
        min_epochs: as of ``TrainConfig``.
        validate_queries: ranking a whole catalog asks the network for every pair.
        batch_tokens: events and candidates of a batch, padding counted.
        weight_decay: of matrices, item vectors among them.
    """

    patience: int = Field(default=5, ge=0)
    min_epochs: int = Field(default=10, ge=0)
    validate_queries: int = Field(default=1_000, ge=1)
    batch_tokens: int = Field(default=1_600, ge=1)
    weight_decay: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _every_window(self) -> Self:
        if self.windows != "every":
            raise ValueError('windows = "last" is of no use to a ranker, which cuts no windows')
        return self


class RankerConfig(ModelConfig):
    """What every ranker has.

    Attributes:
        dim: width of item vectors, keys and values.
        heads: attention heads; ``dim`` must be a multiple.
        max_length: events of a history that a candidate sees, the last ones.
        hidden: width of the layer that judges a candidate.
        shrink: impressions after which an item's vector counts half of what it is.
        dropout: share of event vectors and hidden values set to zero in training.
        attention: ``full`` keys and values, or ``collective`` ones (CollectiveKV).
        collective: of collective keys and values.
        start_from: run folder of a trained ranker of the same kind and shape, whose weights
            training starts from. Collective keys and values then begin as what is nearest to its
            full ones.
        negatives: items sampled for every event when there are no impressions (``fit``).
        click_metric: what chooses the best epoch on impressions (``fit_clicks``).
        train: how the network is trained (``[train]`` of a recipe).
    """

    dim: int = Field(default=64, ge=1)
    heads: int = Field(default=2, ge=1)
    max_length: int = Field(default=100, ge=1)
    hidden: int = Field(default=64, ge=1)
    shrink: float = Field(default=100.0, ge=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    attention: Literal["full", "collective"] = "full"
    collective: CollectiveConfig = CollectiveConfig()
    start_from: Path | None = None
    negatives: int = Field(default=4, ge=1)
    click_metric: Literal["auc", "gauc", "log_loss"] = "auc"
    train: RankerTrainConfig = RankerTrainConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} must be a multiple of heads = {self.heads}")
        problem = self.collective.problem(self.dim, self.heads)
        if self.attention == "collective" and problem:
            raise ValueError(problem)
        return self
