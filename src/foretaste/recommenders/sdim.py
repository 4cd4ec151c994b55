"""SDIM: sampling-based deep interest modelling (Cao et al., CIKM 2022)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.ranker_config import RankerConfig
from foretaste.recommenders.core.ranker_network import (
    Memory,
    RankerNetwork,
)

ALMOST = 1 - 1e-4
"""Cosines are kept within this: the slope of the arc cosine is infinite at 1. In float32, since
half precision would round it to 1."""


class SDIMConfig(RankerConfig):
    """Of SDIM.

    Attributes:
        rounds: signatures of an event; in each round it meets the candidate, or does not.
        bits: hash functions of a signature; more make a bucket narrower.
    """

    rounds: int = Field(default=16, ge=1)
    bits: int = Field(default=3, ge=1, le=8)


class SDIMNetwork(RankerNetwork):
    """An event counts as often as its signature is the candidate's (SimHash, Charikar 2002).

    In each round both have a signature of ``bits`` signs of products with random vectors. The
    events in the candidate's bucket are averaged, over all rounds together: with more rounds the
    weights come near (1 - angle / pi)^bits, normalised. (The paper divides by the Euclidean norm;
    a mean does not depend on how long the history is.) Signatures have no slope, so training
    passes gradients as if the expectation had been taken; the paper trains what is hashed only
    through the values.
    """

    reads_distance = False
    planes: Tensor

    def __init__(self, items: int, levels: int, config: SDIMConfig) -> None:
        """See ``RankerNetwork``."""
        super().__init__(items, levels, config)
        self.rounds, self.bits = config.rounds, config.bits
        width = self.key_values.key_dim // config.heads
        planes = torch.randn(config.heads, config.rounds * config.bits, width)
        self.register_buffer("planes", planes)

    def weigh(self, memory: Memory, query: Tensor, ends: Tensor, number: Tensor) -> Tensor:
        """See ``RankerNetwork``."""
        del number
        meetings = self.meetings(memory, query)  # [B, H, C, n]
        if self.training:
            expected = expected_share(query, memory.key, self.bits) * self.rounds
            meetings = expected + (meetings - expected).detach()
        _, seen = self.distances(ends, memory.events)
        meetings = meetings * seen[:, None]
        return meetings / meetings.sum(-1, keepdim=True).clamp_min(1)

    def answer(self, memory: Memory, query: Tensor, ends: Tensor, number: Tensor) -> Tensor:
        """See ``RankerNetwork``. Where all candidates see the same events, by buckets.

        Each bucket is summed once, and a candidate reads ``rounds`` of them, however long the
        history: what the paper is after.
        """
        if self.training or ends.shape[1] > 1:
            return super().answer(memory, query, ends, number)
        _, seen = self.distances(ends, memory.events)  # [B, 1, n]
        of_event = self._of_events(memory) * seen[..., None]  # [B, H, n, buckets]
        of_candidate = self._buckets(query @ self.planes.mT)  # [B or 1, H, C, buckets]
        summed = memory.mix(of_event.mT)  # [B, H, buckets, V]
        count = of_candidate @ of_event.sum(-2)[..., None]  # [B, H, C, 1]
        return of_candidate @ summed / count.clamp_min(1)

    def widest(self, rows: int, events: int) -> int:
        """See ``RankerNetwork``; the buckets of a candidate are the same for all histories."""
        buckets = self.config.heads * self.rounds * 2**self.bits
        return max(super().widest(rows, events), buckets)

    def meetings(self, memory: Memory, query: Tensor) -> Tensor:
        """In how many rounds each event has the candidate's signature, ``[B, H, C, n]``."""
        return self._buckets(query @ self.planes.mT) @ self._of_events(memory).mT

    @torch.no_grad()
    def _of_events(self, memory: Memory) -> Tensor:
        return self._buckets(memory.scores(self.planes[None]).mT)  # [B, H, n, buckets]

    @torch.no_grad()
    def _buckets(self, products: Tensor) -> Tensor:
        """1 in one bucket of each round: ``[..., rounds bits]`` to ``[..., rounds 2^bits]``."""
        signs = (products > 0).unflatten(-1, (self.rounds, self.bits))
        place = torch.arange(self.bits, device=signs.device)
        signature = (signs.int() << place).sum(-1, keepdim=True)  # [..., rounds, 1]
        empty = products.new_zeros(*signature.shape[:-1], 2**self.bits)
        return empty.scatter_(-1, signature, 1).flatten(-2)


def expected_share(query: Tensor, key: Tensor, bits: int) -> Tensor:
    """The chance that two signatures of ``bits`` are equal: ``[..., C, n]`` of ``[..., K]``."""
    cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
    return (1 - torch.acos(cosine.float().clamp(-ALMOST, ALMOST)) / math.pi) ** bits


class SDIM(Ranker):
    """Averages the events that fall into the candidate's buckets."""

    name = "sdim"
    Config = SDIMConfig

    def _network(self, items: int, levels: int) -> SDIMNetwork:
        return SDIMNetwork(items, levels, self.config)
