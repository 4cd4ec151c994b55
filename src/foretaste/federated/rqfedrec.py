"""RQFedRec: codebooks travel instead of item vectors.

After arXiv 2601.18570, of which only the abstract is known: every item has a list of semantic and a
list of collaborative codes, clients make item vectors from vectors of codes and train those, the
server averages them, and a curriculum leads from semantic to collaborative codes. The rest is ours,
on top of ``pfedrec`` (alternation, head, loss):

- Item vector = (1 - g) sum of its semantic code vectors + g sum of its collaborative ones; g rises
  with the rounds. The server multiplies before it sends, so a client sees one table.
- The server keeps a vector for every item, which no client ever sees, and makes the collaborative
  codes from these by residual k-means: codes are a short way to write down what it believes.
- It learns them from sums that clients send. The change of a code's vector says what the items of
  the code ask for together; the least change of items that explains it is believed. What that
  leaves open comes from the *sketch*: every client adds the changes that single items ask for into
  a few rows, at a row and with a sign that are hashes of item and round. Codes are made anew, rows
  are drawn anew, so over the rounds both tell items apart. Gradients are taken at the coded vectors
  and applied to the server's, as in training of quantised networks (straight through).

No interaction is read anywhere but on the device. What leaks nevertheless: ``docs/rqfedrec.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.sparse import csr_array
from torch import Tensor

from foretaste.codes.kmeans import kmeans, nearest
from foretaste.federated.core.base import Sums
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.federated.core.chosen_items import scattered
from foretaste.federated.core.randomness import hashed
from foretaste.federated.core.server_step import FIRST, SECOND, server_step
from foretaste.federated.core.table_config import FedMFConfig
from foretaste.federated.core.updates import Rows
from foretaste.federated.fedmf import TABLE
from foretaste.federated.pfedrec import PFedRec
from foretaste.language.embed import TextConfig, embed
from foretaste.language.texts import item_texts
from foretaste.language.tfidf import TfidfConfig

SEMANTIC, COLLABORATIVE = "semantic", "collaborative"
MIX, SKETCH, ITEMS = "mix", "sketch", "server/items"
_BUCKETS, _SIGNS, _RANDOM = 8_201, 8_202, 8_203
"""Places of hashes of item numbers."""
_RIDGE = 1e-3
"""Added to the counts of items that codes share, so that codes of no item are no obstacle."""


class RQFedRecConfig(FedMFConfig):
    """Of RQFedRec.

    Attributes:
        semantic_levels: semantic codes of an item; 0 leaves the channel out.
        semantic_size: codes of a level, at most 256: a code is a byte.
        semantic: where they come from: ``text`` of the catalog by residual k-means, or ``random``.
        text: how texts become vectors.
        collaborative_levels: collaborative codes of an item; 0 leaves the channel out.
        collaborative_size: codes of a level.
        refresh: rounds after which collaborative codes are made anew; 0 keeps the first, which
            are random.
        settle: last rounds in which they are left as they are.
        items_rate: step of the server's item vectors, times the size of the catalog (as of
            PFedRec's), since a client's mean loss gives an item a part of that size.
        sketch: rows into which single items' changes are added up; 0 sends none.
        first_mix: weight g of collaborative vectors in the first round.
        last_mix: the same after ``mix_rounds`` rounds; equal to ``first_mix`` it never changes.
        mix_rounds: rounds of the curriculum.

    What comes down and goes up is bytes, a number each: what that saves pays for the sketch, of
    which quality depends more than on the rounding (measured: ``docs/rqfedrec.md``).
    """

    average: Literal["all", "touched"] = "touched"
    semantic_levels: int = Field(default=2, ge=0)
    semantic_size: int = Field(default=64, ge=2, le=256)
    semantic: Literal["text", "random"] = "text"
    text: TextConfig = TfidfConfig()
    collaborative_levels: int = Field(default=12, ge=0)
    collaborative_size: int = Field(default=32, ge=2, le=256)
    refresh: int = Field(default=5, ge=0)
    settle: int = Field(default=0, ge=0)
    items_rate: float = Field(default=0.03, gt=0)
    sketch: int = Field(default=1024, ge=0)
    first_mix: float = Field(default=0.0, ge=0, le=1)
    last_mix: float = Field(default=0.9, ge=0, le=1)
    mix_rounds: int = Field(default=30, ge=1)
    precision: Literal["float32", "int8"] = "int8"
    upload: Literal["float32", "int8"] = "int8"

    @model_validator(mode="after")
    def _some_codes(self) -> Self:
        if not self.semantic_levels and not self.collaborative_levels:
            raise ValueError("semantic_levels and collaborative_levels are both 0: give one above")
        if self.rows:
            raise ValueError("rows hashes item vectors, of which rqfedrec has none: leave it at 0")
        return self


class Coded(NamedTuple):
    """Codes and their vectors.

    Attributes:
        codes: uint8 ``[items, levels]``.
        table: float32 ``[levels * size, D]``, level after level.
    """

    codes: np.ndarray
    table: np.ndarray


class RQFedRec(PFedRec):
    """PFedRec on item vectors that are sums of code vectors."""

    name = "rqfedrec"
    Config = RQFedRecConfig
    table_is = "vectors of codes, which an item adds up"

    @property
    def channels(self) -> dict[str, tuple[int, int]]:
        """Levels and size of each channel that is there, semantic first."""
        config = self.config
        both = {
            SEMANTIC: (config.semantic_levels, config.semantic_size),
            COLLABORATIVE: (config.collaborative_levels, config.collaborative_size),
        }
        return {name: channel for name, channel in both.items() if channel[0]}

    @property
    def rows(self) -> int:
        """Code vectors of all channels."""
        return sum(levels * size for levels, size in self.channels.values())

    def down(self) -> tuple[Declared, ...]:
        """Code vectors, and codes where they have changed."""
        codes = [
            Declared(
                f"{name}/codes",
                "uint8",
                (self.items, levels),
                f"{name} codes of all items",
                "they say which code vectors an item adds up",
                kept=True,
            )
            for name, (levels, _) in self.channels.items()
        ]
        return (*super().down(), *codes)

    def up(self) -> tuple[Declared, ...]:
        """As of PFedRec, for codes, and the sketch."""
        if not self._sketched:
            return super().up()
        what = "changes that items ask for, added up in rows by a hash of item and round"
        shape = (self.config.sketch, self.dim)
        why = "the server makes collaborative codes from them"
        return (*super().up(), Declared(SKETCH, "float32", shape, what, why))

    def start(self) -> Arrays:
        """Semantic codes from what the catalog says, random collaborative ones, small vectors."""
        draws = np.random.default_rng([self.world.seed, 0])
        state: Arrays = {MIX: np.array([self.mix(1)], np.float32)}
        for name, (levels, size) in self.channels.items():
            # Beside semantic vectors, collaborative ones begin at zero: the first are shared.
            spread = self.config.spread * (name == SEMANTIC or SEMANTIC not in self.channels)
            table = spread * draws.standard_normal((levels * size, self.dim))
            state[f"{name}/table"] = table.astype(np.float32)
            state[f"{name}/codes"] = self.first_codes(name)
        if COLLABORATIVE in self.channels:
            state[ITEMS] = self.item_vectors(state).astype(np.float32)
        return state

    def first_codes(self, name: str) -> np.ndarray:
        """Codes uint8 ``[items, levels]`` of a channel before the first round.

        Raises:
            InputError: for semantic codes when no item of the catalog has a text.
        """
        levels, size = self.channels[name]
        if name == SEMANTIC and self.config.semantic == "text":
            texts = item_texts(self.world.catalog)
            vectors = embed(texts, self.config.text, seed=self.world.seed)
            return residual_codes(vectors, levels, size, self.world.seed).codes
        items = np.arange(self.items).astype(np.uint64)
        place = list(self.channels).index(name)
        drawn = [
            hashed(items, self.world.seed, _RANDOM, place, level) % np.uint64(size)
            for level in range(levels)
        ]
        return np.stack(drawn, 1).astype(np.uint8)

    def mix(self, round: int) -> float:
        """Weight g of collaborative vectors in a round: 1 or 0 where there is one channel only."""
        if len(self.channels) == 1:
            return float(COLLABORATIVE in self.channels)
        config = self.config
        risen = min(1.0, (round - 1) / config.mix_rounds)
        return config.first_mix + (config.last_mix - config.first_mix) * risen

    def to_send(self, state: Mapping[str, np.ndarray], round: int) -> Arrays:
        """Code vectors times their channel's weight, and the codes."""
        shares = self._shares(state)
        parts = [shares[name] * state[f"{name}/table"] for name in self.channels]
        codes = {f"{name}/codes": state[f"{name}/codes"] for name in self.channels}
        table = np.concatenate(parts).astype(np.float32)
        return {**super().to_send({TABLE: table}, round), **codes}

    def table(self, received: Mapping[str, np.ndarray]) -> np.ndarray:
        """Code vectors, from a state or from what came down."""
        return super().table(received if TABLE in received else self.to_send(received, 0))

    def codes(self, received: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows of the table that an item adds up, int64 ``[items, all levels]``."""
        parts, first = [], 0
        for name, (levels, size) in self.channels.items():
            places = first + np.arange(levels) * size
            parts.append(received[f"{name}/codes"].astype(np.int64) + places)
            first += levels * size
        return np.concatenate(parts, 1)

    def item_evidence(
        self, update: Mapping[str, np.ndarray], received: Mapping[str, np.ndarray], round: int
    ) -> np.ndarray:
        """The norm of what an item asks for, read as the server reads it off a whole round."""
        return np.linalg.norm(self.asked_by_items(received, update, round), axis=1)

    # At a node.

    def more_parts(self, asked: Tensor, items: Tensor, round: int) -> dict[str, Tensor | Rows]:
        """The sketch of what items ask for."""
        if not self._sketched:
            return {}
        rows, signs = self.buckets(round)
        signed = asked * torch.from_numpy(signs)[items].unsqueeze(-1)
        index = torch.from_numpy(rows)[items].unsqueeze(-1)
        return {SKETCH: scattered(signed, index, self.config.sketch)}

    def buckets(self, round: int) -> tuple[np.ndarray, np.ndarray]:
        """Row int64 and sign float32 of every item in the sketch of a round, ``[items]`` each."""
        items, seed = np.arange(self.items).astype(np.uint64), self.world.seed
        rows = hashed(items, seed, _BUCKETS, round) % np.uint64(self.config.sketch)
        odd = hashed(items, seed, _SIGNS, round) & np.uint64(1)
        return rows.astype(np.int64), (2.0 * odd.astype(np.float32) - 1).astype(np.float32)

    # At the server.

    def next_state(self, state: Arrays, sums: Sums, round: int) -> Arrays:
        """Step of the code vectors, of the server's item vectors, and maybe new codes."""
        shares, change, first = self._shares(state), self.averaged(sums), 0
        changes = {}
        for name, (levels, size) in self.channels.items():
            part = change[first : first + levels * size]
            changes[f"{name}/table"] = (shares[name] * part).astype(np.float32)
            first += levels * size
        following = server_step(state, changes, self.config.server)
        if COLLABORATIVE in self.channels:
            rate = self.config.items_rate * self.items
            asked = rate * self.asked_by_items(state, sums.mean(), round)
            following[ITEMS] = (state[ITEMS] + asked).astype(np.float32)
            refresh, last = self.config.refresh, self.config.rounds - self.config.settle
            if refresh and round % refresh == 0 and round <= last:
                following = self.with_new_codes(following, round)
        following[MIX] = np.array([self.mix(round + 1)], np.float32)
        return following

    def with_new_codes(self, state: Arrays, round: int) -> Arrays:
        """Collaborative codes and vectors made anew from the server's item vectors, and no more.

        Their optimiser starts anew, since a row now stands for other items.
        """
        name = f"{COLLABORATIVE}/table"
        levels, size = self.channels[COLLABORATIVE]
        made = residual_codes(state[ITEMS], levels, size, self.world.seed + round)
        gone = (FIRST + name, SECOND + name)
        kept = {key: array for key, array in state.items() if key not in gone}
        return kept | {name: made.table, f"{COLLABORATIVE}/codes": made.codes}

    def asked_by_items(
        self, state: Mapping[str, np.ndarray], mean: Mapping[str, np.ndarray], round: int
    ) -> np.ndarray:
        """The mean change of every item's vector, as far as the sums tell, float32 ``[items, D]``.

        The least change that explains that of the codes, then what the sketch says beyond it.
        """
        codes = self.codes(state)
        ends = np.arange(len(codes) + 1) * codes.shape[1]
        held = csr_array((np.ones(codes.size), codes.ravel(), ends), shape=(len(codes), self.rows))
        shared = (held.T @ held).toarray() + _RIDGE * np.eye(self.rows)  # items of two codes
        weights = np.linalg.solve(shared, mean[TABLE].astype(np.float64))
        asked = weights[codes].sum(1)  # [items, D]
        if self._sketched:
            rows, signs = self.buckets(round)
            known = np.zeros((self.config.sketch, self.dim))
            np.add.at(known, rows, signs[:, None] * asked)
            asked = asked + signs[:, None] * (mean[SKETCH] - known)[rows]
        return asked.astype(np.float32)

    @property
    def _sketched(self) -> bool:
        return bool(self.config.sketch and self.channels.get(COLLABORATIVE))

    def _shares(self, state: Mapping[str, np.ndarray]) -> dict[str, float]:
        mix = float(state[MIX][0])
        return {SEMANTIC: 1 - mix, COLLABORATIVE: mix}


def residual_codes(vectors: np.ndarray, levels: int, size: int, seed: int) -> Coded:
    """Residual k-means: every level clusters what the levels before it left over.

    Unlike the codes of a tokenizer these need not tell items apart: items of equal codes share a
    vector, which is what saves bytes, so none is moved to a farther code.

    Args:
        vectors: float32 ``[items, D]``.
        levels: codes of an item.
        size: codes of a level.
        seed: of the first centres.
    """
    generator = torch.Generator().manual_seed(seed)
    left = torch.from_numpy(np.array(vectors, np.float32))
    codes, books = [], []
    for _ in range(levels):
        books.append(kmeans(left, size, generator))
        codes.append(nearest(left, books[-1])[0])
        left = left - books[-1][codes[-1]]
    return Coded(torch.stack(codes, 1).numpy().astype(np.uint8), torch.cat(books).numpy())
