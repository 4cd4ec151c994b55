"""SIM: search-based interest model (Pi et al., CIKM 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.errors import InputError
from foretaste.nn.key_values import from_bytes, to_bytes
from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.ranker_config import RankerConfig
from foretaste.recommenders.core.ranker_network import (
    HIDDEN,
    History,
    Memory,
    RankerNetwork,
)


class SIMConfig(RankerConfig):
    """Of SIM.

    Attributes:
        search: ``soft`` finds the events whose keys fit the candidate's query best, ``hard`` the
            last ones of the candidate's category (the first that the catalog names of an item).
        found: how many events the search gives to the attention.
    """

    search: Literal["soft", "hard"] = "soft"
    found: int = Field(default=50, ge=1)


@dataclass(frozen=True)
class WithCategories(Memory):
    """A memory that knows the categories of its events as well, int64 ``[B, n]``, 0 for none."""

    categories: Tensor


class SIMNetwork(RankerNetwork):
    """A search for the events that matter to the candidate, then attention to those alone.

    The soft search of the paper learns its own vectors by a loss of its own; here the attention's
    keys are searched, all heads together, so that one cache serves both stages. The numbers of the
    categories are kept beside the keys and values when the search is hard.
    """

    categories: Tensor

    def __init__(
        self, items: int, levels: int, config: SIMConfig, categories: np.ndarray | None
    ) -> None:
        """``categories`` int ``[items + 1]``, 0 for none, are needed for a hard search."""
        super().__init__(items, levels, config)
        self.found, self.hard = config.found, categories is not None
        if categories is not None:
            known = torch.from_numpy(categories).long()
            self.register_buffer("categories", known, persistent=False)
            # Two bytes, unless the keys that follow must lie at multiples of four.
            self.category_bytes = max(2, self.key_values.alignment)
            self.record_bytes += self.category_bytes

    def weigh(self, memory: Memory, query: Tensor, ends: Tensor, number: Tensor) -> Tensor:
        """See ``RankerNetwork``."""
        scores = self.attend(memory, query, ends)  # [B, H, C, n]
        if self.hard:
            assert isinstance(memory, WithCategories)
            wanted = self.categories[number][..., None]  # [B or 1, C, 1]
            back, seen = self.distances(ends, memory.events)
            allowed = seen & (memory.categories[:, None] == wanted) & (wanted > 0)  # [B, C, n]
            fitness = -back.float()
        else:
            fitness = scores.sum(1)  # [B, C, n]
            allowed = fitness > HIDDEN / 2
        chosen = self.search(fitness.masked_fill(~allowed, -torch.inf)) & allowed
        weights = torch.softmax(scores.masked_fill(~chosen[:, None], HIDDEN), -1)
        return weights * chosen[:, None]

    def search(self, fitness: Tensor) -> Tensor:
        """The ``found`` best events of each candidate, bool ``[B, C, n]``."""
        if self.found >= fitness.shape[-1]:
            return torch.ones_like(fitness, dtype=torch.bool)
        best = fitness.topk(self.found, -1, sorted=False).indices
        return torch.zeros_like(fitness, dtype=torch.bool).scatter_(-1, best, True)

    def remember(self, history: History) -> Memory:
        """See ``RankerNetwork``."""
        memory = super().remember(history)
        if not self.hard:
            return memory
        return WithCategories(memory.key, memory.value, self.categories[history.items])

    def pack(self, history: History) -> Tensor:
        """See ``RankerNetwork``; for a hard search the number of the category comes last."""
        records = super().pack(history)
        if not self.hard:
            return records
        return torch.cat(
            [records, to_bytes(self.categories[history.items], self.category_bytes)], -1
        )

    def recall(self, records: Tensor) -> Memory:
        """See ``RankerNetwork``."""
        if not self.hard:
            return super().recall(records)
        memory = super().recall(records[..., : -self.category_bytes])
        categories = from_bytes(records[..., -self.category_bytes :])
        return WithCategories(memory.key, memory.value, categories)


class SIM(Ranker):
    """Searches the history for the candidate, then attends to what it found."""

    name = "sim"
    Config = SIMConfig

    def _network(self, items: int, levels: int) -> SIMNetwork:
        hard = self.config.search == "hard"
        return SIMNetwork(items, levels, self.config, self._categories() if hard else None)

    def _read_off_catalog(self) -> dict[str, np.ndarray]:
        return {"categories": self._categories()} if self.config.search == "hard" else {}

    def _categories(self) -> np.ndarray:
        """The number of every item's first category, int64 ``[items + 1]``; 0 for none."""
        known = self._fitted_catalog().categories
        if known is None:
            raise InputError(
                'sim: search = "hard" needs categories, and no item of the catalog has any. '
                'Name a file that has them with --items, or set search = "soft".'
            )
        first = [names[0] if names else "" for names in known]
        names, numbers = np.unique(["", *first], return_inverse=True)
        if len(names) > 2**16:
            raise InputError(f"sim: {len(names):,} categories; a record has two bytes for them.")
        return np.append(numbers[1:], 0)  # "" comes first among the names
