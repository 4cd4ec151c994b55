"""GRU4Rec: a recurrent network over the history (Hidasi et al., ICLR 2016; full softmax)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.recommenders.core.sequence import (
    Histories,
    SequenceConfig,
    SequenceNetwork,
    SequenceRecommender,
)


class GRU4RecConfig(SequenceConfig):
    """Of GRU4Rec.

    Attributes:
        hidden: width of the recurrent state.
        layers: recurrent layers.
    """

    hidden: int = Field(default=128, ge=1)
    layers: int = Field(default=1, ge=1)


class GRU4RecNetwork(SequenceNetwork):
    """Item vectors, a GRU, a projection back to the width of the item vectors."""

    def __init__(self, items: int, config: GRU4RecConfig) -> None:
        """A network for a catalog of ``items``."""
        super().__init__()
        self.items = nn.Embedding(items, config.dim)
        self.dropout = Dropout(config.dropout)
        self.gru = nn.GRU(config.dim, config.hidden, config.layers, batch_first=True)
        self.project = nn.Linear(config.hidden, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.apply(small_normal)

    def forward(self, histories: Histories) -> Tensor:
        """``[B, L, D]``; padding on the right comes after every real event, so it is harmless."""
        x = self.dropout(self.items(histories.items))  # [B, L, D]
        hidden, _ = self.gru(x)  # [B, L, hidden]
        return self.norm(self.project(self.dropout(hidden)))


class GRU4Rec(SequenceRecommender):
    """A recurrent state that every event updates."""

    name = "gru4rec"
    Config = GRU4RecConfig

    def _network(self, items: int) -> GRU4RecNetwork:
        return GRU4RecNetwork(items, self.config)
