"""Hyper-parameters of training by gradient."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foretaste.metrics import parse_metric


class TrainConfig(BaseModel):
    """How a network is trained. Every field is ``[train]`` of a recipe and ``--set train.field=``.

    Attributes:
        epochs: passes over the training data, at most; 0 leaves weights as they begin, at random or
            where the model starts from (``start_from``).
        patience: validations without improvement after which training stops; 0 never stops early.
        min_epochs: epochs before which it never stops early. The first ones learn popularity, and
            then comes a plateau of several epochs before anything personal is learnt.
        validate_every: epochs between validations.
        validate_queries: validation queries used, a fixed random part when there are more.
        metric: the validation metric that chooses the best epoch.
        batch_tokens: events in a batch, padding counted.
        windows: ``every`` asks for each event once an epoch, ``last`` uses only a user's last
            ``max_length`` events.
        learning_rate: of AdamW at its highest.
        schedule: ``constant``, or ``cosine`` down to a hundredth at the last epoch.
        warmup_steps: steps over which the learning rate rises from zero.
        weight_decay: of AdamW, on matrices only (not on biases and norms).
        clip: the norm to which gradients are clipped; 0 does not clip.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=200, ge=0)
    patience: int = Field(default=10, ge=0)
    min_epochs: int = Field(default=15, ge=0)
    validate_every: int = Field(default=1, ge=1)
    validate_queries: int = Field(default=10_000, ge=1)
    metric: str = "ndcg@10"
    batch_tokens: int = Field(default=6_400, ge=1)
    windows: Literal["every", "last"] = "every"
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        parse_metric(self.metric)
        return self
