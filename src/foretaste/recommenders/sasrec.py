"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

Trained with a softmax over the whole catalog, which is what makes it strong (Klenitskiy and
Vasilev, RecSys 2023); pre-norm blocks, item vectors shared between input and output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.nn.transformer import TransformerBlock
from foretaste.recommenders.core.sequence import (
    AttentionConfig,
    Histories,
    SequenceNetwork,
    SequenceRecommender,
)


class SASRecConfig(AttentionConfig):
    """Of SASRec."""


class SASRecNetwork(SequenceNetwork):
    """Item and position vectors, causal blocks, a norm."""

    def __init__(self, items: int, config: SASRecConfig) -> None:
        """A network for a catalog of ``items``."""
        super().__init__()
        self.items = nn.Embedding(items, config.dim)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.apply(small_normal)

    def forward(self, histories: Histories) -> Tensor:
        """``[B, L, D]``."""
        x = self._embed(histories)  # [B, L, D]
        for block in self.blocks:
            x = block(x, histories.lengths)
        return self.norm(x)

    def last(self, histories: Histories) -> Tensor:
        """``[B, D]``: the last block works for the last event only."""
        x = self._embed(histories)  # [B, L, D]
        *lower, top = self.blocks
        assert isinstance(top, TransformerBlock)
        for block in lower:
            x = block(x, histories.lengths)
        return self.norm(top.last(x, histories.lengths))

    def _embed(self, histories: Histories) -> Tensor:
        place = torch.arange(histories.items.shape[1], device=histories.items.device)
        return self.dropout(self.items(histories.items) + self.positions(place))


class SASRec(SequenceRecommender):
    """Self-attention over the history."""

    name = "sasrec"
    Config = SASRecConfig

    def _network(self, items: int) -> SASRecNetwork:
        return SASRecNetwork(items, self.config)
