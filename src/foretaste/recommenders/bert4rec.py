"""BERT4Rec: events hidden and guessed from both sides (Sun et al., CIKM 2019)."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.data.batches import Batch
from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.nn.transformer import TransformerBlock
from foretaste.recommenders.core.sequence import (
    AttentionConfig,
    Histories,
    NextItemLoss,
    SequenceNetwork,
    SequenceRecommender,
    tensors,
)


class BERT4RecConfig(AttentionConfig):
    """Of BERT4Rec. A history is read up to ``max_length - 1`` events: the mask takes a place.

    Attributes:
        max_length: places, that of the mask included.
        mask_share: share of the events that are hidden in training.
        last_share: share of the windows in which only the last event is hidden instead, which is
            what the model is asked afterwards.
    """

    max_length: int = Field(default=50, ge=2)
    mask_share: float = Field(default=0.2, gt=0, lt=1)
    last_share: float = Field(default=0.3, ge=0, le=1)


class BERT4RecNetwork(SequenceNetwork):
    """Item and position vectors, blocks that look both ways, a norm."""

    def __init__(self, items: int, config: BERT4RecConfig) -> None:
        """A network for a catalog of ``items``; item number ``items`` is the mask."""
        super().__init__()
        self.mask = items
        self.items = nn.Embedding(items + 1, config.dim)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.apply(small_normal)

    def forward(self, histories: Histories) -> Tensor:
        """``[B, L, D]``: at each place that holds the mask, what was there."""
        x = self._embed(histories)  # [B, L, D]
        for block in self.blocks:
            x = block(x, histories.lengths)
        return self.norm(x)

    def last(self, histories: Histories) -> Tensor:
        """``[B, D]``: the vector of a mask put after the whole history."""
        histories = appended(histories, torch.full_like(histories.lengths, self.mask))
        x = self._embed(histories)  # [B, L + 1, D]
        *lower, top = self.blocks
        assert isinstance(top, TransformerBlock)
        for block in lower:
            x = block(x, histories.lengths)
        return self.norm(top.last(x, histories.lengths))

    def catalog(self) -> Tensor:
        """``[N, D]``, without the mask, which therefore has no score and no share of the loss."""
        return self.items.weight[: self.mask]

    def _embed(self, histories: Histories) -> Tensor:
        # Counted from the end, as the authors' padding on the left does: the event that is asked
        # for always has place 0, also after a history longer than any in training.
        place = torch.arange(histories.items.shape[1], device=histories.items.device)
        back = (histories.lengths[:, None] - 1 - place).clamp_min(0)  # [B, L]
        return self.dropout(self.items(histories.items) + self.positions(back))


class ClozeLoss(NextItemLoss):
    """The loss of guessing hidden events.

    At random ``mask_share`` of the events are hidden, and the last one where chance hides none;
    in ``last_share`` of the windows the last one alone, as when asked. (The paper adds such
    windows too, without a number.) The sum over the hidden events is scaled to the events of the
    batch, so that a learning rate means what it means for other models.
    """

    def __init__(self, network: BERT4RecNetwork, config: BERT4RecConfig, counts: np.ndarray):
        """As ``NextItemLoss``."""
        super().__init__(network, config, counts)
        self.mask, self.share, self.last_share = network.mask, config.mask_share, config.last_share

    def forward(self, batch: Batch, half: bool) -> Tensor:
        """A scalar; ``half`` makes catalog products in bfloat16."""
        assert batch.targets is not None
        histories = tensors(batch, self.log_q.device)
        targets = torch.from_numpy(batch.targets).to(self.log_q.device)
        final = targets.gather(1, histories.lengths[:, None] - 1)[:, 0]  # [B]
        whole = appended(histories, final)  # the window and its last target, [B, L + 1]
        hidden = self.choose(whole.lengths, whole.items.shape[1])
        masked = whole._replace(items=whole.items.masked_fill(hidden, self.mask))
        vectors = self.network(masked)[hidden]  # [T, D]
        loss = self.next_item(vectors, whole.items[hidden].long(), half)
        return loss * (batch.tokens / max(len(vectors), 1))

    def choose(self, lengths: Tensor, width: int) -> Tensor:
        """The events to hide, bool ``[B, width]``, at least one of each window."""
        place = torch.arange(width, device=lengths.device)
        last = place == lengths[:, None] - 1
        some = torch.rand(last.shape, device=lengths.device) < self.share
        some &= place < lengths[:, None]
        asked = torch.rand(len(lengths), 1, device=lengths.device) < self.last_share
        return torch.where(asked | ~some.any(1, keepdim=True), last, some)


class BERT4Rec(SequenceRecommender):
    """Self-attention over the history from both sides, with a mask where the next item goes."""

    name = "bert4rec"
    Config = BERT4RecConfig

    def _network(self, items: int) -> BERT4RecNetwork:
        return BERT4RecNetwork(items, self.config)

    def _loss(self, network: SequenceNetwork, counts: np.ndarray) -> nn.Module:
        assert isinstance(network, BERT4RecNetwork)
        return ClozeLoss(network, self.config, counts)

    def _window(self) -> int:
        return self.config.max_length - 1


def appended(histories: Histories, items: Tensor) -> Histories:
    """The histories with one more item each, ``items`` ``[B]``; times are dropped."""
    wider = F.pad(histories.items, (0, 1))  # [B, L + 1]
    place = histories.lengths[:, None]
    longer = wider.scatter(1, place, items.to(wider.dtype)[:, None])
    return Histories(longer, histories.lengths + 1, None)
