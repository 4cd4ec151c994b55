"""Vectors of codes: read by encoders, written by decoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CodeEmbedding(nn.Module):
    """A vector for every code of every level, shared by reading and writing.

    Codes of all levels lie in one numbering: code ``c`` of level ``l`` is ``firsts[l] + c``.

    Attributes:
        numbers: int64 ``[N, L]``, the codes of each item in the common numbering.
        sizes: codes of each level.
    """

    numbers: Tensor
    firsts: Tensor

    def __init__(self, table: np.ndarray, sizes: tuple[int, ...], dim: int) -> None:
        """``table`` int ``[N, L]`` holds the codes of the items."""
        super().__init__()
        self.sizes = sizes
        firsts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        numbers = torch.from_numpy(table.astype(np.int64)) + firsts
        self.register_buffer("firsts", firsts, persistent=False)
        self.register_buffer("numbers", numbers, persistent=False)
        self.vectors = nn.Embedding(sum(sizes), dim)

    @property
    def levels(self) -> int:
        """``L``."""
        return len(self.sizes)

    def of_items(self, items: Tensor) -> Tensor:
        """Vectors ``[..., L, D]`` of the codes of items int ``[...]``."""
        return self.vectors(self.numbers[items])

    def of_codes(self, level: int, codes: Tensor) -> Tensor:
        """Vectors ``[..., D]`` of codes int ``[...]`` of one level."""
        return self.vectors(codes + self.firsts[level])

    def book(self, level: int) -> Tensor:
        """Vectors ``[K, D]`` of all codes of a level."""
        first = int(self.firsts[level])
        return self.vectors.weight[first : first + self.sizes[level]]

    def codes_of(self, items: Tensor) -> Tensor:
        """Codes int64 ``[..., L]`` of items, each counted from 0 in its level."""
        return self.numbers[items] - self.firsts

    def logits(self, level: int, hidden: Tensor) -> Tensor:
        """Logits ``[..., K]`` of the codes of a level."""
        return hidden @ self.book(level).T

    def all_logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., L, K]`` of every level from ``hidden`` ``[..., L, D]``.

        ``K`` is the largest size; -inf where a level has fewer codes.
        """
        widest = max(self.sizes)
        parts = []
        for level, size in enumerate(self.sizes):
            found = self.logits(level, hidden[..., level, :])
            parts.append(F.pad(found, (0, widest - size), value=-torch.inf))
        return torch.stack(parts, -2)

    def of_catalog(self) -> Tensor:
        """The code vectors of every item side by side, ``[N, L D]``.

        Their products with ``hidden`` ``[L, D]`` side by side are sums of codes' logits.
        """
        return self.of_items(torch.arange(len(self.numbers), device=self.numbers.device)).flatten(1)

    def losses(
        self,
        hidden: Tensor,
        items: Tensor,
        smoothing: float = 0.0,
        among: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Cross-entropies ``[n, L]`` of the codes of items int64 ``[n]``.

        Args:
            hidden: ``[n, L, D]``, what writes each level's code.
            items: the right ones.
            smoothing: of the labels, within a level.
            among: for each level the pairs (row, code) that a probability may go to, int64 each;
                None for all.
        """
        right = self.codes_of(items)
        found = []
        for level in range(self.levels):
            logits = self.logits(level, hidden[:, level])
            if among is not None:
                logits = only(logits, *among[level])
            found.append(
                F.cross_entropy(
                    logits, right[:, level], reduction="none", label_smoothing=smoothing
                )
            )
        return torch.stack(found, 1)


def only(logits: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
    """Logits ``[n, K]`` with -inf but at the pairs (row, code)."""
    hidden = torch.full_like(logits, -torch.inf)
    hidden[rows, codes] = 0
    return logits + hidden
