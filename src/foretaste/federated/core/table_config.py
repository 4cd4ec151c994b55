"""Settings of methods that train a table of item vectors together: FedMF and those upon it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from foretaste.federated.core.config import FederatedConfig, LocalConfig, Part, ServerConfig


class TableTraining(LocalConfig):
    """How one user changes item vectors in a round: plain gradient descent.

    Attributes:
        epochs: steps, each over all examples of the user.
        optimizer: only ``sgd``; the server's optimiser adapts the step.
        learning_rate: of the mean loss over a user's examples.
        negatives: items drawn uniformly for every event, anew in every round.
    """

    epochs: int = Field(default=1, ge=1)
    optimizer: Literal["adam", "sgd"] = "sgd"
    learning_rate: float = Field(default=1.0, gt=0)
    clip: float = Field(default=0.0, ge=0)
    negatives: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _plain(self) -> Self:
        if self.optimizer != "sgd" or self.weight_decay or self.windows != 4:
            raise ValueError(
                "item vectors are trained by plain gradient descent on all events: leave "
                "optimizer, weight_decay and windows as they are, and set server.optimizer"
            )
        return self


class HeadTraining(Part):
    """How one user fits its own vector: Adam, begun afresh every time.

    Attributes:
        epochs: steps, each over all examples of the user.
        learning_rate: of Adam.
    """

    epochs: int = Field(default=5, ge=1)
    learning_rate: float = Field(default=0.05, gt=0)


class TableServer(ServerConfig):
    """FedAdam, since rows of a table are touched by very different numbers of clients."""

    optimizer: Literal["average", "adam"] = "adam"
    learning_rate: float = Field(default=0.02, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    epsilon: float = Field(default=1e-6, gt=0)


class FedMFConfig(FederatedConfig):
    """Of FedMF.

    Attributes:
        head: how a user fits its own vector; a device does it again before it answers.
        regularization: half the squared length of that vector, times this, is added to its loss.
        rows: 0 gives every item a row of the table; else items share so many rows by hash.
        hashes: rows that a hashed item adds up.
        average: ``all`` divides a row's sum by all clients of the round, ``touched`` by those
            that touched the row (their number then goes up too).
        spread: standard deviation of the first vectors.
        precision: of the table that comes down: ``int8`` sends each row as bytes and a step. What
            goes up is ``upload``'s.
    """

    clients: float = Field(default=1.0, gt=0, le=1)
    rounds: int = Field(default=100, ge=1)
    local: TableTraining = TableTraining()
    server: TableServer = TableServer()
    head: HeadTraining = HeadTraining()
    regularization: float = Field(default=1e-3, ge=0)
    rows: int = Field(default=0, ge=0)
    hashes: int = Field(default=1, ge=1)
    average: Literal["all", "touched"] = "all"
    spread: float = Field(default=0.01, gt=0)
    precision: Literal["float32", "int8"] = "float32"

    @model_validator(mode="after")
    def _clips_no_counts(self) -> Self:
        if self.privacy.clip and self.average == "touched":
            raise ValueError(
                'average = "touched" sends counts, which privacy.clip would take for most of an '
                'update. Set average = "all"'
            )
        return self
