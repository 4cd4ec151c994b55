"""S2GR: a thought before every code, taught by clusters of codes (arXiv 2601.18664, KDD 2026).

Before it writes a code, the decoder writes a *thought*: a vector that is fed back to it, and that
must point at the cluster of codes to which the right code belongs. The first thought is drawn to
what a lighter decoder makes of the history alone. Codes come from the balanced, co-occurrence-aware
codebook (``coba``).

The paper's code is not public and several of its constants are unknown; where it leaves the form
open (the space in which thoughts and clusters meet, first of all) ours is stated below.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from foretaste.codes.beam import Step
from foretaste.codes.coba import CoBaConfig
from foretaste.codes.kmeans import kmeans
from foretaste.codes.table import Codes
from foretaste.nn.decoder import Decoder, Memory, Texts
from foretaste.nn.initialising import small_normal
from foretaste.recommenders.core.code_network import Reading, Taught
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.core.explaining import Describer
from foretaste.recommenders.core.generator_config import GeneratorConfig
from foretaste.recommenders.tiger import TIGER, Asking, TIGERNetwork


class S2GRConfig(GeneratorConfig):
    """Of S2GR.

    Attributes:
        thinking: ``stepwise``, a thought before each code; ``first``, all thoughts before the first
            code; ``blank``, a learned constant in place of each thought, the control that takes as
            much computing and says nothing.
        clusters: of the codes of a level; a thought is taught which one comes.
        align: weight of the teaching.
        fade: epochs over which that weight falls to nothing, evenly; 0 keeps it, as the paper does.
            Validation preferred 25 on two sets, and 0 on a third.
        temperature: of the softmax over clusters and over goals, those of a batch or, where several
            processes share it, of one part.
        contrast: weight of teaching the lighter decoder the next item's codes.
        regularise: weight of drawing the first thought to the lighter decoder.
        shuffled: whether codes are dealt to clusters at random: a control.
    """

    codes: CodingConfig = CodingConfig(tokenizer=CoBaConfig())
    thinking: Literal["stepwise", "first", "blank"] = "stepwise"
    clusters: int = Field(default=16, ge=2)
    align: float = Field(default=1.0, ge=0)
    fade: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.1, gt=0)
    contrast: float = Field(default=1.0, ge=0)
    regularise: float = Field(default=0.1, ge=0)
    shuffled: bool = False


class S2GRNetwork(TIGERNetwork):
    """TIGER's network, with a thought before each code.

    A thought meets the clusters in the space of the codebook: a linear layer for each level brings
    it there, and the clusters' centres, found by k-means among the level's code vectors, stay where
    they are.
    """

    config: S2GRConfig

    def __init__(self, codes: Codes, config: S2GRConfig) -> None:
        """A network for a catalog with these codes."""
        super().__init__(codes, config)
        dim = config.dim
        self.thought = nn.Embedding(self.codes.levels, dim)  # added to the thought of each level
        blank = nn.Embedding(self.codes.levels, dim)
        layers = max(1, config.decoder_layers // 2)
        light = Decoder(dim, config.heads, layers, config.max_length, config.dropout, causal=True)
        pointing = nn.ModuleList(
            nn.Linear(dim, book.shape[1], bias=False) for book in codes.codebooks
        )
        for part in (self.thought, blank, light, pointing):
            part.apply(small_normal)
        # All are drawn, so that controls begin with the same weights; only what is trained stays,
        # since processes that train together wait for the gradient of every weight there is.
        thinks = config.thinking != "blank"
        if not thinks:
            self.blank = blank
        if thinks and (config.contrast or config.regularise):
            self.light = light.requires_grad_(config.contrast > 0)
        self.pointing = pointing if thinks and config.align else nn.ModuleList()
        for level, book in enumerate(codes.codebooks):
            centres, clusters = clusters_of(book, config.clusters, level)
            if config.shuffled:
                order = torch.randperm(
                    len(clusters), generator=torch.Generator().manual_seed(level)
                )
                clusters = clusters[order]
            self.register_buffer(f"centres_{level}", centres, persistent=False)
            self.register_buffer(f"clusters_{level}", clusters, persistent=False)

    @property
    def taught(self) -> int:
        """Levels whose thoughts are taught; what only tells collisions apart has no clusters.

        0 where ``align`` is 0 or there are no thoughts.
        """
        return len(self.pointing)

    def loss(self, items: Tensor, targets: Tensor, progress: float, half: bool = False) -> Tensor:
        """See ``CodeNetwork``."""
        del half
        reading = self.read(items)
        goals = targets.flatten().clamp_min(0)  # [B P]
        real = (targets.flatten() >= 0).nonzero().squeeze(1)
        taught = self.teach(reading.events.flatten(0, 1), goals, *self.memory_of_all(reading))
        loss = self.stepwise.losses(taught.hidden[real], goals[real], self.config.smoothing).sum()
        if self.config.thinking == "blank":
            return loss
        assert taught.thoughts is not None
        thoughts = taught.thoughts[real]  # [n, L, D]
        if self.config.align:
            loss = loss + self._align(progress) * self.alignment(thoughts, goals[real]).sum()
        if self.config.contrast or self.config.regularise:
            loss = loss + self._whole(reading, thoughts[:, 0], goals[real], real)
        return loss

    def teach(self, begin: Tensor, goals: Tensor, memory: Memory, texts: Texts) -> Taught:
        """See ``TIGERNetwork``; its thoughts are its own."""
        levels = self.codes.levels
        codes = self.codes.of_items(goals) + self.place.weight.roll(-1, 0)  # [R, L, D]
        if self.config.thinking == "blank":
            blanks = (self.blank.weight + self.thought.weight).expand(len(goals), -1, -1)
            # b1 s1 b2 s2 .. bL; no dropout on what stands for a thought, as thoughts have none
            pairs = torch.stack([blanks, self.dropout(codes)], 2).flatten(1, 2)[:, :-1]
            x = torch.cat([self._first(begin)[:, None], pairs], 1)
            hidden, _ = self.decoder(x, memory, texts)
            return Taught(hidden[:, 1::2], blanks)
        out, written = self.decoder(self._first(begin)[:, None], memory, texts)
        thoughts, hidden = [], []
        if self.config.thinking == "first":
            for level in range(levels - 1):
                thoughts.append(out[:, -1] + self.thought.weight[level])
                out, written = self.decoder(thoughts[-1][:, None], memory, texts, written)
            thoughts.append(out[:, -1] + self.thought.weight[-1])
            x = torch.cat([thoughts[-1][:, None], self.dropout(codes[:, :-1])], 1)
            out, _ = self.decoder(x, memory, texts, written)
            return Taught(out, torch.stack(thoughts, 1))
        for level in range(levels):
            thoughts.append(out[:, -1] + self.thought.weight[level])
            parts = [thoughts[-1], self.dropout(codes[:, level])][: 1 if level == levels - 1 else 2]
            out, written = self.decoder(torch.stack(parts, 1), memory, texts, written)
            hidden.append(out[:, 0])
        return Taught(torch.stack(hidden, 1), torch.stack(thoughts, 1))

    def go_on(self, step: Step, asking: Asking) -> Tensor:
        """See ``TIGERNetwork``."""
        texts, level = Texts(step.queries, len(asking.begin)), step.level
        thoughts = self._thoughts_at(level)
        x, draft = self.next_input(step, asking, 1 + len(thoughts))
        hidden = self.decoder.go_on(x, asking.memory, texts, draft)
        for thought in thoughts:
            blank = self.config.thinking == "blank"
            x = self.blank.weight[thought].expand_as(x) if blank else hidden
            asking.thoughts[thought] = x + self.thought.weight[thought]
            hidden = self.decoder.go_on(asking.thoughts[thought], asking.memory, texts, draft)
        return hidden

    def _thoughts_at(self, level: int) -> range:
        """The thoughts that come before the code of a level."""
        if self.config.thinking == "first":
            return range(self.codes.levels if level == 0 else 0)
        return range(level, level + 1)

    def _align(self, progress: float) -> float:
        """The weight of the teaching when so much of the training is done."""
        epochs, fade = self.config.train.epochs, self.config.fade
        return self.config.align * max(0.0, 1 - progress * epochs / fade if fade else 1.0)

    def alignment(self, thoughts: Tensor, goals: Tensor) -> Tensor:
        """Cross-entropies ``[n, levels]`` of the clusters that thoughts ``[n, L, D]`` point at."""
        codes = self.codes.codes_of(goals)
        found = []
        for level in range(self.taught):
            right = self.clusters(level)[codes[:, level]]
            found.append(
                F.cross_entropy(self.pointed(level, thoughts[:, level]), right, reduction="none")
            )
        return torch.stack(found, 1)

    def pointed(self, level: int, thoughts: Tensor) -> Tensor:
        """Logits ``[n, clusters]`` of the clusters of a level: cosines over the temperature."""
        points = F.normalize(self.pointing[level](thoughts), dim=-1)
        centres = F.normalize(getattr(self, f"centres_{level}"), dim=-1)
        return points @ centres.T / self.config.temperature

    def clusters(self, level: int) -> Tensor:
        """The cluster of each code of a level, int64 ``[K]``."""
        return getattr(self, f"clusters_{level}")

    def _first(self, begin: Tensor) -> Tensor:
        return self.dropout(begin + self.place.weight[0])

    def _whole(self, reading: Reading, first: Tensor, goals: Tensor, real: Tensor) -> Tensor:
        """What the lighter decoder learns of whole items, and teaches the first thought."""
        place = torch.arange(reading.events.shape[1], device=first.device)
        back = place[:, None] - place.repeat_interleave(self.per_event)
        memory = self.light.remember(reading.states, back[None])
        batch, events = reading.events.shape[:2]
        of = torch.arange(batch, device=first.device).repeat_interleave(events)
        begin = reading.events.flatten(0, 1)[:, None]
        said = self.light(begin, memory, Texts(of, batch))[0][real, 0]  # [n, D]
        loss = said.new_zeros(())
        if self.config.contrast:
            kinds, goal = goals.unique(return_inverse=True)  # an item is no negative of itself
            wanted = F.normalize(self.codes.of_items(kinds).mean(1), dim=-1)
            logits = F.normalize(said, dim=-1) @ wanted.T / self.config.temperature
            loss = loss + self.config.contrast * F.cross_entropy(logits, goal, reduction="sum")
        if self.config.regularise:
            apart = 1 - F.cosine_similarity(first, said.detach(), dim=-1)
            loss = loss + self.config.regularise * apart.sum()
        return loss


class S2GR(TIGER):
    """Thinks before it writes."""

    name = "s2gr"
    Config = S2GRConfig

    def _network(self, codes: Codes) -> S2GRNetwork:
        return S2GRNetwork(codes, self.config)

    def _thoughts(
        self, events: np.ndarray, goal: int, describer: Describer
    ) -> list[tuple[str, float] | None] | None:
        network = self.network
        assert isinstance(network, S2GRNetwork)
        if self.config.thinking == "blank":
            return None
        device = network.codes.numbers.device
        items = torch.from_numpy(events)[None].to(device)
        goals = torch.tensor([goal], device=device)
        lengths = torch.tensor([len(events)], device=device)
        memory, begin = network.memory_of_last(network.read(items), lengths)
        texts = Texts(torch.zeros(1, dtype=torch.int64, device=device), 1)
        thoughts = network.teach(begin, goals, memory, texts).thoughts
        assert thoughts is not None
        told: list[tuple[str, float] | None] = [None] * network.codes.levels
        table = torch.from_numpy(self.codes.table).to(device).long()
        for level in range(network.taught):
            shares = network.pointed(level, thoughts[:, level]).softmax(1)[0]
            cluster = int(shares.argmax())
            inside = network.clusters(level)[table[:, level]] == cluster
            members = inside.nonzero().squeeze(1).cpu().numpy()
            told[level] = describer.words(members), float(shares[cluster])
        return told


def clusters_of(book: np.ndarray, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clusters of the codes of a level, found by k-means among their vectors.

    Args:
        book: float32 ``[K, D]``.
        count: of clusters; fewer where there are not so many codes.
        seed: of the first centres.

    Returns:
        Centres ``[clusters, D]`` and the cluster of each code, int64 ``[K]``.
    """
    points = torch.from_numpy(book)
    generator = torch.Generator().manual_seed(seed)
    centres = kmeans(points, min(count, len(points)), generator)
    clusters = torch.cdist(points, centres).argmin(1)
    return centres, clusters
