"""FedRAP: an item's vector is a common one, which travels, and a user's own, which never does.

Li, Long and Zhou, "Federated Recommendation with Additive Personalization" (ICLR 2024,
arXiv 2301.09109): the score is an affine function of their sum, the loss of a user

    cross-entropy - lambda MSE(own, common) + mu L1(common)

over the items that it trains with, and both weights rise as tanh(round / 10). As in the official
code these items are the history and items drawn *once*, regularisers are means over them, and a
client steps with all three parts from the same point. Rows of other items are as they began, so a
client keeps those alone: users times items times width would be gigabytes.

Ours: own vectors begin at zero instead of at random (an item that a user never trained with is then
scored by what is common), the head takes steps of Adam, and the server's optimiser moves the common
table, as in the methods that this one is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from foretaste.federated.core.base import LocalUsers
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.federated.core.chosen_items import (
    ChosenItems,
    Steps,
    asked_by_items,
    drawn_examples,
)
from foretaste.federated.core.personal import as_rows
from foretaste.federated.core.table_config import FedMFConfig
from foretaste.federated.pfedrec import PFedRec

OWN, OWN_ITEMS = "own", "own/items"
_RISE = 10
"""Rounds over which the weights of both regularisers rise."""


class FedRAPConfig(FedMFConfig):
    """Of FedRAP.

    Attributes:
        apart: lambda, which drives own and common vectors from each other.
        sparse: mu, which draws common vectors to zero.
        own_rate: step of a user's own vectors, of its mean loss (as ``local.learning_rate`` is of
            common ones); an item has a part of that loss, so it is large.
    """

    apart: float = Field(default=0.1, ge=0)
    sparse: float = Field(default=0.1, ge=0)
    own_rate: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _own_rows(self) -> Self:
        if self.rows or self.local.clip:
            raise ValueError(
                "fedrap adds a user's own vector to that of an item, and clips neither: leave "
                "rows and local.clip at 0 (privacy.clip bounds what leaves)"
            )
        return self


class OwnRows(NamedTuple):
    """Own rows of ``C`` users, one after the other.

    Attributes:
        places: int64 ``[N]``, user times items plus item; ascending.
        values: float32 ``[N, D]``.
    """

    places: np.ndarray
    values: np.ndarray


class FedRAP(PFedRec):
    """Score = affine function of the sum of a common and an own vector of the item."""

    name = "fedrap"
    Config = FedRAPConfig
    alternates = False

    def personal(self) -> tuple[Declared, ...]:
        """The score function, and own vectors of the items that a user trained with."""
        why, rows = "it is their taste", "rows of items that the user trained with"
        return (
            *super().personal(),
            Declared(OWN, "float32", (-1, self.dim), f"own vectors: {rows}", why),
            Declared(OWN_ITEMS, "int64", (-1,), "numbers of these items", why),
        )

    def first_personal(self, draws: np.ndarray) -> Arrays:
        """The head of PFedRec and no row, which is all rows at zero."""
        none = {
            OWN: as_rows([np.zeros((0, self.dim), np.float32)] * len(draws)),
            OWN_ITEMS: as_rows([np.zeros(0, np.int64)] * len(draws)),
        }
        return super().first_personal(draws) | none

    def cost(self, lengths: np.ndarray) -> np.ndarray:
        """Of PFedRec, with own vectors beside the common ones."""
        examples = np.minimum(lengths * (1 + self.config.local.negatives), self.items)
        return super().cost(lengths) + 2.0 * examples * self.dim

    def examples(self, users: LocalUsers) -> ChosenItems:
        """What users chose, and items that each drew once and for all."""
        return drawn_examples(users.histories, users.keys, self.config.local.negatives, self.items)

    def seen_vectors(
        self, received: Mapping[str, np.ndarray], users: LocalUsers, chosen: ChosenItems
    ) -> Tensor:
        """Common vectors and own ones added up."""
        common = super().seen_vectors(received, users, chosen)
        return common + self._own_of(users, chosen)

    def scores_of(
        self, head: Tensor, received: Mapping[str, np.ndarray], users: LocalUsers
    ) -> Tensor:
        """Of common vectors, and what own rows add."""
        found = super().scores_of(head, received, users)
        places, values = (torch.from_numpy(one) for one in self._rows_of(users))
        adds = (head[places // self.items] * values).sum(1)
        return found.view(-1).index_add(0, places, adds).view(found.shape)

    def strength(self, round: int) -> float:
        """What both regularisers are multiplied by in a round."""
        return math.tanh(round / _RISE)

    def descend(
        self,
        vectors: Tensor,
        table: Tensor,
        places: Tensor | None,
        chosen: ChosenItems,
        head: tuple[Tensor, Tensor],
        users: LocalUsers,
        round: int,
    ) -> tuple[Steps, Arrays]:
        """Steps of common and own vectors; the latter stay."""
        del vectors, places
        config, strength = self.config, self.strength(round)
        common, own = table[chosen.items], self._own_of(users, chosen)
        change = torch.zeros_like(common)
        share = strength * chosen.weights.unsqueeze(-1) / self.dim  # of one number in a mean
        for _ in range(config.local.epochs):
            now = common + change
            asked = asked_by_items(now + own, chosen, *head, 1.0)
            away = 2 * config.apart * share * (own - now)
            change = change + config.local.learning_rate * (
                asked - away - config.sparse * share * now.sign()
            )
            own = own + config.own_rate * (asked + away)
        return Steps(change, change), self._kept(users, chosen, own)

    def _rows_of(self, users: LocalUsers) -> OwnRows:
        items, values = users.personal[OWN_ITEMS], users.personal[OWN]
        counts = [len(one) for one in items]
        whole = np.concatenate([*items, np.zeros(0, np.int64)])
        places = np.repeat(np.arange(len(users)), counts) * self.items + whole
        return OwnRows(places, np.concatenate([*values, np.zeros((0, self.dim), np.float32)]))

    def _own_of(self, users: LocalUsers, chosen: ChosenItems) -> Tensor:
        """Own vectors of the examples ``[C, U, D]``, zero where there is none."""
        rows = self._rows_of(users)
        found = np.zeros((*chosen.items.shape, self.dim), np.float32)
        if len(rows.places):
            wanted = self._places(chosen)
            nearest = np.searchsorted(rows.places, wanted).clip(max=len(rows.places) - 1)
            there = (rows.places[nearest] == wanted) & (chosen.weights.numpy() > 0)
            found[there] = rows.values[nearest[there]]
        return torch.from_numpy(found)

    def _kept(self, users: LocalUsers, chosen: ChosenItems, own: Tensor) -> Arrays:
        """The rows of these users after training: those of the examples, and all there were."""
        old, real = self._rows_of(users), chosen.weights.numpy() > 0
        trained = self._places(chosen)[real]
        places = np.union1d(old.places, trained)
        values = np.zeros((len(places), self.dim), np.float32)
        values[np.searchsorted(places, old.places)] = old.values
        values[np.searchsorted(places, trained)] = own.numpy()[real]
        ends = np.searchsorted(places, np.arange(1, len(users)) * self.items)
        return {
            OWN: as_rows(np.split(values, ends)),
            OWN_ITEMS: as_rows(np.split(places % self.items, ends)),
        }

    def _places(self, chosen: ChosenItems) -> np.ndarray:
        users = np.arange(len(chosen.items))[:, None]
        return users * self.items + chosen.items.numpy()
