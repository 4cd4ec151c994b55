"""What recommenders return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from foretaste.data.catalog import Catalog


class RecommendedItem(NamedTuple):
    """One line of a list."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class Recommendations:
    """One list of items for each query, best first.

    Attributes:
        items: int32 ``[queries, k]``, item numbers of ``catalog``; -1 where a list is shorter.
        scores: float32 ``[queries, k]``, comparable within a list only; -inf where ``items`` is -1.
        unknown: int64 ``[queries]``, how many ids of the history are not in the catalog.
        catalog: the model's catalog.
    """

    items: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray
    catalog: Catalog

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, query: int) -> list[RecommendedItem]:
        """The list of one query, with ids and titles."""
        pairs = zip(self.items[query].tolist(), self.scores[query].tolist(), strict=True)
        return [
            RecommendedItem(self.catalog.item_ids[item], self.catalog.titles[item], score)
            for item, score in pairs
            if item >= 0
        ]

    @property
    def item_ids(self) -> list[list[str]]:
        """Item ids of every list."""
        return [[line.item_id for line in self[query]] for query in range(len(self))]


class Epoch(NamedTuple):
    """What one pass over the training data came to."""

    epoch: int
    loss: float
    targets: int
    seconds: float
    valid: float | None


@dataclass(frozen=True)
class FitReport:
    """What learning came to.

    Attributes:
        seconds: wall time of ``fit``.
        epochs: the learning curve; empty for a model without gradient training.
        best_epoch: the epoch whose weights were kept; None without validation.
        stopped: why training ended.
        details: what else a model wants to tell.
        notes: what a reader should know, a sentence each.
    """

    seconds: float
    epochs: tuple[Epoch, ...] = ()
    best_epoch: int | None = None
    stopped: str = "done"
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
