"""Updates of many users at once: what they are before they are added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foretaste.federated.core.boundary import Arrays


class Rows(NamedTuple):
    """Changes of some rows of a table, of ``C`` users; all other rows are unchanged.

    Attributes:
        index: int64 ``[C, U]``, -1 where a user has fewer rows; no row twice.
        values: float32 ``[C, U, D]``, zero where ``index`` is -1.
        rows: of the whole table.
    """

    index: Tensor
    values: Tensor
    rows: int


@dataclass(frozen=True)
class Updates:
    """What ``C`` users would send, each for itself. They never leave a node of many.

    Attributes:
        weights: float32 ``[C]``, a user's votes.
        parts: by the name of the array that goes up: ``[C, *shape]``, or ``Rows`` of it.
    """

    weights: Tensor
    parts: Mapping[str, Tensor | Rows]

    def __len__(self) -> int:
        return len(self.weights)

    def norms(self) -> Tensor:
        """Of every user's whole update, float32 ``[C]``."""
        squares = torch.zeros(len(self))
        for part in self.parts.values():
            values = part.values if isinstance(part, Rows) else part
            squares += values.flatten(1).square().sum(1)
        return squares.sqrt()

    @property
    def finite(self) -> Tensor:
        """Which updates hold finite numbers only, bool ``[C]``."""
        return self.norms().isfinite()

    def scaled(self, factors: Tensor) -> Updates:
        """Every update times its factor ``[C]``."""

        def times(values: Tensor) -> Tensor:
            return values * factors.view(-1, *[1] * (values.ndim - 1))

        return replace(
            self,
            parts={
                name: part._replace(values=times(part.values))
                if isinstance(part, Rows)
                else times(part)
                for name, part in self.parts.items()
            },
        )

    def whole(self) -> Updates:
        """The same with ``Rows`` written out, ``[C, rows, D]``: for noise, which is everywhere."""
        return replace(
            self,
            parts={
                name: _written_out(part) if isinstance(part, Rows) else part
                for name, part in self.parts.items()
            },
        )

    def pick(self, index: Tensor) -> Updates:
        """Of these users only."""
        return Updates(
            self.weights[index],
            {
                name: Rows(part.index[index], part.values[index], part.rows)
                if isinstance(part, Rows)
                else part[index]
                for name, part in self.parts.items()
            },
        )

    def add_to(self, sums: Arrays) -> None:
        """Add every update, times its weight, to ``sums`` in place."""
        for name, part in self.parts.items():
            total = torch.from_numpy(sums[name])
            if isinstance(part, Rows):
                real = part.index >= 0
                weighted = part.values * self.weights[:, None, None]
                total.index_add_(0, part.index[real], weighted[real])
            else:
                total += torch.tensordot(self.weights, part, 1)


def zeros(shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Sums before anything was added."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def _written_out(part: Rows) -> Tensor:
    users, _, dim = part.values.shape
    table = torch.zeros(users, part.rows + 1, dim)  # the last row takes what is no row
    index = torch.where(part.index >= 0, part.index, part.rows)
    table.scatter_add_(1, index.unsqueeze(-1).expand(-1, -1, dim), part.values)
    return table[:, :-1]
