"""Popularity: the most chosen items, of all of train or of its last days. The floor of any figure.

Recent popularity is the stronger of the two under a split in time (Ji et al., "A Re-visit of the
Popularity Baseline in Recommender Systems", SIGIR 2020).
"""

from __future__ import annotations

import time

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext
from foretaste.recommenders.core.results import FitReport
from foretaste.storage import checked

DAY = 86_400_000
"""Milliseconds."""

CLOCK_FROM = 365 * DAY
"""Times below this (1971) are positions in a history: no log is that old, or a row that long."""


class PopularityConfig(ModelConfig):
    """Of popularity.

    Attributes:
        window_days: count only the last days of train; None counts all of it.
    """

    window_days: float | None = Field(None, gt=0)


class Popularity(Recommender):
    """The same order of items for everyone: how often each was chosen."""

    name = "popularity"
    Config = PopularityConfig
    counts: np.ndarray

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        begin = time.perf_counter()
        items = split.train.items
        if self.config.window_days is not None:
            items = items[self._inside(split.train)]
        self.counts = np.bincount(items, minlength=split.items)
        return FitReport(time.perf_counter() - begin)

    def _inside(self, train: Sequences) -> np.ndarray:
        """The events of the window, bool ``[events]``; the last event of train is its end."""
        times = train.times
        if times is None or times.max() < CLOCK_FROM:
            raise InputError(
                f"popularity: window_days = {self.config.window_days:g} needs times, and this log "
                "has only an order. Leave window_days out, or name the column with --time-col."
            )
        return times > times.max() - self.config.window_days * DAY

    def _score(self, histories: Sequences) -> Tensor:
        return torch.from_numpy(self.counts).float().repeat(len(histories), 1)

    def _cold(self) -> np.ndarray:
        return self.counts

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"counts": self.counts}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.counts = checked(arrays, "counts", self.popularity.shape, np.int64)
