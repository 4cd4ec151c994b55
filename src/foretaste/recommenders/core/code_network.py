"""What networks of generators share: code vectors, training, and a reader of histories."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foretaste.codes.table import Codes
from foretaste.nn.attention import WindowedBlock
from foretaste.nn.code_embedding import CodeEmbedding
from foretaste.nn.decoder import Decoder, Memory, Texts
from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.nn.key_values import FullKeyValues
from foretaste.recommenders.core.generator_config import GeneratorConfig


class Reading(NamedTuple):
    """Histories as an encoder read them.

    Attributes:
        states: ``[B, T, D]``: one state for each event, or one for each of its codes.
        events: ``[B, P, D]``, the last state of each event.
    """

    states: Tensor
    events: Tensor


class Taught(NamedTuple):
    """What a network makes when it is told the right codes.

    Attributes:
        hidden: ``[R, L, D]``, what writes the codes.
        thoughts: ``[R, L, D]``, of a network that has any.
    """

    hidden: Tensor
    thoughts: Tensor | None = None


class CodeNetwork(nn.Module):
    """Writes the codes of the next item, knowing those of a history."""

    def __init__(self, config: GeneratorConfig, codes: Codes) -> None:
        """A network for a catalog with these codes."""
        super().__init__()
        self.config = config
        self.codes = CodeEmbedding(codes.table, codes.sizes, config.dim)
        self.level = nn.Embedding(self.codes.levels, config.dim)  # which code of an item is read
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)

    @property
    def vocabulary(self) -> int:
        """What the largest softmax of training is over: the codes of a level."""
        return max(self.codes.sizes)

    @abstractmethod
    def loss(self, items: Tensor, targets: Tensor, progress: float, half: bool = False) -> Tensor:
        """The summed loss of a batch.

        Args:
            items: int64 ``[B, P]``.
            targets: int64 ``[B, P]``, the item after each event; -1 on padding.
            progress: share of the training that is done.
            half: make products over the catalog in bfloat16, where there are any.
        """

    @abstractmethod
    def likelihood(self, items: Tensor, lengths: Tensor, goals: Tensor) -> Tensor:
        """Log-probabilities ``[B]`` of writing given items, each after one history.

        Args:
            items: int64 ``[B, P]``, the histories.
            lengths: int64 ``[B]``.
            goals: int64 ``[B]``, the items to be written.
        """


class ReadingNetwork(CodeNetwork):
    """Reads a window once by an encoder, and writes by a decoder.

    A text begins with what the encoder says after the last event, and what it reads besides is
    every state up to there.
    """

    def __init__(self, config: GeneratorConfig, codes: Codes, *, causal: bool) -> None:
        """``causal`` is as for ``Decoder``."""
        super().__init__(config, codes)
        dim, heads = config.dim, config.heads
        self.per_event = self.codes.levels if config.reads == "codes" else 1
        self.joined = nn.Sequential(
            nn.Linear(self.codes.levels * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        window = config.max_length * self.per_event
        blocks = [
            WindowedBlock(
                dim, heads, window, config.dropout, FullKeyValues(dim, heads, nn.Identity())
            )
            for _ in range(config.layers)
        ]
        for block in blocks:
            block.attention.begin_falling(self.per_event)
        self.encoder = nn.ModuleList(blocks)
        self.decoder = Decoder(
            dim, heads, config.decoder_layers, config.max_length, config.dropout, causal=causal
        )
        self.apply(small_normal)
        # Drawn whatever is read, so that both readings begin with the same weights; but processes
        # that train together wait for the gradient of every weight there is.
        if self.per_event > 1:
            del self.joined
        else:
            del self.level

    def read(self, items: Tensor) -> Reading:
        """Encode histories int64 ``[B, P]``, right-padded."""
        vectors = self.codes.of_items(items)  # [B, P, L, D]
        if self.per_event > 1:
            x = (vectors + self.level.weight).flatten(1, 2)  # [B, P L, D]
        else:
            # The sum is what writing compares with, so a path without layers leads from what is
            # read to what is written, as between the shared item vectors of SASRec.
            x = vectors.sum(2) + self.joined(vectors.flatten(2))  # [B, P, D]
        x = self.dropout(x)
        for block in self.encoder:
            x = block(x)
        states = self.norm(x)
        return Reading(states, states[:, self.per_event - 1 :: self.per_event])

    def memory_of_all(self, reading: Reading, views: int = 1) -> tuple[Memory, Texts]:
        """For training: ``views`` texts after each event of each window."""
        batch, events = reading.events.shape[:2]
        place = torch.arange(events, device=reading.events.device)
        asking = place.repeat_interleave(views)  # [P V]
        back = asking[:, None] - place.repeat_interleave(self.per_event)  # [P V, T]
        of = torch.arange(batch, device=place.device).repeat_interleave(len(asking))
        return self.decoder.remember(reading.states, back[None]), Texts(of, batch)

    def memory_of_last(self, reading: Reading, lengths: Tensor) -> tuple[Memory, Tensor]:
        """For asking: texts after the last event; with the states ``[B, D]`` they begin with."""
        events = torch.arange(reading.events.shape[1], device=lengths.device)
        event = events.repeat_interleave(self.per_event)
        back = lengths[:, None, None] - 1 - event  # [B, 1, T]
        begin = reading.events[torch.arange(len(lengths), device=lengths.device), lengths - 1]
        return self.decoder.remember(reading.states, back), begin
