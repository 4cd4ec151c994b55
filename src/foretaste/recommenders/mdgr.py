"""MDGR: masked-diffusion generation over parallel codes (arXiv 2601.19501).

Codes of an item stand side by side in slots (product quantisation), and a decoder that looks both
ways learns to fill any of them from any others. Its masks adapt: to how far training is (few slots
are hidden at first), and to the sample (slots whose code the history does not show are hidden
rather). An answer takes two stages: a few slots are filled one at a time, then all the rest at
once, by scoring every item that agrees with them.

The paper's mask schedule and decoder are not public. The forms here are ours, after its siblings
DiffGRM (arXiv 2510.21805) and LLaDA-Rec (2511.06254); the exact last stage replaces their filtering
of the likeliest combinations. Ours too is that hidden slots are taught together: the item, among
all that agree with the slots that are known (``normalise = "catalog"``). Slots on their own, as in
the siblings (``"codes"``), give most probability to combinations that no item has. What is taught
as an item needs no second look: its probability given some slots follows from that of all. So by
default all slots are filled at once; ``benchmarks/mdgr_known.py`` has both forms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.codes.beam import FoundItems
from foretaste.codes.opq import OPQConfig
from foretaste.codes.parallel import FREE, Hidden, SlotIndex
from foretaste.codes.table import Codes
from foretaste.nn.decoder import Memory, Texts
from foretaste.nn.losses import linear_cross_entropy
from foretaste.recommenders.core.code_network import ReadingNetwork
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.core.generator import Asked, Generator
from foretaste.recommenders.core.generator_config import GeneratorConfig


class MDGRConfig(GeneratorConfig):
    """Of MDGR.

    Attributes:
        warm_up: slots that are filled one at a time before the rest; 0 fills all at once, as many
            as there are slots is serial decoding.
        warm_beams: partly filled texts that are followed for each query. The last stage looks at
            every item that agrees with one of them; there are more when they would not lead to
            twice as many items as are wanted.
        known_weight: what the vectors of slots, known or hidden, are multiplied by before the
            history's state is added to them. At 1 that state, some thirty times as long, drowns
            them, which costs nothing where slots are taught together; with ``normalise = "codes"``
            the decoder learns at 8 what codes say of each other.
        curriculum: epochs in which more and more slots are hidden, at most half of them in the
            first, and at most half of ``train.epochs``; 0 hides any number from the beginning. What
            is asked later begins with all slots hidden, so early stopping must come after it
            (``train.min_epochs``).
        whole: share of the masks that hide all slots once the curriculum is over, besides those
            that do so by chance.
        adaptive: how strongly slots are hidden whose codes the history does not show: the weight of
            a slot is exp(adaptive * share of the history with another code); 0 draws evenly.
        views: masks drawn for each event and epoch.
    """

    codes: CodingConfig = CodingConfig(tokenizer=OPQConfig(levels=8))
    warm_up: int = Field(default=0, ge=0)
    warm_beams: int = Field(default=32, ge=1)
    known_weight: float = Field(default=1.0, gt=0)
    curriculum: int = Field(default=5, ge=0)
    whole: float = Field(default=0.5, ge=0, le=1)
    adaptive: float = Field(default=2.0, ge=0)
    views: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _warm_up_fits(self) -> MDGRConfig:
        slots = self.codes.tokenizer.code_levels
        if self.codes_from is None and self.warm_up > slots:
            raise ValueError(f"warm_up = {self.warm_up} is more than the {slots} slots")
        return self


class Begun(NamedTuple):
    """Histories that are being written about: their memory, and ``[B, D]`` to begin with."""

    memory: Memory
    begin: Tensor


class Said(NamedTuple):
    """What a network says of ``R`` texts.

    Attributes:
        logits: ``[R, L, K]`` of every code in every slot; their sum over the free slots scores an
            item.
        total: ``[R]``, what to take off such a score to make it a log-probability.
    """

    logits: Tensor
    total: Tensor


class MDGRNetwork(ReadingNetwork):
    """Fills hidden slots knowing the others and the history."""

    config: MDGRConfig

    def __init__(self, codes: Codes, config: MDGRConfig) -> None:
        """A network for a catalog with these codes."""
        super().__init__(config, codes, causal=False)
        self.hidden = nn.Parameter(torch.randn(self.codes.levels, config.dim) * 0.02)
        self.slot = nn.Parameter(torch.randn(self.codes.levels, config.dim) * 0.02)
        self._catalog: SlotIndex | None = None
        if config.normalise == "catalog":
            self._catalog = SlotIndex.from_table(codes.table, max(codes.sizes))

    @property
    def catalog(self) -> SlotIndex | None:
        """All items, among which probabilities add up to 1; None where slots are on their own."""
        if self._catalog is not None and self._catalog.device != self.slot.device:
            self._catalog = self._catalog.to(self.slot.device)
        return self._catalog

    @property
    def vocabulary(self) -> int:
        """See ``CodeNetwork``: all items, where probabilities add up to 1 over these."""
        return super().vocabulary if self._catalog is None else len(self._catalog)

    def loss(self, items: Tensor, targets: Tensor, progress: float, half: bool = False) -> Tensor:
        """See ``CodeNetwork``: of items; or of slots, the mean of the hidden ones times all."""
        views = self.config.views
        goals = targets.clamp_min(0).repeat_interleave(views, 1)  # [B, P V]
        masks = self.masks(items, goals, progress)  # [B, P V, L]
        reading = self.read(items)
        memory, texts = self.memory_of_all(reading, views)
        begin = reading.events.repeat_interleave(views, 1).flatten(0, 1)  # [B P V, D]
        goals, masks = goals.flatten(), masks.flatten(0, 1)
        codes = self.codes.codes_of(goals).masked_fill(masks, FREE)
        hidden = self.fill(codes, begin, memory, texts)
        real = (targets.repeat_interleave(views, 1).flatten() >= 0).nonzero().squeeze(1)
        hidden, goals, masks = hidden[real], goals[real], masks[real]
        if self.catalog is not None:
            return self._of_items(hidden, goals, codes[real], self.catalog, half) / views
        losses = self.codes.losses(hidden, goals, self.config.smoothing)  # [n, L]
        asked = masks.float()
        return (losses * asked / asked.mean(1, keepdim=True)).sum() / views

    def _of_items(
        self, hidden: Tensor, goals: Tensor, fixed: Tensor, catalog: SlotIndex, half: bool
    ) -> Tensor:
        """The summed cross-entropy of items int64 ``[n]`` among those that agree with ``fixed``."""
        whole, every = (fixed == FREE).all(1), self.codes.of_catalog()  # [n], [N, L D]
        loss = linear_cross_entropy(hidden[whole].flatten(1), every, goals[whole], half=half)
        fixed = fixed[~whole]
        if not len(fixed):
            return loss
        logits = self.codes.all_logits(hidden[~whole])  # [m, L, K]
        right = self.codes.codes_of(goals[~whole])[..., None]
        wanted = logits.gather(2, right).squeeze(2).masked_fill(fixed != FREE, 0).sum(1)
        return loss + (catalog.totals(fixed, logits) - wanted).sum()

    def likelihood(self, items: Tensor, lengths: Tensor, goals: Tensor) -> Tensor:
        """See ``CodeNetwork``: of all slots at once."""
        begun = Begun(*self.memory_of_last(self.read(items), lengths))
        codes = self.codes.codes_of(goals)  # [B, L]
        hidden = torch.full_like(codes, FREE)
        said = self.say(hidden, torch.arange(len(goals), device=goals.device), begun)
        return said.logits.gather(2, codes[..., None]).sum((1, 2)) - said.total

    def masks(self, items: Tensor, goals: Tensor, progress: float) -> Tensor:
        """Which slots are hidden, bool ``[B, P V, L]``: at least one of each goal.

        Args:
            items: int64 ``[B, P]``.
            goals: int64 ``[B, P V]``, ``V`` for each event.
            progress: share of the training that is done.
        """
        slots = self.codes.levels
        epochs = self.config.train.epochs
        curriculum = min(self.config.curriculum, epochs / 2)  # what is asked must be trained too
        learnt = min(1.0, progress * epochs / curriculum) if curriculum else 1.0
        first = math.ceil(slots / 2)
        most = first + math.floor((slots - first) * learnt)
        count = 1 + (torch.rand(goals.shape, device=goals.device) * most).long()
        if learnt == 1:
            whole = torch.rand(goals.shape, device=goals.device) < self.config.whole
            count = count.masked_fill(whole, slots)
        noise = -torch.empty(*goals.shape, slots, device=goals.device).exponential_().log()
        if self.config.adaptive:
            noise += self.config.adaptive * (1 - self.overlap(items, goals))
        # The largest of weight + Gumbel noise are a draw without replacement by exp(weight).
        rank = noise.argsort(-1, descending=True).argsort(-1)
        return rank < count[..., None]

    def overlap(self, items: Tensor, goals: Tensor) -> Tensor:
        """The share of a goal's history that has its code, for each slot: ``[B, P V, L]``."""
        shown, asked = self.codes.numbers[items], self.codes.numbers[goals]
        views = goals.shape[1] // items.shape[1]
        place = torch.arange(items.shape[1], device=items.device)
        before = place <= place.repeat_interleave(views)[:, None]  # [P V, P]
        same = (asked[:, :, None] == shown[:, None]) & before[..., None]  # [B, P V, P, L]
        return same.sum(2) / before.sum(1)[:, None]

    def fill(self, codes: Tensor, begin: Tensor, memory: Memory, texts: Texts) -> Tensor:
        """Hidden vectors ``[R, L, D]`` of the slots of codes int64 ``[R, L]``, some ``FREE``."""
        numbers = codes.clamp_min(0) + self.codes.firsts
        x = torch.where((codes == FREE)[..., None], self.hidden, self.codes.vectors(numbers))
        x = self.dropout((x + self.slot) * self.config.known_weight + begin[:, None])
        return self.decoder(x, memory, texts)[0]

    def logits(self, fixed: Tensor, of: Tensor, begun: Begun) -> Tensor:
        """Of every code in every slot, ``[R, L, K]``, each slot's as it is alone.

        Args:
            fixed: int64 ``[R, L]``, texts.
            of: int64 ``[R]``, the histories that they are about.
            begun: of these.
        """
        texts = Texts(of, len(begun.begin))
        return self.codes.all_logits(self.fill(fixed, begun.begin[of], begun.memory, texts))

    def say(self, fixed: Tensor, of: Tensor, begun: Begun) -> Said:
        """Of what agrees with texts; arguments as for ``logits``."""
        logits = self.logits(fixed, of, begun)
        if self.catalog is None:
            return Said(logits.log_softmax(-1), logits.new_zeros(len(of)))
        return Said(logits, self.catalog.totals(fixed, logits))

    def log_probs(self, fixed: Tensor, said: Said) -> Tensor:
        """Of every code in every free slot, whatever is in the others: ``[R, L, K]``."""
        if self.catalog is None:
            return said.logits
        return self.catalog.marginals(fixed, said.logits, said.total)


