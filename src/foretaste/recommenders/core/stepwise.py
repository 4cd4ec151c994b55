"""Probabilities of an item's codes, one after the other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from foretaste.codes.beam import Step
from foretaste.codes.table import Codes
from foretaste.codes.trie import Trie
from foretaste.nn.code_embedding import CodeEmbedding, only
from foretaste.recommenders.core.generator_config import GeneratorConfig


class Stepwise:
    """What writes codes from left to right loses, and says of the next code.

    Where ``normalise`` is ``catalog``, a code that leads to no item gets no probability: the
    probabilities of all items add up to 1.
    """

    def __init__(self, config: GeneratorConfig, codes: Codes, vectors: CodeEmbedding) -> None:
        """``vectors`` of ``codes``."""
        self.config, self.vectors = config, vectors
        self.following = Following(codes.table) if config.normalise == "catalog" else None

    def losses(self, hidden: Tensor, goals: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropies ``[n, L]`` of writing items int64 ``[n]`` from hidden ``[n, L, D]``."""
        among = None
        if self.following is not None:
            among = self.following.to(goals.device).of_items(goals)
        return self.vectors.losses(hidden, goals, smoothing, among)

    def logits(self, step: Step, hidden: Tensor) -> Tensor:
        """Logits ``[R, K]`` of the next code, from hidden ``[R, D]``."""
        found = self.vectors.logits(step.level, hidden)
        if self.following is None:
            return found
        return only(found, *self.following.to(found.device).of_prefixes(step.tokens))

    def sure_of(self, trie: Trie) -> Tensor | None:
        """The nodes of a trie that only one item is below, bool ``[nodes]``.

        All probability goes to that item's codes, whatever is written. None where codes that lead
        to no item share in it, and for a trie of some of the items, in which an only item may be
        one of several in the catalog.
        """
        following = self.following
        return None if following is None or trie is not following.trie else following.alone


class Following:
    """What may follow a prefix, in a whole catalog.

    Attributes:
        trie: of its items.
        alone: bool ``[nodes]``, the inner nodes that one item is below.
    """

    def __init__(self, table: np.ndarray) -> None:
        """``table`` int ``[N, L]``, the codes of its items."""
        self.trie = Trie.from_table(table)
        states = [self.trie.start(len(table))]
        for level in range(table.shape[1] - 1):
            codes = torch.from_numpy(table[:, level].astype(np.int64))
            states.append(self.trie.step(states[-1], codes))
        self.states = torch.stack(states, 1).int()  # [N, L]
        self.alone = self.states.flatten().bincount(minlength=self.trie.nodes) == 1

    def to(self, device: torch.device) -> Following:
        """Brings its arrays to a device."""
        if self.states.device != device:
            self.trie, self.states = self.trie.to(device), self.states.to(device)
            self.alone = self.alone.to(device)
        return self

    def of_items(self, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each level the pairs (row, code) that may follow what items ``[n]`` have before."""
        states = self.states[items].long()
        return [self.trie.allowed(states[:, level]) for level in range(states.shape[1])]

    def of_prefixes(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs (row, code) that may follow prefixes int64 ``[R, level]``."""
        states = self.trie.start(len(tokens))
        for level in range(tokens.shape[1]):
            states = self.trie.step(states, tokens[:, level])
        return self.trie.allowed(states)
