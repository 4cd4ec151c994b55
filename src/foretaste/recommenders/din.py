"""DIN: deep interest network (Zhou et al., KDD 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.ranker_config import RankerConfig
from foretaste.recommenders.core.ranker_network import Memory, RankerNetwork


class DINConfig(RankerConfig):
    """Of DIN."""


class DINNetwork(RankerNetwork):
    """Every event counts by a softmax over its key times the candidate's query.

    The paper's activation unit is a small network that sees a pair of vectors; query, key and value
    are what a cache can keep, and what CollectiveKV takes DIN to be.
    """

    def weigh(self, memory: Memory, query: Tensor, ends: Tensor, number: Tensor) -> Tensor:
        """See ``RankerNetwork``."""
        del number
        return torch.softmax(self.attend(memory, query, ends), -1)


class DIN(Ranker):
    """Looks at the history from the candidate's point of view."""

    name = "din"
    Config = DINConfig

    def _network(self, items: int, levels: int) -> DINNetwork:
        return DINNetwork(items, levels, self.config)
