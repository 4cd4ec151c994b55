"""Residual k-means: every level clusters what the levels before it left over."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.codes.books import ResidualBooks
from foretaste.codes.kmeans import kmeans, nearest
from foretaste.codes.tokenizer import FitContext, Tokenizer, TokenizerConfig


class RQKMeansConfig(TokenizerConfig):
    """Residual k-means.

    Attributes:
        iterations: of Lloyd's algorithm at each level, at most.
    """

    kind: Literal["rqkmeans"] = "rqkmeans"
    iterations: int = Field(default=25, ge=1)


class RQKMeans(Tokenizer):
    """Residual k-means (residual vector quantisation, Chen et al. 2010); no network is trained."""

    name: ClassVar[str] = "rqkmeans"
    Config: ClassVar[type[TokenizerConfig]] = RQKMeansConfig

    def _fit(self, points: Tensor, context: FitContext) -> None:
        generator = torch.Generator().manual_seed(context.seed)
        books = []
        with context.progress.task("levels", self.config.levels) as task:
            for _ in range(self.config.levels):
                size, iterations = self.config.size, self.config.iterations
                books.append(kmeans(points, size, generator, iterations=iterations))
                points -= books[-1][nearest(points, books[-1])[0]]
                task.advance(note=f"left over {float(points.square().sum(1).mean()):.4f}")
        self.books = ResidualBooks(books)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        del arrays
        device = self.context.torch_device
        self.books = ResidualBooks(
            [torch.from_numpy(book).to(device) for book in self._fitted().codebooks]
        )