class MDGR(Generator):
    """Fills slots: the surest first, then the rest at once."""

    name = "mdgr"
    Config = MDGRConfig

    def _network(self, codes: Codes) -> MDGRNetwork:
        return MDGRNetwork(codes, self.config)

    def _index(self, table: np.ndarray) -> SlotIndex:
        return SlotIndex.from_table(table, max(self.codes.sizes))

    def _whole_index(self) -> SlotIndex:
        assert isinstance(self.network, MDGRNetwork)
        return self.network.catalog or super()._whole_index()

    def _search(self, asked: Asked, index: SlotIndex) -> FoundItems:
        network = self.network
        assert isinstance(network, MDGRNetwork)
        memory, begin = network.memory_of_last(network.read(asked.items), asked.lengths)
        begun, count = Begun(memory, begin), len(asked.items)
        beams = Beams.start(count, index)
        unwanted = None if asked.hidden is None else index.pairs(asked.hidden)
        if not self.config.warm_up and index is network.catalog:
            logits = network.logits(beams.fixed, beams.of, begun)
            return index.top_items(logits, asked.depth, hidden=asked.hidden, normalise=True)
        for filled in range(min(self.config.warm_up, index.slots)):
            said = network.say(beams.fixed, beams.of, begun)
            log_probs = network.log_probs(beams.fixed, said)
            width = self._width(filled + 1, asked.depth, index)
            beams = beams.advance(log_probs, index, width, unwanted, self._searched(None)[0])
            if not len(beams.of):  # nothing is wanted of any
                none = torch.full((count, asked.depth), -1, device=begin.device)
                return FoundItems(none, torch.full(none.shape, -torch.inf, device=begin.device))
        if bool((beams.fixed != FREE).all()):
            logits = torch.zeros(len(beams.of), index.slots, index.size, device=begin.device)
            said = Said(logits, torch.zeros_like(beams.scores))
        else:
            said = network.say(beams.fixed, beams.of, begun)
        if not self.config.warm_up:
            found = index.top_items(said.logits, asked.depth, hidden=asked.hidden)
            return found._replace(log_probs=found.log_probs - said.total[:, None])
        start = beams.scores - said.total
        return index.top_agreeing(
            beams.fixed, start, said.logits, beams.of, count, asked.depth, hidden=asked.hidden
        )

    def _width(self, filled: int, depth: int, index: SlotIndex) -> int:
        """Beams that lead to enough items when so many slots are filled."""
        items_of_beam = max(1.0, len(index) / index.size**filled)
        return max(self.config.warm_beams, min(depth, math.ceil(2 * depth / items_of_beam)))


