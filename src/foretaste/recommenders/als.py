"""ALS: implicit-feedback matrix factorisation (Hu, Koren and Volinsky, ICDM 2008).

Learnt by the ``implicit`` package; answering needs only the item factors and our own code.
"""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.data.batches import query_batches
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError, MissingExtraError
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext
from foretaste.recommenders.core.results import FitReport
from foretaste.recommenders.core.sparse import user_items
from foretaste.storage import checked

NUMBERS_AT_ONCE = 8_000_000
"""Numbers in the normal equations that are solved together (32 MB)."""


class ALSConfig(ModelConfig):
    """Of ALS.

    Attributes:
        factors: width of user and item vectors.
        regularization: of both, per vector.
        alpha: confidence of a chosen item; that of any other is 1.
        iterations: passes over users, then items.
    """

    factors: int = Field(default=64, ge=1)
    regularization: float = Field(default=0.1, gt=0)
    alpha: float = Field(default=10.0, gt=0)
    iterations: int = Field(default=15, ge=1)


class ALS(Recommender):
    """Vectors whose products are near 1 where a user chose an item, and near 0 elsewhere.

    A user's vector is solved from the history at the time of asking, so users who were never
    seen, or who have moved on, get what a refit with frozen items would give them.
    """

    name = "als"
    Config = ALSConfig
    factors: Tensor
    """Item vectors, float32 ``[items, factors]``."""

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        try:
            from implicit.cpu.als import AlternatingLeastSquares
            from implicit.recommender_base import ModelFitError
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise MissingExtraError("implicit", "als") from error
        from scipy.sparse import csr_matrix

        begin = time.perf_counter()
        config: ALSConfig = self.config
        chosen = csr_matrix(user_items(split.train, split.items))
        # implicit has threads of its own and warns of those of BLAS, with which they would compete.
        with (
            threadpool_limits(1, "blas"),
            suppress(ModelFitError),  # factors that are no numbers are told below
            run.progress.task("alternating", config.iterations) as task,
        ):
            learner = AlternatingLeastSquares(
                config.factors,
                config.regularization,
                config.alpha,
                iterations=config.iterations,
                num_threads=run.threads,
                random_state=run.seed,
            )
            learner.fit(chosen, show_progress=False, callback=lambda *_: task.advance())
        learnt = np.asarray(learner.item_factors)
        if not np.isfinite(learnt).all():
            raise InputError(
                f"als: the factors are no numbers with model.alpha = {config.alpha:g} and "
                f"model.regularization = {config.regularization:g}. Move them towards 10 and 0.1."
            )
        self.factors = torch.from_numpy(learnt)
        return FitReport(time.perf_counter() - begin)

    def _score(self, histories: Sequences) -> Tensor:
        return self.fold_in(histories) @ self.factors.T

    def fold_in(self, histories: Sequences) -> Tensor:
        """User vectors float32 ``[B, factors]`` that fit these histories best.

        Each solves (Y'Y + (alpha - 1) Y_u'Y_u + regularization I) x = alpha Y_u'1, where Y_u holds
        the vectors of the user's items (equation 4 of the paper), many users at a time.
        """
        config: ALSConfig = self.config
        matrix = user_items(histories, len(self.factors))
        distinct = Sequences(matrix.indices, matrix.indptr)
        width = self.factors.shape[1]
        shared = self.factors.T @ self.factors + config.regularization * torch.eye(width)
        vectors = torch.zeros(len(histories), width)
        longest = int(distinct.lengths.max(initial=0))
        for batch in query_batches(distinct, longest, max(1, NUMBERS_AT_ONCE // width**2)):
            real = torch.arange(batch.items.shape[1]) < torch.from_numpy(batch.lengths)[:, None]
            own = self.factors[torch.from_numpy(batch.items)] * real[..., None]  # [B, L, F]
            normal = torch.baddbmm(shared, own.mT, own, alpha=config.alpha - 1)  # [B, F, F]
            right = config.alpha * own.sum(1)  # [B, F]
            solved = torch.linalg.solve(normal, right)
            vectors[torch.from_numpy(batch.rows)] = solved
        return vectors

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"factors": self.factors.numpy()}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        shape = (len(self.popularity), self.config.factors)
        self.factors = torch.from_numpy(checked(arrays, "factors", shape, np.float32))
