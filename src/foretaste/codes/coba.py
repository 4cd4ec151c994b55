"""CoBa RQ-VAE (S2GR): codes that know what is chosen together, and that are all put to use."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.codes.books import ResidualBooks
from foretaste.codes.cooccurrence import cooccurrence, smoothed
from foretaste.codes.kmeans import nearest
from foretaste.codes.rqvae import RQVAE, Coded, RQVAEConfig
from foretaste.codes.tokenizer import TokenizerConfig
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

USE_DECAY = 0.95
"""How much of the counted use of codes stays from one step to the next."""
SETTLING = 20
"""Passes over the items that settle the balance after training."""


class CoBaConfig(RQVAEConfig):
    """S2GR, section on CoBa RQ-VAE. The paper's notes leave the constants open: they are ours.

    Attributes:
        window: items at most so many events apart were chosen together.
        alpha: share of its own vector that an item keeps at each hop of smoothing.
        hops: how far smoothing reaches.
        uniformity: weight of pushing apart code vectors that are too near each other.
        margin: too near is less than this share of the codebook's mean distance.
        balance: how strongly the distance to a code grows with its use; 0 for not at all.
        balance_limit: by which share at most a distance is changed.
    """

    kind: Literal["coba"] = "coba"
    window: int = Field(default=5, ge=1)
    alpha: float = Field(default=0.5, gt=0, le=1)
    hops: int = Field(default=2, ge=0)
    uniformity: float = Field(default=0.1, ge=0)
    margin: float = Field(default=0.5, ge=0, le=1)
    balance: float = Field(default=0.3, ge=0)
    balance_limit: float = Field(default=0.3, ge=0, lt=1)


class CoBa(RQVAE):
    """RQ-VAE on co-occurrence-smoothed vectors, with uniformity and load balancing.

    A code is sought by its distance times ``1 + clip(balance * (use / mean use - 1))``. In training
    the use is a running mean; afterwards it is settled over the items, level by level, and the
    factors stay as they are for new items. New items have no co-occurrences: their own vectors are
    coded.
    """

    name: ClassVar[str] = "coba"
    reads_histories: ClassVar[bool] = True
    Config: ClassVar[type[TokenizerConfig]] = CoBaConfig
    use: Tensor

    def _targets(self, vectors: np.ndarray, sequences: Sequences | None) -> np.ndarray:
        config: CoBaConfig = self.config
        if sequences is None or not sequences.events:
            raise InputError(
                "coba: needs training histories to know what is chosen together. Give sequences "
                "(--data), or take rqvae."
            )
        if sequences.items.max() >= len(vectors):
            raise InputError(
                f"coba: histories hold item {sequences.items.max()}, vectors are of "
                f"{len(vectors):,} items. Number both by one catalog."
            )
        graph = cooccurrence(sequences, len(vectors), config.window)
        return smoothed(vectors, graph, config.alpha, config.hops)

    def _begin_books(self, points: Tensor, generator: torch.Generator) -> None:
        super()._begin_books(points, generator)
        size = (self.config.levels, self.config.size)
        self.use = torch.full(size, 1 / self.config.size, device=points.device)

    def _chosen(self, rest: Tensor, level: int) -> Tensor:
        book = self.network.books[level].detach()
        return nearest(rest, book, self._factors(level))[0]

    def _through(self, latent: Tensor) -> Coded:
        found = super()._through(latent)
        for level, codes in enumerate(found.codes):
            self.use[level].lerp_(self._share(codes), 1 - USE_DECAY)
        apart = sum(self._crowding(book) for book in self.network.books)
        return found._replace(loss=found.loss + self.config.uniformity * apart)

    def _share(self, codes: Tensor) -> Tensor:
        """The share of these items that each code has, ``[K]``."""
        return torch.bincount(codes, minlength=self.config.size) / len(codes)

    def _factors(self, level: int) -> Tensor:
        """What squared distances to the codes of a level are multiplied by, ``[K]``."""
        limit = self.config.balance_limit
        above = self.use[level] * self.config.size - 1
        return 1 + (self.config.balance * above).clamp(-limit, limit)

    def _crowding(self, book: Tensor) -> Tensor:
        """How far code vectors fall short of the margin between them: mean square, relative."""
        lengths = book.square().sum(1)
        squared = lengths[:, None] + lengths - 2 * (book @ book.T)  # [K, K]
        itself = torch.eye(len(book), device=book.device)
        # A root has no slope at 0; the diagonal, which is set far apart, does not count.
        distances = squared.clamp_min(1e-12).sqrt() + 1e6 * itself
        mean = (distances * (1 - itself)).sum() / (len(book) * (len(book) - 1))
        threshold = (self.config.margin * mean.detach()).clamp_min(1e-6)
        return (1 - distances / threshold).relu().square().mean()

    def _finish(self, points: Tensor) -> None:
        super()._finish(points)
        with torch.no_grad():
            rest = self.network.encode(points)
            for level, book in enumerate(self.books.books):
                for number in range(SETTLING):
                    share = self._share(nearest(rest, book, self._factors(level))[0])
                    self.use[level].lerp_(share, 1 / (1 + number / 2))
                rest = rest - book[nearest(rest, book, self._factors(level))[0]]
        self._balance_books()

    def _balance_books(self) -> None:
        levels = range(self.config.levels)
        self.books = ResidualBooks(self.books.books, [self._factors(level) for level in levels])

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {"use": self.use.cpu().numpy()}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        super()._set_arrays(arrays)
        self.use = torch.from_numpy(arrays["use"]).to(self.context.torch_device)
        self._balance_books()
