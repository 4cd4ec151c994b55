"""What the networks of rankers share: a history's keys and values, asked by each candidate."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.nn.collective import key_values
from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import small_normal
from foretaste.nn.key_values import split_heads
from foretaste.recommenders.core.ranker_config import RankerConfig

HIDDEN = -1e9
"""What a softmax takes for an event that is not seen; finite, so that none seen is no NaN."""


class History(NamedTuple):
    """Events as a network sees them, on its device: ``B`` rows of at most ``L``.

    Attributes:
        items: int ``[B, L]``, right-padded with 0.
        levels: int ``[B, L]``, 0 for no rating, else 1 + the place among the ratings the network
            knows; None when nothing is known of any.
        lengths: int64 ``[B]``.
    """

    items: Tensor
    levels: Tensor | None
    lengths: Tensor


@dataclass(frozen=True)
class Memory:
    """What is known of the events of ``B`` histories.

    Keys and values are whole, those of collective records too: they are rebuilt once and then asked
    by many candidates, which takes less time than the arithmetic of pools (see ``KeyValues``).

    Attributes:
        key: ``[B, H, n, K]``.
        value: ``[B, H, n, V]``.
    """

    key: Tensor
    value: Tensor

    @property
    def events(self) -> int:
        """``n``, the most events of a history, padding counted."""
        return self.key.shape[2]

    def scores(self, query: Tensor) -> Tensor:
        """``query`` ``[B or 1, H, M, K]`` times keys, not scaled: ``[B, H, M, n]``."""
        return query @ self.key.mT

    def mix(self, weights: Tensor) -> Tensor:
        """``weights`` ``[B, H, M, n]`` times values: ``[B, H, M, V]``."""
        return weights @ self.value


class RankerNetwork(nn.Module):
    """Judges candidates: the candidate asks, the history answers, a small network concludes.

    The logit is how often the candidate is chosen by anyone, plus the product of its vector with
    what the history says to it (``interest``) and with what the history says to all (``taste``),
    plus what a hidden layer makes of the three. A subclass says only how much each event counts for
    a candidate (``weigh``). Events know nothing of their place, so that what a cache keeps of them
    stays true as more come; how far back they lie counts when they are asked.

    Attributes:
        often: ``[items + 1]``, log-odds of a click whoever is asked, beside the common ones.
            Fitting begins it at what the counts say: learnt from nothing, it is still half way
            when the item vectors begin to overfit.
        trust: ``[items + 1]``, what an item's vector is multiplied by: n / (n + shrink) when train
            knows n of its impressions. An optimizer with a step size of its own for every weight
            learns by heart what is rare; this keeps it small.
        record_bytes: bytes of an event's record (``pack``).
    """

    trust: Tensor
    reads_distance: ClassVar[bool] = True

    def __init__(self, items: int, levels: int, config: RankerConfig) -> None:
        """A network for a catalog of ``items`` and ``levels`` different ratings, maybe 0."""
        super().__init__()
        dim, self.config = config.dim, config
        self.items = nn.Embedding(items + 1, dim)  # the last is any item that train did not know
        self.often = nn.Parameter(torch.zeros(items + 1))
        self.register_buffer("trust", torch.ones(items + 1).index_fill(0, torch.tensor(items), 0))
        self.levels = nn.Embedding(levels + 1, dim) if levels else None
        self.norm = nn.LayerNorm(dim)
        self.key_values = key_values(dim, config.heads, config.attention, config.collective)
        self.record_bytes = self.key_values.record_bytes
        self.query = nn.Linear(dim, self.key_values.key_dim)
        self.interest = nn.Linear(self.key_values.value_dim, dim)
        self.taste = nn.Linear(self.key_values.value_dim, dim)
        self.of_interest = nn.Linear(dim, config.hidden)
        self.of_taste = nn.Linear(dim, config.hidden, bias=False)
        self.of_item = nn.Linear(dim, config.hidden, bias=False)
        self.verdict = nn.Linear(config.hidden, 1)
        self.dropout = Dropout(config.dropout)
        self.scale = 1 / math.sqrt(self.key_values.key_dim / config.heads)
        self.apply(small_normal)
        if self.reads_distance:
            self.by_distance = nn.Embedding(config.max_length, config.heads)
            nn.init.zeros_(self.by_distance.weight)
        if self.levels is not None:
            nn.init.zeros_(self.levels.weight[0])

    def forward(self, history: History, candidates: Tensor, ends: Tensor) -> Tensor:
        """Logits ``[B, C]`` of clicks.

        Args:
            history: ``B`` rows of events.
            candidates: int ``[B, C]``, or ``[1, C]`` for all rows; -1 is an unknown item.
            ends: int ``[B, C]``, or ``[B, 1]`` for all candidates: it sees the events before this
                place, at most ``max_length`` of them.
        """
        return self.judge(self.remember(history), candidates, ends)

    def pack(self, history: History) -> Tensor:
        """What a cache keeps of each event: uint8 ``[B, L, record_bytes]``."""
        return self.key_values.pack(self._vectors(history))

    def score_records(self, records: Tensor, lengths: Tensor, candidates: Tensor) -> Tensor:
        """The logits of ``forward`` from what was kept alone.

        Args:
            records: uint8 ``[B, n, record_bytes]``, the oldest first, right-padded with zeros or
                the record of any event.
            lengths: int ``[B]``, how many of them are real.
            candidates: int ``[B, C]`` or ``[1, C]``.
        """
        return self.judge(self.recall(records), candidates, lengths[:, None])

    def remember(self, history: History) -> Memory:
        """Keys and values of a history's events."""
        x = self.dropout(self._vectors(history))  # [B, L, D]
        place = torch.arange(x.shape[1], device=x.device)
        real = place < history.lengths[:, None]  # [B, L]
        # Padding must not count in the losses of collective keys and values.
        key, value = (
            part.new_zeros(*real.shape, part.shape[-1]).masked_scatter(real[..., None], part)
            for part in self.key_values(x[real])
        )
        return self._memory(key, value)

    def recall(self, records: Tensor) -> Memory:
        """What ``remember`` gives, from records."""
        return self._memory(*self.key_values.unpack(records))

    def judge(self, memory: Memory, candidates: Tensor, ends: Tensor) -> Tensor:
        """As ``forward``, from what is remembered of the history."""
        number = torch.where(candidates < 0, len(self.often) - 1, candidates)
        item = self._known(number)  # [B or 1, C, D]
        query = split_heads(self.query(item), self.config.heads) * self.scale  # [B or 1, H, C, K]
        interest = self.interest(_joined(self.answer(memory, query, ends, number), ends))
        taste = self.taste(_joined(memory.mix(self._evenly(memory, ends)), ends))  # [B, C or 1, D]
        hidden = self.of_interest(interest) + self.of_taste(taste) + self.of_item(item)
        hidden = self.dropout(F.gelu(hidden))  # [B, C, hidden]
        fit = ((interest + taste) * self.dropout(item)).sum(-1)  # [B, C]
        return self.often[number] + fit + self.verdict(hidden).squeeze(-1)

    def widest(self, rows: int, events: int) -> int:
        """Numbers of the widest layer for each candidate of so many histories."""
        return rows * max(self.config.heads * events, self.config.hidden, self.config.dim)

    def answer(self, memory: Memory, query: Tensor, ends: Tensor, number: Tensor) -> Tensor:
        """The values of a history as each candidate weighs them: ``[B, H, C, V]``."""
        return memory.mix(self.weigh(memory, query, ends, number))

    @abstractmethod
    def weigh(self, memory: Memory, query: Tensor, ends: Tensor, number: Tensor) -> Tensor:
        """How much each event counts for each candidate: ``[B, H, C, n]``, 0 where unseen.

        Of a candidate that sees no event, anything.

        Args:
            memory: of the events.
            query: ``[B or 1, H, C, K]`` of the candidates, scaled.
            ends: int ``[B, C or 1]``.
            number: int ``[B or 1, C]``, the candidates' rows of ``items``.
        """

    def attend(self, memory: Memory, query: Tensor, ends: Tensor) -> Tensor:
        """What a softmax takes, ``[B, H, C, n]``: key times query and the bias of the distance."""
        scores = memory.scores(query)
        back, seen = self.distances(ends, memory.events)
        bias = self.by_distance(back.clamp(0, self.config.max_length - 1))  # [B, C or 1, n, H]
        bias = bias.movedim(-1, 1).masked_fill(~seen[:, None], HIDDEN)
        return scores + bias

    def distances(self, ends: Tensor, events: int) -> tuple[Tensor, Tensor]:
        """How far back each event lies (0 is the last), and whether a candidate sees it.

        Both ``[B, C or 1, events]``.
        """
        back = ends[..., None] - 1 - torch.arange(events, device=ends.device)
        return back, (back >= 0) & (back < self.config.max_length)

    def _memory(self, key: Tensor, value: Tensor) -> Memory:
        return Memory(split_heads(key, self.config.heads), split_heads(value, self.config.heads))

    def _vectors(self, history: History) -> Tensor:
        x = self._known(history.items)  # [B, L, D]
        if self.levels is not None:
            none = history.levels is None
            x = x + self.levels(torch.zeros_like(history.items) if none else history.levels)
        return self.norm(x)

    def _known(self, number: Tensor) -> Tensor:
        return self.items(number) * self.trust[number][..., None]

    def _evenly(self, memory: Memory, ends: Tensor) -> Tensor:
        seen = self.distances(ends, memory.events)[1].float()
        even = seen / seen.sum(-1, keepdim=True).clamp_min(1)  # [B, C or 1, n]
        return even[:, None].expand(-1, self.config.heads, -1, -1)


def _joined(mixed: Tensor, ends: Tensor) -> Tensor:
    """Heads side by side, ``[B, H, C, V]`` to ``[B, C, H V]``; 0 for who sees no event."""
    return mixed.transpose(1, 2).flatten(2) * (ends > 0)[..., None]
