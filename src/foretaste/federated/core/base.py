"""What a federated method says: what travels, how users train, what the server makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.personal import nothing
from foretaste.federated.core.registry import register
from foretaste.federated.core.server_step import server_step
from foretaste.federated.core.updates import Updates
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.base import Recommender


class World(NamedTuple):
    """What server and nodes know before the first message, and nobody learns from users.

    Attributes:
        catalog: the items, in the numbers that all use.
        model: the recommender that the recipe names, not fitted: its configuration.
        seed: of every random choice.
        folder: where a node, or a simulation, may keep files of its own; None keeps nothing.
        progress: who is told of long work besides the rounds.
    """

    catalog: Catalog
    model: Recommender
    seed: int = 0
    folder: Path | None = None
    progress: Progress = Silent()


@dataclass(frozen=True)
class LocalUsers:
    """``C`` users of one node who train together in a round.

    Attributes:
        keys: uint64 ``[C]``, who they are: a hash of the user's id, the same in every round.
        draws: uint64 ``[C]``, a hash of seed, round and user: the start of every random choice.
        histories: what they did, oldest first; a row for each.
        personal: arrays ``[C, *shape]`` that stayed with them, by name.
    """

    keys: np.ndarray
    draws: np.ndarray
    histories: Sequences
    personal: Arrays

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, kept: np.ndarray) -> LocalUsers:
        """Those of them that are ``kept`` bool ``[C]``."""
        return LocalUsers(
            self.keys[kept],
            self.draws[kept],
            self.histories.take(np.flatnonzero(kept)),
            {name: array[kept] for name, array in self.personal.items()},
        )


class Trained(NamedTuple):
    """What a group of users came to.

    Attributes:
        updates: of each user, or of all together as one when nobody asked for each.
        weight: the sum of their votes.
        losses: float32 ``[C]``, of what came down, before training.
        personal: arrays ``[C, *shape]`` that stay with them.
    """

    updates: Updates
    weight: float
    losses: Tensor
    personal: Arrays

    def of(self, kept: Tensor) -> Trained:
        """Of some users ``kept`` bool ``[C]``, where updates are those of each."""
        updates = self.updates.pick(kept)
        weight = float(updates.weights.double().sum())
        own = {name: array[kept.numpy()] for name, array in self.personal.items()}
        return Trained(updates, weight, self.losses[kept], own)


class Sums(NamedTuple):
    """What a round brought the server.

    Attributes:
        arrays: weighted sums over users of what goes up.
        weight: what to divide by for the mean.
        users: how many took part.
    """

    arrays: Arrays
    weight: float
    users: int

    def mean(self) -> Arrays:
        """The sums divided by the weight."""
        return {
            name: (array / self.weight).astype(array.dtype) for name, array in self.arrays.items()
        }


class FederatedMethod(ABC):
    """One federated way to learn a recommender. A file of its name holds its class.

    A method holds no state of a federation: what the server knows is a ``state`` of arrays that
    is given and returned, and what a user keeps is given and returned as ``personal``.
    """

    name: ClassVar[str]
    Config: ClassVar[type[FederatedConfig]] = FederatedConfig

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            register(cls.name, cls)

    def __init__(self, config: FederatedConfig, world: World) -> None:
        """Raises ``InputError`` when the model of ``world`` is none that the method can train."""
        self.config: Any = config
        self.world = world
        attack = config.attack
        if attack.kind == "promote" and attack.item >= self.items:
            raise InputError(
                f"federated.attack.item = {attack.item}: the catalog has {self.items} items, "
                "numbered from 0."
            )

    @property
    def items(self) -> int:
        """Size of the catalog."""
        return len(self.world.catalog)

    # What travels.

    @abstractmethod
    def down(self) -> tuple[Declared, ...]:
        """Arrays that go from the server to nodes."""

    @abstractmethod
    def up(self) -> tuple[Declared, ...]:
        """Arrays that go from nodes to the server: float32, weighted sums over users.

        Counts (users, votes, loss) are added by the node.
        """

    def counts(self) -> tuple[str, ...]:
        """Which arrays of ``up`` count votes: none of their values can be above those of all."""
        return ()

    def personal(self) -> tuple[Declared, ...]:
        """Arrays that stay with a user, kept between rounds on its device.

        One whose shape begins with -1 is given and returned as an array of arrays (``as_rows``).
        """
        return ()

    # At the server.

    @abstractmethod
    def start(self) -> Arrays:
        """The first state, the same for the same seed; it holds at least the arrays of ``down``."""

    def to_send(self, state: Mapping[str, np.ndarray], round: int) -> Arrays:
        """What goes down in a round: by default the arrays of the state of these names."""
        del round
        return {one.name: state[one.name] for one in self.down()}

    def next_state(self, state: Arrays, sums: Sums, round: int) -> Arrays:
        """The state after a round; by default the server's optimiser on the mean change.

        The arrays of ``up`` are then changes of the arrays of the same names.
        """
        del round
        return server_step(state, sums.mean(), self.config.server)

    @abstractmethod
    def recommender(self, state: Mapping[str, np.ndarray]) -> Recommender:
        """A recommender that holds what a state (or what came down) has learnt."""

    # At a node.

    def first_personal(self, draws: np.ndarray) -> Arrays:
        """Personal arrays ``[C, *shape]`` of users who have none yet; ``draws`` uint64 ``[C]``."""
        return {one.name: nothing(one, len(draws)) for one in self.personal()}

    @abstractmethod
    def train(
        self, received: Mapping[str, np.ndarray], users: LocalUsers, round: int, *, each: bool
    ) -> Trained:
        """Train a group of users, each from what came down.

        Args:
            received: the arrays of ``down``.
            users: each with two events or more.
            round: from 1.
            each: updates must be those of each user (they will be clipped, say); otherwise they
                may be added up already.
        """

    def scores(self, received: Mapping[str, np.ndarray], users: LocalUsers) -> Tensor:
        """Scores ``[C, items]`` of users for evaluation on their device."""
        import torch

        found = torch.empty(len(users), self.items)
        for rows, part in self.recommender(received).scores(users.histories, exclude="none"):
            found[torch.from_numpy(rows)] = part.float()
        return found

    def cost(self, lengths: np.ndarray) -> np.ndarray:
        """Floats that a user with so many events changes and holds in training, ``[users]``."""
        own = sum(int(np.prod(one.shape)) for one in (*self.up(), *self.personal()))
        return np.full(len(lengths), float(own)) + lengths

    def item_evidence(
        self, update: Mapping[str, np.ndarray], received: Mapping[str, np.ndarray], round: int
    ) -> np.ndarray | None:
        """How strongly one user's update points at each item, ``[items]``; None where it cannot.

        What an honest but curious server would look at, which knows what it sent: by default how
        far an item's row, in every array with a row for each item, moved from where the median row
        moved. Items that a user never had are all pushed away alike, or not at all.
        """
        del received, round
        tables = [
            array.reshape(self.items, -1)
            for array in update.values()
            if array.ndim >= 2 and array.shape[0] == self.items
        ]
        if not tables:
            return None
        rows = np.concatenate(tables, 1)
        return np.linalg.norm(rows - np.median(rows, 0), axis=1)
