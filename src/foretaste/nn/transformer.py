"""The pre-norm transformer block that looks both ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.nn.dropout import Dropout


class SelfAttention(nn.Module):
    """Multi-head self-attention over right-padded sequences, from every event to every other."""

    def __init__(self, dim: int, heads: int) -> None:
        """``dim`` must be a multiple of ``heads``."""
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """``x`` ``[B, L, D]`` to ``[B, L, D]``."""
        query, key, value = self._heads(self.project(x), 3)  # [B, H, L, D/H]
        mask = _real(lengths, x.shape[1])[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The output for the last event of each sequence only: ``[B, D]``."""
        dim = x.shape[-1]
        newest = x[torch.arange(len(x), device=x.device), lengths - 1]  # [B, D]
        weight, bias = self.project.weight, self.project.bias
        (query,) = self._heads(F.linear(newest, weight[:dim], bias[:dim])[:, None], 1)
        key, value = self._heads(F.linear(x, weight[dim:], bias[dim:]), 2)
        mask = _real(lengths, x.shape[1])[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.flatten(1))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)), with dropout on both branches."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        """The inner width of the feedforward is ``4 * dim``."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.feedforward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """``x`` ``[B, L, D]`` to ``[B, L, D]``."""
        x = x + self.dropout(self.attention(self.attention_norm(x), lengths))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The output for the last event of each sequence only: ``[B, D]``."""
        newest = x[torch.arange(len(x), device=x.device), lengths - 1]  # [B, D]
        newest = newest + self.dropout(self.attention.last(self.attention_norm(x), lengths))
        return newest + self.dropout(self.feedforward(self.feedforward_norm(newest)))


def _real(lengths: Tensor, width: int) -> Tensor:
    """True where an event is real, ``[B, L]``."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]
