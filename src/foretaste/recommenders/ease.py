"""EASE: a linear model over items with a closed-form solution (Steck, WWW 2019)."""

from __future__ import annotations

import time

import numpy as np
import torch
from pydantic import Field
from scipy.linalg import LinAlgError, cholesky, get_lapack_funcs
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.progress import Task
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext
from foretaste.recommenders.core.results import FitReport
from foretaste.recommenders.core.sparse import user_items
from foretaste.storage import checked

ROUNDED = 4 * float(np.finfo(np.float32).eps)
"""Share of an item's own count below which what the others leave of it is rounding."""
ROWS_AT_ONCE = 256
"""Rows of the item-item matrix that are made or mirrored at a time."""


class EASEConfig(ModelConfig):
    """Of EASE.

    Attributes:
        l2: added to the diagonal of the item-item matrix; the larger, the more cautious.
    """

    l2: float = Field(default=500.0, gt=0)


class EASE(Recommender):
    """Scores are ``history @ B``: B is the ridge regression of every item on all other items.

    With G the item-item counts and P = (G + l2 I)^-1, B_ij = -P_ij / P_jj off the diagonal and 0
    on it (section 3.1). One float32 matrix is held: factored, inverted and turned into B in place.
    """

    name = "ease"
    Config = EASEConfig
    weights: np.ndarray
    """B, float32 ``[items, items]``."""

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        begin = time.perf_counter()
        _check_memory(split.items)
        with run.progress.task("solving", 4) as task:
            self.weights = self._solve(split.train, split.items, task)
        return FitReport(time.perf_counter() - begin)

    def _solve(self, train: Sequences, items: int, task: Task) -> np.ndarray:
        gram = _gram(train, items)
        gram[np.diag_indices(items)] += np.float32(self.config.l2)
        diagonal = gram.diagonal().copy()
        task.advance(1, "item-item counts")
        try:
            # LAPACK works by columns; a symmetric matrix reads the same, so nothing is copied.
            factor = cholesky(gram.T, lower=True, overwrite_a=True, check_finite=False)
            # What rounding leaves of an item that others explain is positive on some machines.
            if (factor.diagonal() ** 2 < ROUNDED * diagonal).any():
                raise LinAlgError("no digit of a pivot is left")
        except LinAlgError as error:
            raise InputError(
                f"ease: with l2 = {self.config.l2:g} the item-item matrix cannot be inverted in "
                "float32. Raise model.l2."
            ) from error
        task.advance(1, "factored")
        (potri,) = get_lapack_funcs(("potri",), (factor,))
        inverse, _ = potri(factor, lower=1, overwrite_c=1)
        task.advance(1, "inverted")
        weights = inverse.T  # by rows again; the upper triangle is valid
        for first in range(0, items, ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            corner = weights[rows, rows]
            corner[:] = np.triu(corner) + np.triu(corner, 1).T
            weights[first + ROWS_AT_ONCE :, rows] = weights[rows, first + ROWS_AT_ONCE :].T
        weights /= -weights.diagonal()  # column j by P_jj
        weights[np.diag_indices(items)] = 0
        task.advance(1, "done")
        return weights

    def _score(self, histories: Sequences) -> Tensor:
        asked = user_items(histories, len(self.popularity))
        return torch.from_numpy(asked @ self.weights)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        items = len(self.popularity)
        self.weights = checked(arrays, "weights", (items, items), np.float32)


def _gram(train: Sequences, items: int) -> np.ndarray:
    """How many users chose both items, float32 ``[items, items]``, by blocks of rows."""
    chosen = user_items(train, items)
    by_item = chosen.T.tocsr()
    gram = np.empty((items, items), np.float32)
    for first in range(0, items, ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        gram[rows] = (by_item[rows] @ chosen).toarray()
    return gram


def _check_memory(items: int) -> None:
    import psutil

    needed, free = 4 * items**2, psutil.virtual_memory().available
    if needed * 1.2 > free:  # the rest of the work needs a few per cent
        raise InputError(
            f"ease: {items:,} items need a matrix of {needed / 1e9:,.1f} GB, and "
            f"{free / 1e9:,.1f} GB of memory are free. Raise split.min_item_count, or choose "
            "itemknn or als, whose memory grows with the log."
        )
