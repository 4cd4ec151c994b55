"""A node: the histories of its users, their local training, and the boundary they do not cross."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.federated.core.attacks import hostile, spoilt, spoilt_histories
from foretaste.federated.core.base import FederatedMethod, LocalUsers
from foretaste.federated.core.boundary import Arrays, Refused, check
from foretaste.federated.core.kept import KeptArrays
from foretaste.federated.core.local_training import chunks
from foretaste.federated.core.messages import PROTOCOL, Order, Reply, check_protocol
from foretaste.federated.core.node_secret import NodeSecret
from foretaste.federated.core.personal import PersonalStore
from foretaste.federated.core.privacy import clipped, noisy
from foretaste.federated.core.randomness import hashed, uniform
from foretaste.federated.core.rounding import to_bytes
from foretaste.federated.core.sessions import NodeSessions
from foretaste.federated.core.travelling import (
    ASKED,
    EXCHANGES,
    FIGURE,
    LOSS,
    NEW,
    USERS,
    WEIGHT,
    going_up,
    measured,
)
from foretaste.federated.core.updates import Updates, zeros
from foretaste.metrics import query_metrics, target_positions

TAKES_PART, DROPS, HELD_OUT, ROUNDED = 11, 12, 13, 14
"""Places of hashes by which users are chosen and values rounded."""


@dataclass(frozen=True)
class NodeUsers:
    """The users of a node.

    Attributes:
        keys: uint64 ``[users]``, a hash of each user's id.
        histories: what they did and may train on.
        targets: what each is asked for in evaluation, maybe nothing; None leaves every user's
            newest event out of training and asks for it.
        unknown: events that were left out, since their items are not in the catalog.
    """

    keys: np.ndarray
    histories: Sequences
    targets: Sequences | None = None
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class Node:
    """Answers orders. All randomness is a hash of seed, round and user.

    Attributes:
        method: what it runs.
        users: whose data it holds.
        name: for messages.
        folder: where personal arrays, kept arrays and the secrets of a secure round stay; None
            keeps them in memory.
        secret: the number that its noise, and with noise its users' coins, are drawn from; by
            default the one in its folder, or a fresh one.
    """

    method: FederatedMethod
    users: NodeUsers
    name: str = "node"
    folder: Path | None = None
    secret: int | None = None

    def __post_init__(self) -> None:
        """Reads nothing yet."""
        self.config, seed = self.method.config, self.method.world.seed
        self.store = PersonalStore(self.method.personal(), self.users.keys, self.folder)
        self.kept = KeptArrays(self.folder, self.users.keys)
        self.own = NodeSecret(self.folder, self.secret)
        if self.config.privacy.noise:
            self.own.keep()
        self.sessions = NodeSessions(self.method, self.folder)
        self.bad = hostile(self.users.keys, self.config.attack, seed)
        self.histories, self.targets = self._held_back()

    def answer(self, order: Order) -> Reply:
        """The reply to an order.

        Raises:
            InputError: when the node cannot train, say.
            Refused: when the order is of another protocol or does not hold what was declared,
                or when what would leave is not what was declared (a loss that is no number, say).
        """
        place, kind = f"{self.name}, round {order.round}", order.kind
        check_protocol(order, place)
        if kind == "evaluate" and not self.config.client_evaluation:
            raise Refused(f"{place}: evaluation on clients is off in this federation.")

        def train(order: Order) -> Arrays:
            return self._train(self._complete(order, place), order, place)

        nodes = None
        if kind == "evaluate":
            arrays = self._measure(self._complete(order, place), order)
        elif self.config.secure.on and kind in EXCHANGES:
            arrays, nodes = self.sessions.answer(order, train, place)
        elif kind == "train":
            arrays = train(order)
        else:
            raise Refused(
                f"{place}: {kind} was asked, which this node does not answer with this recipe. "
                "Server and node must have the same federated.secure.on."
            )
        check(arrays, going_up(self.method, kind, nodes), place)
        return Reply(kind, order.round, PROTOCOL, arrays)

    def _complete(self, order: Order, place: str) -> Arrays:
        """What came down, with what was kept from earlier rounds."""
        declared = self.method.down()
        received = dict(order.arrays)
        absent = [one.name for one in declared if one.kept and one.name not in received]
        if absent:
            received |= self.kept.take(absent, place)
        check(received, declared, place)
        new = {
            one.name: received[one.name]
            for one in declared
            if one.name in order.arrays and one.kept
        }
        if new:
            self.kept.put(new)
        return received

    def _train(self, received: Arrays, order: Order, place: str) -> Arrays:
        method, config = self.method, self.config
        noise = config.privacy.noise
        hides = bool(noise) and config.privacy.where == "client"
        drawn = self.own.once(order.round, config.rounds, received, place) if hides else ()
        rows = self._taking_part(order)
        draws = hashed(self.users.keys, method.world.seed, order.round)
        personal, known = self.store.before(order.round)
        fresh = rows[~known[rows]]
        for name, array in method.first_personal(draws[fresh]).items():
            personal[name][fresh] = array
        sums = zeros({one.name: one.shape for one in method.up()})
        votes, losses, counted = 0.0, 0.0, [rows[:0]]
        each = bool(config.privacy.clip) or config.attack.kind != "none"
        costs = method.cost(self.histories.lengths[rows])
        for group in chunks(costs, config.memory):
            of = rows[group]
            users = LocalUsers(
                self.users.keys[of],
                draws[of],
                spoilt_histories(self.histories.take(of), self.bad[of], config.attack),
                {name: array[of] for name, array in personal.items()},
            )
            trained = method.train(received, users, order.round, each=each)
            if not trained.updates.finite.all():
                if not each:
                    trained = method.train(received, users, order.round, each=True)
                good = trained.updates.finite & trained.losses.isfinite()
                trained, users, of = trained.of(good), users.of(good.numpy()), of[good.numpy()]
            counted.append(of)
            losses += float(trained.losses.double().sum())
            votes += trained.weight if not config.privacy.clip else len(of)
            for name, array in trained.personal.items():
                personal[name][of] = array
            self._add(trained.updates, users, self.bad[of], sums)
        rows = np.concatenate(counted)
        if not len(self._enough(rows)):  # with those left out whose updates are no numbers
            rows, votes, losses = rows[:0], 0.0, 0.0
            sums = zeros({one.name: one.shape for one in method.up()})
            personal, known = self.store.before(order.round)
        known[rows] = True
        self.store.after(order.round, personal, known)
        if hides and len(rows):
            sums = noisy(sums, config.privacy, len(rows), drawn)
        if config.upload == "int8":
            sums = self._rounded(sums, order.round)
        counts = {USERS: np.array(len(rows), np.int64), WEIGHT: np.array(votes, np.float64)}
        if not noise:
            counts[LOSS] = np.array(losses, np.float64)
        return sums | counts | self._fresh(rows)

    def _add(self, updates: Updates, users: LocalUsers, bad: np.ndarray, sums: Arrays) -> None:
        """Spoil what hostile users send, clip, and add up."""
        config = self.config
        if extra := sorted(set(updates.parts) - set(sums)):
            raise InputError(
                f'{self.name}: {self.method.name} made "{extra[0]}", which is not on its list of '
                "what may go up, so nothing was sent. Declare it in up()."
            )
        parts = [updates]
        if bad.any():
            index = torch.from_numpy(bad)
            wrong = spoilt(
                updates.pick(index), users.draws[bad], config.attack, self.method.counts()
            )
            parts = [updates.pick(~index), wrong]
        for part in parts:
            (clipped(part, config.privacy) if config.privacy.clip else part).add_to(sums)

    def _rounded(self, sums: Arrays, round: int) -> Arrays:
        """As bytes. The chance is a hash, so that a round that is asked again sends the same."""
        declared, seed = self.method.up(), self.method.world.seed
        check(sums, declared, f"{self.name}, round {round}")  # a byte is always a number
        who = np.bitwise_xor.reduce(self.users.keys, initial=0)
        return to_bytes(sums, declared, int(hashed(who, seed, round, ROUNDED)))

    def _measure(self, received: Arrays, order: Order) -> Arrays:
        """Sums of metrics over users who have something to be asked for, ``min_users`` or more."""
        rows = np.flatnonzero((self.targets.lengths > 0) & (self.histories.lengths > 0))
        rows = self._enough(rows[~self.held_out[rows]])
        personal, known = self.store.before(order.round + 1)
        draws = hashed(self.users.keys, self.method.world.seed, order.round)
        fresh = rows[~known[rows]]
        for name, array in self.method.first_personal(draws[fresh]).items():
            personal[name][fresh] = array
        names = measured(self.config)
        totals: dict[str, float] = dict.fromkeys(names, 0.0)
        costs = self.method.cost(self.histories.lengths[rows]) + len(self.method.world.catalog)
        for group in chunks(costs, self.config.memory):  # a user's scores lie beside the rest
            of = rows[group]
            histories, targets = self.histories.take(of), self.targets.take(of)
            users = LocalUsers(
                self.users.keys[of],
                draws[of],
                histories,
                {name: array[of] for name, array in personal.items()},
            )
            scores = self.method.scores(received, users)
            scores[
                torch.from_numpy(histories.rows), torch.from_numpy(histories.items).long()
            ] = -torch.inf
            positions = target_positions(scores, targets.rows, targets.items)
            found = query_metrics(positions, targets.rows, len(of), names)
            for name, values in found.items():
                totals[name] += float(values.sum())
        return {ASKED: np.array(len(rows), np.int64)} | {
            FIGURE + name: np.array(value, np.float64) for name, value in totals.items()
        }

    def _taking_part(self, order: Order) -> np.ndarray:
        """Rows of the users who train in a round: sampled, with two events, and not dropped.

        With noise the coins are the node's secret: epsilon holds for those who do not know who
        took part.
        """
        keys, seed = self.users.keys, self.method.world.seed
        coins = self.own.number if self.config.privacy.noise else seed
        chosen = uniform(keys, coins, order.round, TAKES_PART) < order.clients
        chosen &= uniform(keys, seed, order.round, DROPS) >= self.config.faults.drop
        return self._enough(np.flatnonzero(chosen & (self.histories.lengths > 1) & ~self.held_out))

    def _enough(self, rows: np.ndarray) -> np.ndarray:
        """These users, or nobody: fewer than ``min_users`` stay away."""
        return rows if len(rows) >= self.config.min_users else rows[:0]

    @property
    def held_out(self) -> np.ndarray:
        """Users that never train, bool ``[users]``."""
        return held_out(self.users.keys, self.config.held_out, self.method.world.seed)

    def _held_back(self) -> tuple[Sequences, Sequences]:
        histories, targets = self.users.histories, self.users.targets
        if targets is not None or not self.config.client_evaluation:
            none = Sequences(np.empty(0, np.int32), np.zeros(len(histories) + 1, np.int64))
            return histories, none if targets is None else targets
        newest = histories.last(1).where(histories.lengths[histories.last(1).rows] > 1)
        keep = np.ones(histories.events, bool)
        keep[histories.offsets[1:][histories.lengths > 1] - 1] = False
        return histories.where(keep), newest

    def _fresh(self, rows: np.ndarray) -> Arrays:
        """How many of the users who took part had not got what is kept, and get it now."""
        names = [one.name for one in self.method.down() if one.kept]
        counts = self.kept.count_new(names, rows) if names else {}
        return {NEW + name: np.array(count, np.int64) for name, count in counts.items()}


def held_out(keys: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which users never train, bool ``[users]``: a hash, so the server can tell them too."""
    return uniform(keys, seed, HELD_OUT) < share
