"""A method whose every number can be worked out by hand, with personal and kept arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from foretaste.federated.core.base import FederatedMethod, LocalUsers, Trained
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.federated.core.updates import Updates
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.popularity import Popularity


class Tallying(FederatedMethod):
    """Counts items: a user sends how often it had each, and remembers the rounds it was in."""

    name = "tallying"

    def down(self) -> tuple[Declared, ...]:
        return (
            Declared("tally", "float32", (self.items,), "counts", "to show"),
            Declared("codes", "uint8", (self.items, 2), "codes of items", "to read", kept=True),
        )

    def up(self) -> tuple[Declared, ...]:
        return (Declared("tally", "float32", (self.items,), "counts, summed", "to add up"),)

    def personal(self) -> tuple[Declared, ...]:
        return (Declared("rounds", "int64", (), "rounds it was in", "nobody else needs it"),)

    def start(self) -> Arrays:
        codes = np.zeros((self.items, 2), np.uint8)
        return {"tally": np.zeros(self.items, np.float32), "codes": codes}

    def next_state(self, state, sums, round) -> Arrays:
        codes = state["codes"] + (round % 2 == 0)  # new codes after every second round
        return {"tally": state["tally"] + sums.arrays["tally"], "codes": codes.astype(np.uint8)}

    def train(
        self, received: Mapping[str, np.ndarray], users: LocalUsers, round: int, *, each: bool
    ) -> Trained:
        del received, round, each
        counts = torch.stack(
            [
                torch.bincount(torch.from_numpy(one).long(), minlength=self.items).float()
                for one in users.histories
            ]
        )
        personal = {"rounds": users.personal["rounds"] + 1}
        weights = torch.ones(len(users))
        return Trained(Updates(weights, {"tally": counts}), len(users), weights, personal)

    def recommender(self, state: Mapping[str, np.ndarray]) -> Recommender:
        found = Popularity()
        found.catalog = self.world.catalog
        found.popularity = state["tally"].astype(np.int64)
        return found
