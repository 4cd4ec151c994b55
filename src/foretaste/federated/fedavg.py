"""FedAvg on a sequence recommender (McMahan et al., AISTATS 2017): networks travel whole.

Every user trains the network that came down on its own history; the mean of the changes is added
at the server. The network is the recommender's own and knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.federated.core.base import FederatedMethod, LocalUsers, Trained, World
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.local_items import local_items, local_windows
from foretaste.federated.core.local_training import (
    LocalResult,
    Tensors,
    is_one_gradient,
    summed_gradients,
    train_users,
)
from foretaste.federated.core.randomness import keyed
from foretaste.federated.core.updates import Rows, Updates
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.sequence import Histories, SequenceRecommender

TABLE = "items.weight"
"""The item vectors among the parameters of a network: a user changes few rows of it."""


class FedAvgConfig(FederatedConfig):
    """Of FedAvg."""


class FedAvg(FederatedMethod):
    """The whole network goes down, the mean change comes up."""

    name = "fedavg"
    Config = FedAvgConfig

    def __init__(self, config: FederatedConfig, world: World) -> None:
        """``world.model`` must be a sequence recommender, such as sasrec or gru4rec."""
        super().__init__(config, world)
        model = world.model
        if not isinstance(model, SequenceRecommender):
            raise InputError(
                f"{self.name} trains sequence networks; {model.name} is none. Choose --model "
                "sasrec or gru4rec."
            )
        if getattr(model.config, "attention", "full") != "full":
            raise InputError(
                f'{self.name}: attention = "{model.config.attention}" has a loss of its own that a '
                'federation does not compute. Set model.attention = "full".'
            )
        self.model = model
        self.network = self._fresh()
        self.keys = keyed(self.network)
        self.network.train()
        self.broadcast = not any(isinstance(one, nn.RNNBase) for one in self.network.modules())
        self.shapes = {name: tuple(one.shape) for name, one in self.network.named_parameters()}
        trained = {name for name, _ in self.network.named_parameters(remove_duplicate=False)}
        if self.shapes.get(TABLE, (0,))[0] != self.items or trained < set(
            self.network.state_dict()
        ):
            raise InputError(
                f"{self.name}: the network of {model.name} has arrays that are not trained, or "
                "keeps its item vectors elsewhere. Choose --model sasrec or gru4rec."
            )

    def down(self) -> tuple[Declared, ...]:
        """All weights of the network."""
        return tuple(
            Declared(
                name, "float32", shape, _meaning(name), "a client trains from the common network"
            )
            for name, shape in self.shapes.items()
        )

    def up(self) -> tuple[Declared, ...]:
        """The change of all weights."""
        return tuple(
            Declared(
                name,
                "float32",
                shape,
                f"change of {_meaning(name)}, summed over a node's users",
                "the server adds the mean change to the common network",
            )
            for name, shape in self.shapes.items()
        )

    def start(self) -> Arrays:
        """The recommender's own first weights."""
        return {name: one.detach().numpy().copy() for name, one in self._fresh().named_parameters()}

    def recommender(self, state: Mapping[str, np.ndarray]) -> Recommender:
        """The recipe's own recommender with these weights.

        It knows no popularity, which is the sum of what people did: an empty history gets the
        items in the order of the catalog.
        """
        found = type(self.model)(self.model.config)
        found.catalog = self.world.catalog
        found.popularity = np.zeros(self.items, np.int64)
        found.network = found._network(self.items)
        with torch.no_grad():
            for name, one in found.network.named_parameters():
                one.copy_(torch.from_numpy(np.asarray(state[name])))
        return found

    def cost(self, lengths: np.ndarray) -> np.ndarray:
        """The network without its table, and the rows that a user touches."""
        dim = self.shapes[TABLE][1]
        rest = sum(int(np.prod(shape)) for shape in self.shapes.values()) - self.items * dim
        negatives, windows = self.config.local.negatives, self.config.local.windows
        rows = np.minimum(lengths + (negatives or self.items), self.items)
        read = np.minimum(lengths, windows * self.model._window())
        return rest + rows * dim + read * (rows + 16.0 * dim) / 2

    def train(
        self, received: Mapping[str, np.ndarray], users: LocalUsers, round: int, *, each: bool
    ) -> Trained:
        """See ``FederatedMethod``."""
        local = self.config.local
        certain = self.touched_items(users, round)
        items = local_items(certain, users.draws, local.negatives, self.items)
        windows = local_windows(users.histories, items.rows, self.model._window(), local.windows)
        data = {
            "items": torch.from_numpy(windows.items),
            "targets": torch.from_numpy(windows.targets),
            "lengths": torch.from_numpy(windows.lengths),
            "correction": torch.from_numpy(items.correction),
        }
        if windows.times is not None:
            data["times"] = torch.from_numpy(windows.times)
        data |= self.more_data(users, items.rows, round)
        shared = {name: torch.from_numpy(np.asarray(received[name])) for name in self.shapes}
        rows = torch.from_numpy(np.array(items.rows))
        own = {TABLE: shared.pop(TABLE)[rows.clamp_min(0)]}  # [C, U, D]
        asked = torch.from_numpy((windows.targets >= 0).sum((1, 2))).float()
        weights = asked if self.config.weighting == "events" else torch.ones(len(users))
        if not each and self.broadcast and is_one_gradient(local):
            found = summed_gradients(self.local_loss, shared, own, data, users.draws, weights)
            return self._in_one(found, rows, weights)
        found = train_users(
            self.local_loss, shared, own, data, users.draws, local, broadcast=self.broadcast
        )
        table = Rows(rows, found.changes.pop(TABLE) * (rows >= 0).unsqueeze(-1), self.items)
        updates = Updates(weights, {TABLE: table, **found.changes})
        return Trained(updates, float(weights.sum()), found.losses, {})

    def touched_items(self, users: LocalUsers, round: int) -> Sequences:
        """Items, a row for each user, whose vectors it trains for certain; doubles do not matter.

        Those of the history; a method whose loss reads other items adds them.
        """
        del round
        return users.histories

    def more_data(self, users: LocalUsers, rows: np.ndarray, round: int) -> Tensors:
        """What ``local_loss`` reads besides, ``[C, ...]``: for methods that build on this one.

        ``rows`` int64 ``[C, U]`` are the items that each user trains with, ascending, then -1.
        """
        del users, rows, round
        return {}

    def local_loss(self, parameters: Tensors, data: Tensors, key: Tensor) -> Tensor:
        """The mean over one user's events of the loss of predicting the next item.

        Args:
            parameters: of the network; its table has only the ``U`` rows of this user.
            data: ``items``, ``targets`` ``[W, L]``, ``lengths`` ``[W]``, ``correction`` ``[U]``.
            key: of the user in this step, for dropout.
        """
        histories = Histories(data["items"], data["lengths"], data.get("times"))
        hidden = self.run_network(parameters, histories, key)  # [W, L, D]
        logits = hidden.flatten(0, 1) @ parameters[TABLE].T + data["correction"]  # [W L, U]
        targets = data["targets"].flatten()
        total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
        return total / (targets >= 0).sum().clamp_min(1)

    def run_network(self, parameters: Tensors, histories: Histories, key: Tensor) -> Tensor:
        """Vectors ``[W, L, D]`` of one user's windows."""
        self.keys.begin(key)
        # Layers of attention hold their keys and values under two names: swapping "tied" names
        # would put a user's tensor back in place of the network's own.
        return functional_call(self.network, parameters, (histories,), tie_weights=False)

    def _in_one(self, found: LocalResult, rows: Tensor, weights: Tensor) -> Trained:
        rate = -self.config.local.learning_rate
        changes = {name: (one * rate).unsqueeze(0) for name, one in found.changes.items()}
        table = changes.pop(TABLE).flatten(1, 2)  # [1, C U, D]
        index = rows.reshape(1, -1)
        table = Rows(index, table * (index >= 0).unsqueeze(-1), self.items)
        updates = Updates(torch.ones(1), {TABLE: table, **changes})
        return Trained(updates, float(weights.sum()), found.losses, {})

    def _fresh(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.world.seed)
            return self.model._network(self.items)


def _meaning(name: str) -> str:
    return "vectors of all items" if name == TABLE else "weights of the network"
