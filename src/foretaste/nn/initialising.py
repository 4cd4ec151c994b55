"""First weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WIDTH = 0.02
STEEPEST, FLATTEST = 0.5, 0.03125
"""What the first and the last head of ``falling`` lose with every event."""


def small_normal(module: nn.Module) -> None:
    """Normal weights of width 0.02 and zero biases for linear layers and embeddings.

    For ``network.apply``. Small item vectors make the first softmax over a catalog nearly
    uniform, so that the first steps are not spent on undoing chance.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=WIDTH)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def falling(heads: int, distances: int, places: int = 1) -> Tensor:
    """First biases ``[heads, distances]`` of attention, that fall with the distance.

    A bias for a distance that no history in training had keeps its first value. At zero, an old
    event of a history longer than those would weigh as much as the newest; falling, it weighs as
    little as its age says (as in ALiBi, Press et al., ICLR 2022, but learnt from there on).

    Args:
        heads: each falls at its own rate.
        distances: in places.
        places: that make an event.
    """
    slopes = torch.logspace(math.log2(STEEPEST), math.log2(FLATTEST), heads, base=2.0)
    return -slopes[:, None] * torch.arange(distances) / places
