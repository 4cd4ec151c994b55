"""Item kNN: items chosen by the same users, by cosine (Sarwar et al., WWW 2001)."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array, vstack
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext
from foretaste.recommenders.core.results import FitReport
from foretaste.recommenders.core.sparse import Sparse, sparse_arrays, sparse_from, user_items

PAIRS_AT_ONCE = 250_000
"""Pairs of items compared at a time, about (3 MB): they stay in cache while they are sorted."""


class ItemKNNConfig(ModelConfig):
    """Of item kNN.

    Attributes:
        neighbours: items kept for each item, the most similar ones.
        shrink: added to the product of the norms, so that a few common users prove little.
    """

    neighbours: int = Field(default=100, ge=1)
    shrink: float = Field(default=10.0, ge=0)


class ItemKNN(Recommender):
    """The score of an item is its summed similarity to the items of the history.

    Similarity is ``common(i, j) / (sqrt(n_i n_j) + shrink)`` on the binary user-item matrix. An
    item of the history speaks for its own nearest ``neighbours`` only.
    """

    name = "itemknn"
    Config = ItemKNNConfig
    similarity: Sparse
    """Row i: the nearest items of item i, float32 ``[items, items]``; the diagonal is empty."""

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        begin = time.perf_counter()
        chosen = user_items(split.train, split.items)
        by_item = chosen.T.tocsr()
        norms = np.sqrt(np.diff(by_item.indptr)).astype(np.float32)
        # Most pairs have no user in common; an item has no more than its users' lists are long.
        pairs = np.minimum(by_item @ np.diff(chosen.indptr), split.items)
        full = np.flatnonzero(np.diff(np.cumsum(pairs, dtype=np.int64) // PAIRS_AT_ONCE)) + 1
        parts = []
        with run.progress.task("comparing items", split.items) as task:
            for first, last in pairwise([0, *full.tolist(), split.items]):
                common: Sparse = csr_array(by_item[first:last] @ chosen)  # [block, N]
                rows = first + np.repeat(np.arange(common.shape[0]), np.diff(common.indptr))
                scale = norms[rows] * norms[common.indices] + np.float32(self.config.shrink)
                common.data = np.where(rows == common.indices, 0, common.data / scale)
                parts.append(nearest(common, self.config.neighbours))
                task.advance(common.shape[0])
        self.similarity = csr_array(vstack(parts, format="csr"))
        return FitReport(time.perf_counter() - begin, details={"pairs": self.similarity.nnz})

    def _score(self, histories: Sequences) -> Tensor:
        asked = user_items(histories, len(self.popularity))
        return torch.from_numpy((asked @ self.similarity).toarray())

    def _arrays(self) -> dict[str, np.ndarray]:
        return sparse_arrays(self.similarity)

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        items = len(self.popularity)
        self.similarity = sparse_from(arrays, (items, items))


def nearest(matrix: Sparse, count: int) -> Sparse:
    """The ``count`` largest positive values of every row; of equal ones, those of lower columns."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = np.sort(order[(place < count) & (matrix.data[order] > 0)])  # rows lie together still
    offsets = np.searchsorted(rows[kept], np.arange(matrix.shape[0] + 1))
    return csr_array((matrix.data[kept], matrix.indices[kept], offsets), shape=matrix.shape)
