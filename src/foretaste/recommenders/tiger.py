"""TIGER: the next item's semantic ID, written code by code (Rajput et al., NeurIPS 2023).

Of the paper it keeps residual codes of item text, a decoder that writes from left to right, and
beam search. An event is read as one vector of its codes, or (``reads = "codes"``) as all of them,
as in the paper. Unlike the paper's T5 the encoder looks back only, so that one pass over a window
trains the writing after each of its events, and searching never leaves the catalog. The variant
without a decoder is one stack over one stream of codes, whose texts go on where the history ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn

from foretaste.codes.beam import FoundItems, Step, beam_search
from foretaste.codes.table import Codes
from foretaste.codes.trie import Trie
from foretaste.nn.decoder import Draft, Memory, Texts
from foretaste.nn.initialising import small_normal
from foretaste.recommenders.core.code_network import CodeNetwork, ReadingNetwork, Taught
from foretaste.recommenders.core.code_stream import CodeStream
from foretaste.recommenders.core.generator import Asked, Generator
from foretaste.recommenders.core.generator_config import GeneratorConfig
from foretaste.recommenders.core.stepwise import Stepwise


class TIGERConfig(GeneratorConfig):
    """Of TIGER.

    Attributes:
        architecture: an encoder reads and a decoder writes, or a decoder alone of as many blocks as
            both, for which the next item's codes are the next tokens of the history.
    """

    architecture: Literal["encoder-decoder", "decoder-only"] = "encoder-decoder"

    @model_validator(mode="before")
    @classmethod
    def _reads_what_it_writes(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("architecture") != "decoder-only":
            return given
        if given.get("reads", "codes") != "codes":
            raise ValueError('architecture = "decoder-only" reads codes: leave reads out')
        return given | {"reads": "codes"}


class Writer(Protocol):
    """A network that writes codes step by step.

    Attributes:
        stepwise: its probabilities, and what may follow a prefix.
    """

    stepwise: Stepwise

    def ask(self, items: Tensor, lengths: Tensor) -> Any:
        """Begin to write about histories int64 ``[B, P]``, right-padded; what ``write`` is given.

        ``lengths`` int64 ``[B]``.
        """
        ...

    def write(self, step: Step, asking: Any) -> Tensor:
        """Logits ``[R, K]`` of the next code after each prefix; ``asking`` is brought forward."""
        ...


@dataclass
class Asking:
    """Histories that are being written about.

    Attributes:
        memory: of the histories.
        begin: ``[B, D]``, what texts begin with.
        draft: of what is written by now; every step goes on from it.
        thoughts: ``[R, D]`` of each level, of a network that has thoughts, at its last step.
    """

    memory: Memory
    begin: Tensor
    draft: Draft | None = None
    thoughts: dict[int, Tensor] = field(default_factory=dict)


class TIGERNetwork(ReadingNetwork):
    """Writes each code knowing those before it."""

    def __init__(self, codes: Codes, config: GeneratorConfig) -> None:
        """A network for a catalog with these codes."""
        super().__init__(config, codes, causal=True)
        self.place = nn.Embedding(self.codes.levels, config.dim)  # which code comes next
        self.place.apply(small_normal)
        self.stepwise = Stepwise(config, codes, self.codes)

    def loss(self, items: Tensor, targets: Tensor, progress: float, half: bool = False) -> Tensor:
        """See ``CodeNetwork``."""
        del progress, half
        reading = self.read(items)
        goals = targets.flatten().clamp_min(0)  # [B P]
        real = (targets.flatten() >= 0).nonzero().squeeze(1)
        taught = self.teach(reading.events.flatten(0, 1), goals, *self.memory_of_all(reading))
        return self.stepwise.losses(taught.hidden[real], goals[real], self.config.smoothing).sum()

    def likelihood(self, items: Tensor, lengths: Tensor, goals: Tensor) -> Tensor:
        """See ``CodeNetwork``."""
        memory, begin = self.memory_of_last(self.read(items), lengths)
        texts = Texts(torch.arange(len(goals), device=goals.device), len(goals))
        hidden = self.teach(begin, goals, memory, texts).hidden
        return -self.stepwise.losses(hidden, goals).sum(1)

    def ask(self, items: Tensor, lengths: Tensor) -> Asking:
        """See ``Writer``."""
        return Asking(*self.memory_of_last(self.read(items), lengths))

    def teach(self, begin: Tensor, goals: Tensor, memory: Memory, texts: Texts) -> Taught:
        """Write the right codes.

        Args:
            begin: ``[R, D]``, what texts begin with.
            goals: int64 ``[R]``, the items to write.
            memory: of the histories.
            texts: whose they are.
        """
        written = self.codes.of_items(goals)[:, :-1]  # [R, L - 1, D]
        x = self.dropout(torch.cat([begin[:, None], written], 1) + self.place.weight)
        return Taught(self.decoder(x, memory, texts)[0])

    def write(self, step: Step, asking: Asking) -> Tensor:
        """See ``Writer``; a step without parents writes its whole prefix again."""
        if step.level and step.parents is None:
            rows = torch.arange(len(step.queries), device=step.queries.device)
            for level in range(step.level):
                parents = rows if level else None
                self.write(Step(level, step.queries, step.tokens[:, :level], parents), asking)
            step = step._replace(parents=rows)
        return self.stepwise.logits(step, self.go_on(step, asking))

    def go_on(self, step: Step, asking: Asking) -> Tensor:
        """The hidden vectors ``[R, D]`` that write the next codes."""
        texts = Texts(step.queries, len(asking.begin))
        x, draft = self.next_input(step, asking, 1)
        return self.decoder.go_on(x, asking.memory, texts, draft)

    def next_input(self, step: Step, asking: Asking, places: int) -> tuple[Tensor, Draft]:
        """What the decoder is fed at a step, ``[R, D]``, and what it goes on from.

        The draft follows the beams, and has room for so many more places.
        """
        if step.parents is None:
            asking.draft = self.decoder.draft(len(step.queries), places)
            x = asking.begin[step.queries]
        else:
            assert asking.draft is not None
            asking.draft = asking.draft.follow(step.parents, places)
            x = self.codes.of_codes(step.level - 1, step.tokens[:, -1])
        return x + self.place.weight[step.level], asking.draft


class TIGER(Generator):
    """Writes codes from left to right."""

    name = "tiger"
    Config = TIGERConfig

    def _network(self, codes: Codes) -> CodeNetwork:
        if self.config.architecture == "decoder-only":
            return CodeStream(codes, self.config)
        return TIGERNetwork(codes, self.config)

    @property
    def writer(self) -> Writer:
        """The network, which is of one of two kinds."""
        assert isinstance(self.network, TIGERNetwork | CodeStream)
        return self.network

    def _index(self, table: np.ndarray) -> Trie:
        return Trie.from_table(table)

    def _whole_index(self) -> Trie:
        following = self.writer.stepwise.following
        if following is None:
            return super()._whole_index()
        return following.to(self.network.codes.numbers.device).trie

    def _search(self, asked: Asked, index: Trie) -> FoundItems:
        network = self.writer
        asking = network.ask(asked.items, asked.lengths)
        return beam_search(
            lambda step: network.write(step, asking),
            index,
            len(asked.items),
            asked.depth,
            hidden=asked.hidden,
            sure=network.stepwise.sure_of(index),
        )
