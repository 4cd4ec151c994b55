"""A generator's network without an encoder: histories and next items are one stream of codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foretaste.codes.beam import Step
from foretaste.codes.table import Codes
from foretaste.nn.decoder import Texts
from foretaste.nn.initialising import small_normal
from foretaste.nn.key_values import FullKeyValues
from foretaste.nn.stream import OfBlock, StreamBlock, before_the_text
from foretaste.recommenders.core.code_network import CodeNetwork
from foretaste.recommenders.core.generator_config import GeneratorConfig
from foretaste.recommenders.core.stepwise import Stepwise


@dataclass
class StreamAsking:
    """Histories that are being gone on from.

    Attributes:
        histories: of their tokens, block by block.
        back: int64 ``[B, T]``, how far their tokens lie before the first one to be written.
        first: ``[B, D]``, what writes the first code.
        written: of the texts by now, block by block; None before the second code.
    """

    histories: list[OfBlock]
    back: Tensor
    first: Tensor
    written: list[OfBlock] | None = None


class CodeStream(CodeNetwork):
    """Writes every code of a history knowing all before it, those of the next item too."""

    def __init__(self, codes: Codes, config: GeneratorConfig) -> None:
        """As many blocks as an encoder and a decoder would have together."""
        super().__init__(config, codes)
        dim, heads, levels = config.dim, config.heads, self.codes.levels
        window = (config.max_length + 1) * levels
        blocks = [
            StreamBlock(
                dim, heads, window, config.dropout, FullKeyValues(dim, heads, nn.Identity())
            )
            for _ in range(config.layers + config.decoder_layers)
        ]
        for block in blocks:
            block.attention.begin_falling(levels)
        self.blocks = nn.ModuleList(blocks)
        self.apply(small_normal)
        self.stepwise = Stepwise(config, codes, self.codes)

    def loss(self, items: Tensor, targets: Tensor, progress: float, half: bool = False) -> Tensor:
        """See ``CodeNetwork``."""
        del progress, half
        real = targets >= 0
        following = torch.cat([items[:, 1:], torch.zeros_like(items[:, :1])], 1)
        following = torch.where(real, targets, following)  # an event may ask for nothing
        hidden = self.writing(torch.cat([items[:, :1], following], 1))[real]  # [n, L, D]
        return self.stepwise.losses(hidden, targets[real], self.config.smoothing).sum()

    def likelihood(self, items: Tensor, lengths: Tensor, goals: Tensor) -> Tensor:
        """See ``CodeNetwork``."""
        rows = torch.arange(len(goals), device=goals.device)
        events = torch.cat([items, torch.zeros_like(items[:, :1])], 1)
        events[rows, lengths] = goals
        return -self.stepwise.losses(self.writing(events)[rows, lengths - 1], goals).sum(1)

    def writing(self, items: Tensor) -> Tensor:
        """What writes the codes of every item but the first, ``[B, P - 1, L, D]``.

        ``items`` int64 ``[B, P]``.
        """
        states, levels = self.norm(self._through(items)), self.codes.levels
        return states[:, levels - 1 : -1].unflatten(1, (-1, levels))

    def ask(self, items: Tensor, lengths: Tensor) -> StreamAsking:
        """See ``Writer``."""
        histories: list[OfBlock] = []
        states = self._through(items, histories)
        tokens = lengths * self.codes.levels
        rows = torch.arange(len(lengths), device=lengths.device)
        first = self.norm(states[rows, tokens - 1])
        return StreamAsking(histories, before_the_text(states.shape[1], tokens), first)

    def write(self, step: Step, asking: StreamAsking) -> Tensor:
        """See ``Writer``; a step without parents writes its whole prefix again."""
        if not step.level:
            asking.written = None
            return self.stepwise.logits(step, asking.first[step.queries])
        texts = Texts(step.queries, len(asking.first))
        if step.parents is None:
            asking.written = None
        elif asking.written is not None:
            asking.written = [
                OfBlock(one.key[step.parents], one.value[step.parents]) for one in asking.written
            ]
        hidden = asking.first
        for level in range(step.level - 1 if asking.written else 0, step.level):
            x = self.codes.of_codes(level, step.tokens[:, level]) + self.level.weight[level]
            hidden = self._go_on(x, asking, texts)
        return self.stepwise.logits(step, hidden)

    def _go_on(self, x: Tensor, asking: StreamAsking, texts: Texts) -> Tensor:
        """One more code of every text, ``[R, D]``; to what writes the code after it."""
        written = []
        for depth, block in enumerate(self._blocks):
            before = asking.written[depth] if asking.written else None
            x, now = block.write(x, asking.histories[depth], asking.back, texts, before)
            written.append(now)
        asking.written = written
        return self.norm(x)

    def _through(self, items: Tensor, kept: list[OfBlock] | None = None) -> Tensor:
        """Items int64 ``[B, P]`` through all blocks: ``[B, P L, D]``; ``kept`` takes their keys."""
        x = self.codes.of_items(items) + self.level.weight
        x = self.dropout(x.flatten(1, 2))
        for block in self._blocks:
            if kept is not None:
                kept.append(block.remember(x))
            x = block(x)
        return x

    @property
    def _blocks(self) -> list[StreamBlock]:
        return [block for block in self.blocks if isinstance(block, StreamBlock)]