class Beams(NamedTuple):
    """Partly filled slots of ``B`` queries; ``R`` of them in the order of the queries.

    Attributes:
        fixed: int64 ``[R, L]``, codes, ``FREE`` where none is chosen yet.
        scores: ``[R]``, log-probability of what is chosen.
        of: int64 ``[R]``, the query.
    """

    fixed: Tensor
    scores: Tensor
    of: Tensor

    @classmethod
    def start(cls, count: int, index: SlotIndex) -> Beams:
        """Nothing is chosen."""
        device = index.device
        fixed = torch.full((count, index.slots), FREE, device=device)
        return cls(fixed, torch.zeros(count, device=device), torch.arange(count, device=device))

    def advance(
        self,
        log_probs: Tensor,
        index: SlotIndex,
        width: int,
        unwanted: Tensor | None = None,
        whole: SlotIndex | None = None,
    ) -> Beams:
        """One more slot of each: the one the model is surest of. The best ``width`` go on.

        Beams of a query never become equal: they differ in the slot that was filled first, which
        is the same slot for all of them. What leads to ``unwanted`` items alone (``index.pairs`` of
        queries) takes no room; it changes neither the slot nor a score, and neither does it that
        ``index`` is of a part of the ``whole`` catalog.
        """
        legal = index.allowed(self.fixed)  # [R, L, K]
        among = legal if whole is None or whole is index else whole.allowed(self.fixed)
        sure = log_probs[..., : index.size].masked_fill(~among, -torch.inf).amax(-1)
        slot = sure.masked_fill(self.fixed != FREE, -torch.inf).argmax(1)  # [R]
        log_probs = log_probs[..., : index.size].masked_fill(~legal, -torch.inf)
        rows = torch.arange(len(slot), device=slot.device)
        gained = self.scores[:, None] + log_probs[rows, slot]  # [R, K]
        if unwanted is not None:
            wanted = index.allowed(self.fixed, Hidden(unwanted, self.of))[rows, slot]
            gained = gained.masked_fill(~wanted, -torch.inf)
        texts = Texts(self.of, int(self.of[-1]) + 1)
        wide = gained.new_full((texts.histories, texts.width, gained.shape[1]), -torch.inf)
        wide[texts.of, texts.place] = gained
        best = wide.flatten(1).topk(min(width, wide[0].numel()), dim=1)
        of, place = best.values.isfinite().nonzero(as_tuple=True)
        chosen = best.indices[of, place]
        row = torch.zeros(wide.shape[:2], dtype=torch.int64, device=slot.device)
        row[texts.of, texts.place] = rows
        row = row[of, chosen // gained.shape[1]]
        fixed = self.fixed[row]
        fixed[torch.arange(len(row), device=row.device), slot[row]] = chosen % gained.shape[1]
        return Beams(fixed, best.values[of, place], of)
