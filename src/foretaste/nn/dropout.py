"""Dropout whose mask costs one random byte an element instead of one random float."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Inverted dropout; on a CPU the probability is rounded to a multiple of 1/256.

    PyTorch draws a Bernoulli variable per element on one core, which on a CPU takes longer than
    the matrix products of a small transformer. Here one 64-bit draw decides eight elements; the
    scale uses the rounded probability, so the expectation is exact. On an accelerator PyTorch's
    own kernel is used.
    """

    def __init__(self, p: float) -> None:
        """``p`` in [0, 1): the share of elements set to zero."""
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout {p} must lie in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, the same shape back."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        return x * dropout_mask(x, self.p)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"p={self.p}"


def dropout_mask(x: Tensor, p: float) -> Tensor:
    """A mask like ``x`` of 0 and 1 / (1 - p), with p rounded to a multiple of 1/256."""
    threshold = min(max(round(p * 256), 1), 255)
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.uint8)[: x.numel()].view(x.shape)
    return (draws >= threshold).to(x.dtype).mul_(256 / (256 - threshold))
