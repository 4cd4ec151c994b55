"""Codebooks: vectors to codes and back, one level after the other or all slots at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from foretaste.codes.kmeans import nearest, rows_at_once, squared_distances


class Ways(NamedTuple):
    """The best codes of each point, cheapest first; ``W`` of them.

    Attributes:
        codes: int64 ``[n, W, L]``.
        costs: ``[n, W]``, squared distance between the point and what the codes stand for.
    """

    codes: Tensor
    costs: Tensor


class Books(Protocol):
    """Codebooks of all levels."""

    ordered: bool
    """Whether a level refines those before it; otherwise the slots stand side by side."""

    @property
    def books(self) -> Sequence[Tensor]:
        """``[K, D]`` of each level."""
        ...

    def encode(self, points: Tensor) -> Ways:
        """The nearest codes of points ``[n, D]``: ``W`` is 1."""
        ...

    def ways(self, points: Tensor, width: int) -> Ways:
        """At most ``width`` codes of each point, all different."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """The points ``[n, D]`` that codes int64 ``[n, L]`` stand for."""
        ...


class ResidualBooks:
    """Every level codes what those before it left over; codes stand for the sum of their vectors.

    ``factors`` multiply squared distances to the codes of a level when the nearest is sought
    (load balancing, S2GR); costs are plain distances all the same.
    """

    ordered = True

    def __init__(self, books: Sequence[Tensor], factors: Sequence[Tensor] | None = None) -> None:
        """``books``: ``[K_l, D]`` of each level; ``factors``: ``[K_l]`` of each level."""
        self.books = list(books)
        self.factors = list(factors) if factors else [None] * len(self.books)

    def encode(self, points: Tensor) -> Ways:
        """The nearest code of each level in turn."""
        rest, codes = points.clone(), []
        for book, factors in zip(self.books, self.factors, strict=True):
            codes.append(nearest(rest, book, factors)[0])
            rest -= book[codes[-1]]
        return Ways(torch.stack(codes, 1)[:, None], rest.square().sum(1, keepdim=True))

    def ways(self, points: Tensor, width: int) -> Ways:
        """The codes that a beam of ``width`` finds over the levels (not always the very best)."""
        parts = []
        step = rows_at_once(width * max(len(book) for book in self.books), points.device)
        for first in range(0, len(points), step):
            parts.append(self._ways(points[first : first + step], width))
        return Ways(torch.cat([p.codes for p in parts]), torch.cat([p.costs for p in parts]))

    def _ways(self, points: Tensor, width: int) -> Ways:
        rest = points[:, None]  # [n, W, D], what each beam has left over
        codes = torch.zeros(len(points), 1, 0, dtype=torch.int64, device=points.device)
        costs = rest.square().sum(2)
        for book in self.books:
            distances = squared_distances(rest.flatten(0, 1), book).view(len(points), -1)
            costs, chosen = _lowest(distances, width)  # [n, W]
            beam, code = chosen // len(book), chosen % len(book)
            before = codes.gather(1, beam[..., None].expand(-1, -1, codes.shape[2]))
            codes = torch.cat([before, code[..., None]], 2)
            rest = rest.gather(1, beam[..., None].expand(-1, -1, rest.shape[2])) - book[code]
        return Ways(codes, costs)

    def decode(self, codes: Tensor) -> Tensor:
        """The sum of the vectors of all levels."""
        found = self.books[0][codes[:, 0]]
        for level in range(1, len(self.books)):
            found = found + self.books[level][codes[:, level]]
        return found


class ProductBooks:
    """Every slot codes a part of its own of the vector; codes stand for the parts joined."""

    ordered = False

    def __init__(self, books: Sequence[Tensor]) -> None:
        """``books``: ``[K_l, D_l]`` of each slot; points have the sum of ``D_l`` numbers."""
        self.books = list(books)
        self._widths = [book.shape[1] for book in self.books]

    def encode(self, points: Tensor) -> Ways:
        """The nearest code of each slot."""
        found = [
            nearest(part, book)
            for part, book in zip(points.split(self._widths, 1), self.books, strict=True)
        ]
        costs = torch.stack([cost for _, cost in found], 1).sum(1, keepdim=True)
        return Ways(torch.stack([code for code, _ in found], 1)[:, None], costs)

    def ways(self, points: Tensor, width: int) -> Ways:
        """The ``width`` best codes, exactly: costs of slots add up."""
        parts = []
        step = rows_at_once(width * max(len(book) for book in self.books), points.device)
        for first in range(0, len(points), step):
            parts.append(self._ways(points[first : first + step], width))
        return Ways(torch.cat([p.codes for p in parts]), torch.cat([p.costs for p in parts]))

    def _ways(self, points: Tensor, width: int) -> Ways:
        codes = torch.zeros(len(points), 1, 0, dtype=torch.int64, device=points.device)
        costs = points.new_zeros(len(points), 1)
        for part, book in zip(points.split(self._widths, 1), self.books, strict=True):
            sums = costs[:, :, None] + squared_distances(part, book)[:, None]  # [n, W, K]
            # What is among the best in the end is among the best on the way: costs only add up.
            costs, chosen = _lowest(sums.flatten(1), width)
            beam, code = chosen // len(book), chosen % len(book)
            before = codes.gather(1, beam[..., None].expand(-1, -1, codes.shape[2]))
            codes = torch.cat([before, code[..., None]], 2)
        return Ways(codes, costs)

    def decode(self, codes: Tensor) -> Tensor:
        """The vectors of all slots, joined."""
        return torch.cat([book[codes[:, slot]] for slot, book in enumerate(self.books)], 1)


def _lowest(costs: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The lowest ``width`` of each row, ascending; of equal ones any."""
    return costs.topk(min(width, costs.shape[1]), dim=1, largest=False)
