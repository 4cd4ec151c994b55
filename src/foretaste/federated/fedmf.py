"""FedMF: a table of item vectors is learnt together, a user's own vector never leaves the device.

Chai et al., "Secure Federated Matrix Factorization" (IEEE Intelligent Systems 2020), for choices
instead of ratings: the loss is the binary cross-entropy of what a user chose against items drawn
at random, as in the methods that build on this one (``pfedrec``, ``rqfedrec``). Our decisions: the
loss, the drawing, and gradient descent at the client with an adaptive step at the server.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from foretaste.errors import InputError
from foretaste.federated.core.base import FederatedMethod, LocalUsers, Sums, Trained, World
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.federated.core.chosen_items import (
    ChosenItems,
    Steps,
    asked_by_items,
    descend,
    drawn_examples,
    fit_heads,
    scattered,
    touched_rows,
)
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.randomness import hashed
from foretaste.federated.core.rounding import as_bytes, from_bytes, to_bytes
from foretaste.federated.core.server_step import server_step
from foretaste.federated.core.table_config import FedMFConfig
from foretaste.federated.core.updates import Rows, Updates
from foretaste.recommenders.als import ALS
from foretaste.recommenders.core.base import Recommender

TABLE, TOUCHED, HEAD = "table", "touched", "head"
"""Vectors that travel, how many touched each, and what stays with a user."""
_HASHES = 8_101
"""Keeps the places of hashed items apart from other hashes of item numbers."""


class FedMF(FederatedMethod):
    """Score = a user's own vector times the item's; both take their step from the same point.

    The model of the recipe is ``als``: it gives the width, and answers for users whom the server
    does not know by solving for the vector that fits their history (``ALS.fold_in``).
    """

    name = "fedmf"
    Config = FedMFConfig
    alternates = False
    """Whether a user's own part is fitted before the items take their step."""
    constant = 0
    """Numbers of a head beside the item's width: 1 for one that also adds a constant."""
    table_is = "vectors of all items"
    """What the table holds, for the list of what comes down."""

    def __init__(self, config: FederatedConfig, world: World) -> None:
        """``world.model`` must be ``als``."""
        super().__init__(config, world)
        if not isinstance(world.model, ALS):
            raise InputError(
                f"{self.name} trains item vectors without a network; {world.model.name} is not of "
                "that kind. Choose --model als (model.factors is the width)."
            )
        self.model = world.model
        self.dim: int = world.model.config.factors
        self._made: tuple[Mapping[str, np.ndarray], Tensor] | None = None

    @property
    def rows(self) -> int:
        """Of the table that travels."""
        return self.config.rows or self.items

    def down(self) -> tuple[Declared, ...]:
        """The table, as bytes where the settings say so."""
        return as_bytes(self._table) if self.config.precision == "int8" else self._table

    @property
    def _table(self) -> tuple[Declared]:
        what = "hashed item vectors" if self.config.rows else self.table_is
        shape = (self.rows, self.dim)
        return (Declared(TABLE, "float32", shape, what, "a client scores and trains with it"),)

    def to_send(self, state: Mapping[str, np.ndarray], round: int) -> Arrays:
        """The table, as bytes where the settings say so."""
        del round
        table = {TABLE: state[TABLE]}
        return to_bytes(table, self._table, None) if self.config.precision == "int8" else table

    def up(self) -> tuple[Declared, ...]:
        """The change of the table, and who touched its rows where that is asked for."""
        change = Declared(
            TABLE,
            "float32",
            (self.rows, self.dim),
            "change of the table, summed over a node's users",
            "the server moves the common table by the mean change",
        )
        if self.config.average == "all":
            return (change,)
        count = "users who touched each row of the table"
        return (
            change,
            Declared(TOUCHED, "float32", (self.rows, 1), count, "to average a row over them"),
        )

    def counts(self) -> tuple[str, ...]:
        """Who touched the rows."""
        return () if self.config.average == "all" else (TOUCHED,)

    def personal(self) -> tuple[Declared, ...]:
        """What makes a score of an item vector."""
        shape = (self.dim + self.constant,)
        return (Declared(HEAD, "float32", shape, "the user's own vector", "it is their taste"),)

    def start(self) -> Arrays:
        """Small random vectors."""
        draws = np.random.default_rng([self.world.seed, 0])
        table = self.config.spread * draws.standard_normal((self.rows, self.dim))
        return {TABLE: table.astype(np.float32)}

    def next_state(self, state: Arrays, sums: Sums, round: int) -> Arrays:
        """The server's optimiser on the mean change, over all clients or over those who touched."""
        del round
        return server_step(state, {TABLE: self.averaged(sums)}, self.config.server)

    def averaged(self, sums: Sums) -> np.ndarray:
        """The change of the table that a round asks for, float32 ``[rows, dim]``."""
        if self.config.average == "all":
            return sums.mean()[TABLE]
        touched = np.maximum(sums.arrays[TOUCHED], 1.0)  # nobody there: the sum is 0 too
        return (sums.arrays[TABLE] / touched).astype(np.float32)

    def table(self, received: Mapping[str, np.ndarray]) -> np.ndarray:
        """The table of a state or of what came down, float32 ``[rows, dim]``."""
        came_as_bytes = received[TABLE].dtype == np.int8
        return (from_bytes(received, self._table) if came_as_bytes else received)[TABLE]

    def codes(self, received: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Rows of the table that an item adds up, int64 ``[items, L]``; None: its own row."""
        del received
        if not self.config.rows:
            return None
        items = np.arange(self.items).astype(np.uint64)
        places = [
            hashed(items, self.world.seed, _HASHES, number) % np.uint64(self.config.rows)
            for number in range(self.config.hashes)
        ]
        return np.stack(places, 1).astype(np.int64)

    def item_vectors(self, received: Mapping[str, np.ndarray]) -> np.ndarray:
        """Vectors of all items, float32 ``[items, dim]``."""
        table, codes = self.table(received), self.codes(received)
        return table if codes is None else table[codes].sum(1)

    def _all_vectors(self, received: Mapping[str, np.ndarray]) -> Tensor:
        """``item_vectors`` as a tensor, made once for all groups of users of a round."""
        if self._made is None or self._made[0] is not received:
            vectors = np.array(self.item_vectors(received), np.float32)
            self._made = received, torch.from_numpy(vectors)
        return self._made[1]

    def recommender(self, state: Mapping[str, np.ndarray]) -> Recommender:
        """ALS with these item vectors: it answers for anybody whose history it is given.

        Heads stay on devices, so the server solves for the one that fits a history; a head with a
        constant becomes a column of ones. It knows no popularity: an empty history gets the items
        in the order of the catalog.
        """
        vectors = np.asarray(self.item_vectors(state), np.float32)
        ones = np.ones((self.items, self.constant), np.float32)
        width = self.dim + self.constant
        found = ALS(self.model.config.model_copy(update={"factors": width}))
        found.catalog = self.world.catalog
        found.popularity = np.zeros(self.items, np.int64)
        found.factors = torch.from_numpy(np.concatenate([vectors, ones], 1))
        return found

    def first_personal(self, draws: np.ndarray) -> Arrays:
        """Random vectors of length about 1."""
        angle = 2 * np.pi * self._uniform(draws, 1)
        radius = np.sqrt(-2 * np.log(np.maximum(self._uniform(draws, 2), 1e-12)))
        vectors = radius * np.cos(angle) / np.sqrt(self.dim)  # Box and Muller
        return {HEAD: vectors.astype(np.float32)}

    def _uniform(self, draws: np.ndarray, place: int) -> np.ndarray:
        columns = [hashed(draws, place, number) for number in range(self.dim)]
        return (np.stack(columns, 1) >> np.uint64(11)) * 2.0**-53

    def cost(self, lengths: np.ndarray) -> np.ndarray:
        """Vectors of a user's examples several times over, and its copy of a shared table."""
        examples = np.minimum(lengths * (1 + self.config.local.negatives), self.items)
        shared = 2.0 * self.rows * self.dim if self.config.rows else 0.0
        return shared + 2.0 * examples * (self.dim + self.constant)

    def train(
        self, received: Mapping[str, np.ndarray], users: LocalUsers, round: int, *, each: bool
    ) -> Trained:
        """See ``FederatedMethod``."""
        local = self.config.local
        chosen = self.examples(users)
        vectors = self.seen_vectors(received, users, chosen)  # [C, U, D]
        before = torch.from_numpy(users.personal[HEAD])
        after, losses = self.fit_heads(before, vectors, chosen)
        # Without alternation both parts step from the point that they were at.
        head = self.split_head(after if self.alternates else before)
        weights = torch.ones(len(users))
        if self.config.weighting == "events":
            weights = torch.from_numpy(users.histories.lengths).float()
        codes, own = self.codes(received), {}
        if codes is not None and not each and self.adds_up:
            asked = asked_by_items(vectors, chosen, *head, local.learning_rate)
            parts = self._in_one(asked, torch.from_numpy(codes), chosen, weights, round)
            updates = Updates(torch.ones(1), parts)
        else:
            table = torch.from_numpy(np.array(self.table(received)))
            places = None if codes is None else torch.from_numpy(codes)[chosen.items]  # [C, U, L]
            steps, own = self.descend(vectors, table, places, chosen, head, users, round)
            parts = self.parts(steps.tables, places, chosen)
            parts |= self.more_parts(steps.items, chosen.items, round)
            updates = Updates(weights, parts)
        return Trained(updates, float(weights.sum()), losses, {HEAD: after.numpy(), **own})

    def examples(self, users: LocalUsers) -> ChosenItems:
        """What users chose, and items drawn anew in every round."""
        return drawn_examples(users.histories, users.draws, self.config.local.negatives, self.items)

    def seen_vectors(
        self, received: Mapping[str, np.ndarray], users: LocalUsers, chosen: ChosenItems
    ) -> Tensor:
        """Vectors of the examples as each user sees them, ``[C, U, D]``."""
        del users
        return self._all_vectors(received)[chosen.items]

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
        """Changes of what travels, and what else stays with the users then; see ``descend``."""
        del users, round
        return descend(vectors, table, places, chosen, *head, self.config.local), {}

    @property
    def adds_up(self) -> bool:
        """Whether an update is linear in what items ask for, so that sums over users are enough."""
        return self.config.local.epochs == 1 and not self.config.local.clip

    def _in_one(
        self,
        asked: Tensor,
        codes: Tensor,
        chosen: ChosenItems,
        weights: Tensor,
        round: int,
    ) -> dict[str, Tensor | Rows]:
        """What goes up for all users together: items first, then the rows that they add up."""
        total = torch.zeros(self.items, self.dim)
        weighted = asked * weights.view(-1, 1, 1)
        total.index_add_(0, chosen.items.flatten(), weighted.flatten(0, 1))
        parts: dict[str, Tensor | Rows] = {
            TABLE: scattered(total[None], codes[None], self.rows),
        }
        if self.config.average == "touched":
            marks = touched_rows(codes[chosen.items], chosen, self.rows)
            parts[TOUCHED] = (weights @ marks).view(1, -1, 1)
        return parts | self.more_parts(total[None], torch.arange(self.items)[None], round)

    def parts(
        self, changes: Tensor, places: Tensor | None, chosen: ChosenItems
    ) -> dict[str, Tensor | Rows]:
        """What goes up for the table; ``changes`` are of the user's rows or of the whole table."""
        if places is None:
            index = torch.where(chosen.weights > 0, chosen.items, -1)
            parts: dict[str, Tensor | Rows] = {TABLE: Rows(index, changes, self.rows)}
            mark: Tensor | Rows = Rows(index, (index >= 0).float().unsqueeze(-1), self.rows)
        else:
            parts = {TABLE: changes}
            mark = touched_rows(places, chosen, self.rows).unsqueeze(-1)
        return parts if self.config.average == "all" else parts | {TOUCHED: mark}

    def more_parts(self, asked: Tensor, items: Tensor, round: int) -> dict[str, Tensor | Rows]:
        """What else goes up, given what ``items`` ``[C, U]`` themselves ask for, ``[C, U, D]``."""
        del asked, items, round
        return {}

    def fit_heads(
        self, heads: Tensor, vectors: Tensor, chosen: ChosenItems
    ) -> tuple[Tensor, Tensor]:
        """Heads after ``head.epochs`` steps on these item vectors, and the losses before."""
        whole = F.pad(vectors, (0, self.constant), value=1.0)
        config = self.config
        epochs, rate = config.head.epochs, config.head.learning_rate
        return fit_heads(heads, whole, chosen, config.regularization, epochs, rate)

    def split_head(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """The vector ``[C, D]`` and the constant ``[C]`` of every head."""
        return heads[:, : self.dim], heads[:, self.dim :].sum(1)

    def scores(self, received: Mapping[str, np.ndarray], users: LocalUsers) -> Tensor:
        """By each user's own head, fitted to what came down before it answers."""
        chosen = self.examples(users)
        heads = torch.from_numpy(users.personal[HEAD])
        heads, _ = self.fit_heads(heads, self.seen_vectors(received, users, chosen), chosen)
        head, constant = self.split_head(heads)
        return self.scores_of(head, received, users) + constant[:, None]

    def scores_of(
        self, head: Tensor, received: Mapping[str, np.ndarray], users: LocalUsers
    ) -> Tensor:
        """Heads ``[C, D]`` times the vectors of all items, ``[C, items]``."""
        del users
        return head @ self._all_vectors(received).T

    def item_evidence(
        self, update: Mapping[str, np.ndarray], received: Mapping[str, np.ndarray], round: int
    ) -> np.ndarray:
        """The norm of the change of an item's row; of several rows all must have changed."""
        del round
        codes = self.codes(received)
        norms = np.linalg.norm(update[TABLE], axis=1)
        return norms if codes is None else norms[codes].min(1)
