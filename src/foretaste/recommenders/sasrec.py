"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

Trained with a softmax over the whole catalog, which is what makes it strong (Klenitskiy and
Vasilev, RecSys 2023); pre-norm blocks, item vectors shared between input and output. Attention
looks back over a sliding window and knows distances instead of places, so that a list can be made
from what is kept of a user (see ``IncrementalRecommender``).
"""

from __future__ import annotations

from torch import Tensor, nn

from foretaste.nn.attention import WindowedBlock
from foretaste.nn.collective import key_values
from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.nn.stepping import BlockStep, LayerStep
from foretaste.recommenders.core.incremental import IncrementalRecommender
from foretaste.recommenders.core.sequence import Histories
from foretaste.recommenders.core.windowed import WindowedConfig, WindowedNetwork


class SASRecConfig(WindowedConfig):
    """Of SASRec."""


class SASRecNetwork(WindowedNetwork):
    """Item vectors, causal blocks, a norm."""

    def __init__(self, items: int, config: SASRecConfig) -> None:
        """A network for a catalog of ``items``."""
        super().__init__(config, items)
        self.items = nn.Embedding(items, config.dim)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            WindowedBlock(
                config.dim,
                config.heads,
                config.window,
                config.dropout,
                key_values(config.dim, config.heads, config.attention_of(layer), config.collective),
            )
            for layer in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.apply(small_normal)

    def forward(self, histories: Histories) -> Tensor:
        """``[B, L, D]``."""
        x = self.dropout(self.items(histories.items))  # [B, L, D]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def last(self, histories: Histories) -> Tensor:
        """``[B, D]``: a block works for the events alone that those above it look at."""
        x, lengths = self.dropout(self.items(histories.items)), histories.lengths  # [B, L, D]
        *lower, top = self.layers
        assert isinstance(top, WindowedBlock)
        for above, layer in zip(range(len(lower), 0, -1), lower, strict=True):
            first = max(0, int(lengths.min()) - above * (self.window - 1) - 1)
            x, lengths = layer(x, first), lengths - first
        return self.norm(top.last(x, lengths))

    def layer_steps(self) -> list[LayerStep]:
        """See ``WindowedNetwork``."""
        return [BlockStep(layer) for layer in self.layers if isinstance(layer, WindowedBlock)]


class SASRec(IncrementalRecommender):
    """Self-attention over the history."""

    name = "sasrec"
    Config = SASRecConfig

    def _network(self, items: int) -> SASRecNetwork:
        return SASRecNetwork(items, self.config)
