"""A first-order Markov chain: what came next after the same item, with popularity as back-off."""

from __future__ import annotations

import time

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext
from foretaste.recommenders.core.results import FitReport
from foretaste.recommenders.core.sparse import Sparse, sparse_arrays, sparse_from


class MarkovConfig(ModelConfig):
    """Of the Markov chain.

    Attributes:
        last: events of a history that speak, the newest ones.
        decay: weight of an event relative to the one after it.
        backoff: share of popularity in the score, so that every item has one.
    """

    last: int = Field(default=1, ge=1)
    decay: float = Field(default=0.5, gt=0, le=1)
    backoff: float = Field(default=0.01, ge=0, le=1)


class Markov(Recommender):
    """(1 - backoff) * the mean transition probability from the last events + backoff * popularity.

    The mean is weighted by ``decay ** age``; the newest event has age 0.
    """

    name = "markov"
    Config = MarkovConfig
    transitions: Sparse
    """Probability of the next item (column) after an item (row), float32 ``[items, items]``."""

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        begin = time.perf_counter()
        train, shape = split.train, (split.items, split.items)
        rows = train.rows
        pairs = np.flatnonzero(rows[1:] == rows[:-1])
        before, after = train.items[pairs], train.items[pairs + 1]
        counts: Sparse = csr_array((np.ones(len(pairs), np.float32), (before, after)), shape=shape)
        counts.sum_duplicates()
        left = np.bincount(before, minlength=split.items)  # how often an item was followed
        counts.data /= np.repeat(left, np.diff(counts.indptr))
        self.transitions = counts
        return FitReport(time.perf_counter() - begin, details={"transitions": counts.nnz})

    def _score(self, histories: Sequences) -> Tensor:
        config: MarkovConfig = self.config
        heard = histories.last(config.last)
        age = np.repeat(heard.offsets[1:], heard.lengths) - np.arange(heard.events) - 1
        weight = config.decay**age
        total = np.add.reduceat(weight, heard.offsets[:-1])  # no history is empty
        weight *= (1 - config.backoff) / np.repeat(total, heard.lengths)
        asked: Sparse = csr_array(
            (weight.astype(np.float32), heard.items, heard.offsets),
            shape=(len(heard), len(self.popularity)),
        )
        scores = (asked @ self.transitions).toarray()  # [B, N]
        scores += (config.backoff / self.popularity.sum() * self.popularity).astype(np.float32)
        return torch.from_numpy(scores)

    def _arrays(self) -> dict[str, np.ndarray]:
        return sparse_arrays(self.transitions)

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        items = len(self.popularity)
        self.transitions = sparse_from(arrays, (items, items))
