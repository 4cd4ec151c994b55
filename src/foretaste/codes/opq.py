"""Parallel codes: a rotation, then k-means in each part of the vector; the slots have no order."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.codes.books import ProductBooks
from foretaste.codes.kmeans import centres_of, kmeans, nearest
from foretaste.codes.tokenizer import FitContext, Tokenizer, TokenizerConfig
from foretaste.errors import InputError

ROTATION_ITEMS = 32_768
"""Items that a rotation is learnt from; with more it hardly changes, and takes longer."""


class OPQConfig(TokenizerConfig):
    """Product quantisation.

    Attributes:
        levels: slots.
        rounds: of improving codebooks and rotation in turn; 0 cuts the vectors as they are (PQ).
        iterations: of Lloyd's algorithm for the first and the last codebooks, at most.
    """

    kind: Literal["opq"] = "opq"
    levels: int = Field(default=4, ge=1, le=64)
    rounds: int = Field(default=60, ge=0)
    iterations: int = Field(default=25, ge=1)


class OPQ(Tokenizer):
    """Optimised product quantisation (Ge et al., TPAMI 2014), the parallel codebook of MDGR.

    Rotation and codebooks are improved in turn (the non-parametric way, section 3.2), one step of
    Lloyd's algorithm at a time. The vectors as they are make a better beginning than principal
    directions dealt evenly to the slots (section 3.1): text vectors are clusters, not a Gaussian.
    Faiss's OPQ comes no nearer to the vectors (``benchmarks/codebooks.py``), so it is not used.
    When the width is no multiple of the slots, one direction or a few are left out.
    """

    name: ClassVar[str] = "opq"
    Config: ClassVar[type[TokenizerConfig]] = OPQConfig
    mean: Tensor
    rotation: Tensor

    def _fit(self, points: Tensor, context: FitContext) -> None:
        slots, dim = self.config.levels, points.shape[1]
        if dim < slots:
            raise InputError(
                f"opq: vectors of {dim} numbers cannot be cut into {slots} slots. Lower levels."
            )
        generator = torch.Generator().manual_seed(context.seed)
        self.mean = points.mean(0)
        points = points - self.mean
        self.rotation = torch.eye(dim, dim // slots * slots, device=points.device)
        few = points[torch.randperm(len(points), generator=generator)[:ROTATION_ITEMS]]
        books = None
        with context.progress.task("rounds", self.config.rounds) as task:
            if self.config.rounds:
                books = self._books(few, None, generator)
            for _ in range(self.config.rounds):
                assert books is not None
                error = self._improve(few, books)
                task.advance(note=f"error {error:.4f}")
        self.books = ProductBooks(self._books(points, books, generator))

    def _parts(self, points: Tensor) -> list[Tensor]:
        """What each slot codes of these centred vectors, ``[n, W / slots]``."""
        rotated = points @ self.rotation
        width = rotated.shape[1] // self.config.levels
        return [part.contiguous() for part in rotated.split(width, 1)]

    def _books(
        self, points: Tensor, begun: list[Tensor] | None, generator: torch.Generator
    ) -> list[Tensor]:
        """A codebook for each slot."""
        start = begun or [None] * self.config.levels
        size, iterations = self.config.size, self.config.iterations
        return [
            kmeans(part, size, generator, iterations=iterations, start=book)
            for part, book in zip(self._parts(points), start, strict=True)
        ]

    def _improve(self, points: Tensor, books: list[Tensor]) -> float:
        """One step for the codebooks (in place), one for the rotation; the error between them."""
        parts, seen = self._parts(points), []
        for slot, part in enumerate(parts):
            codes, costs = nearest(part, books[slot])
            books[slot] = centres_of(part, codes, costs, books[slot])
            seen.append(books[slot][codes])
        coded = torch.cat(seen, 1)
        # The rotation that brings the vectors nearest to their codes (orthogonal Procrustes).
        left, _, right = torch.linalg.svd(points.T @ coded, full_matrices=False)
        self.rotation = left @ right
        return float((torch.cat(parts, 1) - coded).square().sum(1).mean())

    def _latent(self, points: Tensor) -> Tensor:
        return (points - self.mean) @ self.rotation

    def _restored(self, latent: Tensor) -> Tensor:
        return latent @ self.rotation.T + self.mean

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean.cpu().numpy(), "rotation": self.rotation.cpu().numpy()}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        device = self.context.torch_device
        self.mean = torch.from_numpy(arrays["mean"]).to(device)
        self.rotation = torch.from_numpy(arrays["rotation"]).to(device)
        self.books = ProductBooks(
            [torch.from_numpy(book).to(device) for book in self._fitted().codebooks]
        )
