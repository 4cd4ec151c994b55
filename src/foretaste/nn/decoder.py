"""Writers of short texts about histories: decoders whose many texts share one reading."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.nn.dropout import Dropout
from foretaste.nn.initialising import falling
from foretaste.nn.key_values import split_heads


class Texts:
    """Which of ``B`` histories each of ``R`` texts is about, in the order of the histories.

    All texts of a history ask its memory together, as so many places of one question, so that the
    memory is never copied for each of them.
    """

    def __init__(self, of: Tensor, histories: int) -> None:
        """``of`` int64 ``[R]``, ascending."""
        counts = torch.bincount(of, minlength=histories)
        self.histories, self.width = histories, int(counts.max())
        self.even = len(of) == histories * self.width
        self.of = of
        self.place = torch.arange(len(of), device=of.device) - (counts.cumsum(0) - counts)[of]

    def together(self, x: Tensor) -> Tensor:
        """``x`` ``[R, n, D]`` side by side, ``[B, G * n, D]``; zeros where a history has fewer."""
        if self.even:
            return x.unflatten(0, (self.histories, self.width)).flatten(1, 2)
        wide = x.new_zeros(self.histories, self.width, *x.shape[1:])
        wide = wide.index_put((self.of, self.place), x)
        return wide.flatten(1, 2)

    def apart(self, x: Tensor) -> Tensor:
        """What ``together`` was given."""
        wide = x.unflatten(1, (self.width, -1))  # [B, G, n, D]
        return wide.flatten(0, 1) if self.even else wide[self.of, self.place]


class Memory(NamedTuple):
    """What a decoder reads of ``B`` histories, block by block.

    Attributes:
        keys: ``[B, H, T, d]`` each.
        values: ``[B, H, T, d]`` each.
        biases: ``[B or 1, H, G or 1, T]`` each, what each text of a history adds to its scores;
            -inf for what it does not see.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


