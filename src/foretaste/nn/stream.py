"""Blocks of one stream of tokens that texts go on from: what a history and its texts share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foretaste.nn.attention import WindowedBlock
from foretaste.nn.decoder import Texts
from foretaste.nn.key_values import split_heads


class OfBlock(NamedTuple):
    """Keys and values of one block.

    Attributes:
        key: ``[B, H, t, d]``.
        value: ``[B, H, t, d]``.
    """

    key: Tensor
    value: Tensor


class StreamBlock(WindowedBlock):
    """A causal block that can go on from a history for many texts, which share its keys."""

    def remember(self, x: Tensor) -> OfBlock:
        """Keys and values of the tokens of histories ``[B, T, D]``."""
        key, value = self.key_values(self.attention_norm(x))
        heads = self.attention.heads
        return OfBlock(split_heads(key, heads), split_heads(value, heads))

    def write(
        self, x: Tensor, history: OfBlock, back: Tensor, texts: Texts, before: OfBlock | None
    ) -> tuple[Tensor, OfBlock]:
        """One more token of every text.

        Args:
            x: ``[R, D]``.
            history: of ``B`` histories.
            back: int64 ``[B, T]``, how far each of their tokens lies before the texts' first one;
                negative for what is none.
            texts: whose they are.
            before: of the ``n`` tokens that each text has by now, ``[R, H, n, d]``; None for none.

        Returns:
            ``[R, D]``, and keys and values of the text as it is now.
        """
        attention, heads = self.attention, self.attention.heads
        normed = self.attention_norm(x)[:, None]
        query = attention.query(normed)  # [R, 1, D]
        key, value = (split_heads(part, heads) for part in self.key_values(normed))
        if before is not None:
            key, value = torch.cat([before.key, key], 2), torch.cat([before.value, value], 2)
        written = key.shape[2]
        asked = split_heads(texts.together(query), heads)  # [B, H, G, d]
        seen = asked @ history.key.transpose(2, 3) * attention.scale  # [B, H, G, T]
        distance = (back + written - 1).masked_fill(back < 0, -1)
        seen = seen + attention.bias(distance).transpose(0, 1)[:, :, None]
        of_text = texts.apart(seen.transpose(1, 2).flatten(2)).unflatten(2, (heads, -1))[:, 0]
        own = (split_heads(query, heads) @ key.transpose(2, 3))[:, :, 0] * attention.scale
        age = torch.arange(written - 1, -1, -1, device=x.device)
        own = own + attention.bias(age)  # [R, H, n + 1]
        weights = torch.cat([of_text, own], 2).softmax(2)
        of_history, of_own = weights.split([of_text.shape[2], written], 2)
        wide = texts.together(of_history.flatten(1)[:, None])  # [B, G, H T]
        wide = wide.unflatten(2, (heads, -1)).transpose(1, 2) @ history.value  # [B, H, G, d]
        mixed = texts.apart(wide.transpose(1, 2).flatten(2))  # [R, 1, D]
        mixed = mixed[:, 0] + (of_own[:, :, None] @ value).flatten(1)
        x = x + self.dropout(attention.output(mixed))
        return self._rest(x), OfBlock(key, value)


def before_the_text(tokens: int, lengths: Tensor) -> Tensor:
    """``back`` of ``StreamBlock.write`` for histories of ``lengths`` ``[B]`` tokens, right-padded.

    int64 ``[B, tokens]``.
    """
    place = torch.arange(tokens, device=lengths.device)
    back = lengths[:, None] - place
    return back.masked_fill(back <= 0, -1)