class Written(NamedTuple):
    """Keys and values ``[R, H, t, d]`` of what was written so far, block by block."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class Draft:
    """Keys and values of texts that a search writes place by place, without gradients.

    Places come first, ``[places, blocks, 2, R, D]``: to write one copies none of those before it,
    and texts that go on from others take one gather of rows.
    """

    def __init__(self, kept: Tensor, length: int) -> None:
        """``kept`` has room beyond the first ``length`` places, which are written."""
        self.kept, self.length = kept, length

    def follow(self, rows: Tensor, more: int) -> Draft:
        """Other texts, which go on from rows int64 ``[R']`` of these by ``more`` places."""
        before = self.kept[: self.length]
        after = before.new_empty(self.length + more, *before.shape[1:3], len(rows), before.shape[4])
        torch.index_select(before, 3, rows, out=after[: self.length])
        return Draft(after, self.length)


class DecoderBlock(nn.Module):
    """Attention within a text, attention to the memory, feedforward: pre-norm, residual."""

    def __init__(self, dim: int, heads: int, events: int, dropout: float, *, causal: bool) -> None:
        """See ``Decoder``."""
        super().__init__()
        self.heads, self.causal = heads, causal
        self.scale = 1 / math.sqrt(dim / heads)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.project = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.read = nn.Linear(dim, dim)
        self.by_distance = nn.Parameter(falling(heads, events))
        self.feedforward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor, Tensor],
        texts: Texts,
        before: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` ``[R, n, D]`` to as much, and keys and values of the text as it is now."""
        first, second, third = self.norms
        query, key, value = (
            split_heads(part, self.heads) for part in self.project(first(x)).chunk(3, -1)
        )  # [R, H, n, d]
        if before is not None:
            key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self._order(query, key))
        x = x + self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))
        x = x + self.dropout(texts.apart(self._reading(texts.together(second(x)), *memory, texts)))
        return x + self.dropout(self.feedforward(third(x))), key, value

    def go_on(
        self, x: Tensor, memory: tuple[Tensor, Tensor, Tensor], texts: Texts, kept: Tensor
    ) -> Tensor:
        """``forward`` for one more place ``[R, D]`` of the texts of a ``Draft``.

        PyTorch's fused attention goes from text to text, and a text has a few places; here all
        texts are multiplied and summed together. Results are written over what is no longer
        needed: fresh memory costs as much as the arithmetic of many texts.

        Args:
            x: ``[R, D]``.
            memory: as of ``forward``.
            texts: as of ``forward``.
            kept: ``[t + 1, 2, R, D]``, keys and values; those of the last place are written.
        """
        first, second, third = self.norms
        rows, dim = x.shape
        made = self.project(first(x)).view(rows, 3, self.heads, -1)  # query, key, value
        by_head = kept.view(-1, 2, rows, self.heads, dim // self.heads)
        by_head[-1] = made[:, 1:].transpose(0, 1)
        product = by_head[:, 0] * made[:, 0]  # [t + 1, R, H, d]
        scores = product.sum(-1, keepdim=True).mul_(self.scale)
        torch.mul(scores.softmax(0), by_head[:, 1], out=product)
        x = x + self.output(product.sum(0).view(rows, dim))
        x += texts.apart(self._reading(texts.together(second(x)[:, None]), *memory, texts))[:, 0]
        widen, _, narrow = self.feedforward
        x += narrow(torch.ops.aten.gelu_(widen(third(x))))
        return x

    def _order(self, query: Tensor, key: Tensor) -> Tensor | None:
        """What a place may see of its text: bool ``[n, t + n]``; None for all."""
        new, known = query.shape[2], key.shape[2]
        if not self.causal or new == 1:
            return None
        whole = torch.ones(new, known, dtype=torch.bool, device=query.device)
        return whole.tril(known - new)

    def _reading(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor, texts: Texts) -> Tensor:
        query = split_heads(self.query(x), self.heads)  # [B, H, G n, d]
        if bias.shape[2] > 1:
            bias = bias.repeat_interleave(query.shape[2] // texts.width, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.read(mixed.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """Reads what an encoder made of histories, and writes texts of a few places about each.

    Places within a text are told apart by what the caller adds to them; how far back an event lies
    is known from a learned bias of every head for every distance.
    """

    def __init__(
        self, dim: int, heads: int, layers: int, events: int, dropout: float, *, causal: bool
    ) -> None:
        """A decoder.

        Args:
            dim: width.
            heads: of attention; ``dim`` is a multiple.
            layers: blocks.
            events: the furthest distance that is told apart from those beyond it.
            dropout: share of values set to zero in training.
            causal: whether a place sees only those before it, as in writing from left to right.
        """
        super().__init__()
        self.blocks = nn.ModuleList(
            DecoderBlock(dim, heads, events, dropout, causal=causal) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def remember(self, states: Tensor, back: Tensor) -> Memory:
        """Prepare to read histories.

        Args:
            states: ``[B, T, D]``.
            back: int64 ``[B or 1, G or 1, T]``, how many events each state lies before the place
                that each text of a history stands for; negative for what it must not see.
        """
        keys, values, biases = [], [], []
        for block in self._blocks:
            key, value = block.key_value(states).chunk(2, -1)
            keys.append(split_heads(key, block.heads))
            values.append(split_heads(value, block.heads))
            near = back.clamp(0, block.by_distance.shape[1] - 1)
            bias = block.by_distance[:, near].movedim(0, 1)  # [B or 1, H, G or 1, T]
            biases.append(bias.masked_fill((back < 0)[:, None], -torch.inf))
        return Memory(tuple(keys), tuple(values), tuple(biases))

    def forward(
        self, x: Tensor, memory: Memory, texts: Texts, before: Written | None = None
    ) -> tuple[Tensor, Written]:
        """Go on writing.

        Args:
            x: ``[R, n, D]``, the next places of every text.
            memory: of the histories.
            texts: whose they are.
            before: what was written so far; None at the beginning.

        Returns:
            ``[R, n, D]``, and what is written now.
        """
        keys, values = [], []
        for depth, block in enumerate(self._blocks):
            of_block = memory.keys[depth], memory.values[depth], memory.biases[depth]
            earlier = None if before is None else (before.keys[depth], before.values[depth])
            x, key, value = block(x, of_block, texts, earlier)
            keys.append(key)
            values.append(value)
        return self.norm(x), Written(tuple(keys), tuple(values))

    def draft(self, texts: int, places: int) -> Draft:
        """Of so many texts that nothing is written of yet, with room for so many places."""
        weight = self.norm.weight
        return Draft(weight.new_empty(places, len(self.blocks), 2, texts, len(weight)), 0)

    @torch.no_grad()
    def go_on(self, x: Tensor, memory: Memory, texts: Texts, draft: Draft) -> Tensor:
        """``forward`` for a search, of a causal decoder: one more place ``[R, D]`` to as much.

        It is written into the draft, which must have room for it.
        """
        draft.length += 1
        for depth, block in enumerate(self._blocks):
            of_block = memory.keys[depth], memory.values[depth], memory.biases[depth]
            x = block.go_on(x, of_block, texts, draft.kept[: draft.length, depth])
        return self.norm(x)

    @property
    def _blocks(self) -> list[DecoderBlock]:
        return [block for block in self.blocks if isinstance(block, DecoderBlock)]
