"""The server: rounds, the rule of who counts, evaluation, and a checkpoint after every round."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core.aggregation import aggregate
from foretaste.federated.core.asking import Asking
from foretaste.federated.core.base import FederatedMethod, Sums
from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.checkpoint import (
    Progressed,
    Round,
    read_checkpoint,
    write_checkpoint,
)
from foretaste.federated.core.fleet import POLL, Delivery, Fleet
from foretaste.federated.core.messages import PROTOCOL, Kind, Order, Reply
from foretaste.federated.core.node_secret import OWNER_ONLY
from foretaste.federated.core.plausible import finite, without_a_crowd
from foretaste.federated.core.privacy import epsilon, local_epsilon, noisy
from foretaste.federated.core.secure_rounds import Collected, SecureRounds
from foretaste.federated.core.travelling import (
    ASKED,
    COUNTED,
    FIGURE,
    LOSS,
    NEW,
    USERS,
    WEIGHT,
    going_up,
    measured,
)
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.base import Recommender
from foretaste.storage import write_whole

SECRET = "federation.secret"
MOST_SKIPPED = 20
"""Rounds in a row with a failing node and too few users; after them it is no chance any more."""
NOT_FINITE = "their updates add up to no finite number; the model stays as it was"
Evaluate = Callable[[Recommender], dict[str, float]]
"""Figures of a recommender by name; ``valid`` chooses the best round."""


class Server:
    """Runs the rounds of one federation over a fleet.

    With a folder, a checkpoint is written after every round, and a server that was killed goes on
    from its last whole round. A round counts when at least ``min_clients`` users took part; nodes
    that failed are asked again up to ``retries`` times (silent ones only while no other answered);
    replies that are late, damaged, of another protocol or not as declared are left out. Too few
    users may be chance, as users are sampled: then the state stays as it is and the next round
    begins, up to ``MOST_SKIPPED`` times in a row while a node fails. When no node is there, the
    server waits for one up to ``wait`` seconds before it stops. With ``secure.on`` sums are those
    of groups of nodes, and a node's own are never seen.
    """

    def __init__(
        self,
        method: FederatedMethod,
        fleet: Fleet,
        *,
        clients: int,
        folder: Path | None = None,
        evaluate: Evaluate | None = None,
        progress: Progress | None = None,
        log: Callable[..., None] | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            method: what is run.
            fleet: over whom.
            clients: users of the federation, as far as known without ``users`` of its
                configuration; privacy divides by the number that is expected to take part instead
                of the number that did.
            folder: where the checkpoint lies; None keeps none.
            evaluate: figures of a recommender; None never evaluates at the server.
            progress: who is told.
            log: called with facts worth keeping.

        Raises:
            InputError: when the folder holds a checkpoint of something else.
        """
        self.method, self.fleet, self.config = method, fleet, method.config
        self.clients = self.config.users or clients
        self.folder, self.evaluate = folder, evaluate
        self.progress, self.log = progress or Silent(), log or _nothing
        self.now = read_checkpoint(folder, method) or Progressed(method.start())
        self.secret = self._own_secret()
        self.asking = Asking(method, fleet, self.clients)
        self.held = self.asking.held
        self.secure = SecureRounds(self.asking) if self.config.secure.on else None
        self._skipped = 0

    def run(self) -> Progressed:
        """All rounds that are left; the best state is in ``best`` (the last without evaluation).

        Raises:
            InputError: when no node answers any more; the checkpoint is of the last whole round.
        """
        with self.progress.task("federating", self.config.rounds) as task:
            task.advance(self.now.next_round - 1)
            while self.now.next_round <= self.config.rounds:
                done = self.step()
                task.advance(1, _note(done, self.config.metric))
        if not self.now.best:
            self.now.best, self.now.best_round = _model(self.now.state), self.config.rounds
        return self.now

    def step(self) -> Round:
        """One round."""
        begin, number, config = time.perf_counter(), self.now.next_round, self.config
        deliveries, replies = self._gather(number)
        sums = aggregate([self._sums(one) for one in replies], config.robust)
        losses = [float(one.arrays[LOSS]) for one in replies if LOSS in one.arrays]
        if sums.users >= config.min_clients and sums.weight:
            sums = self._private(sums, number)
            with np.errstate(over="ignore", invalid="ignore"):
                following = self.method.next_state(self.now.state, sums, number)
            if finite(following):
                self.now.state = following
            else:  # large updates that were numbers each; the model stays as it was
                self.log("left out", round=number, node="all", problem=NOT_FINITE)
        figures, on_clients, asked = self._evaluate(number)
        down, up = self._per_client("train", deliveries, replies, sums.users)
        evaluation_down, evaluation_up = self._per_client("evaluate", asked)
        done = Round(
            round=number,
            users=sums.users,
            nodes=sum(one.reply is not None for one in deliveries),
            problems=_problems([*deliveries, *asked]),
            loss=math.fsum(losses) / sums.users if losses and sums.users else None,
            seconds=time.perf_counter() - begin,
            down=down,
            up=up,
            wire_down=sum(one.down for one in deliveries),
            wire_up=sum(one.up for one in deliveries),
            figures=figures,
            on_clients=on_clients,
            evaluation_down=evaluation_down,
            evaluation_up=evaluation_up,
            evaluation_wire_down=sum(one.down for one in asked),
            evaluation_wire_up=sum(one.up for one in asked),
        )
        self.now.curve.append(done)
        self.now.next_round += 1
        if self.folder is not None:
            write_checkpoint(self.folder, self.method, self.now)
        self.log("round", **done._asdict())
        return done

    def spent(self) -> float | None:
        """Epsilon of the rounds so far; None without noise."""
        privacy = self.config.privacy
        rounds = self.now.next_round - 1
        if not privacy.noise:
            return None
        if privacy.where == "client":
            return local_epsilon(privacy.noise, rounds, privacy.delta)
        return epsilon(privacy.noise, self.config.clients, rounds, privacy.delta)

    def _gather(self, number: int) -> tuple[list[Delivery], list[Reply]]:
        """Ask until enough users took part, every node answered, or patience is over."""
        answered: dict[str, Delivery] = {}
        failed: list[Delivery] = []
        silent: set[str] = set()
        sums: dict[str, Reply] = {}
        users = 0
        for _ in range(self.config.retries + 1):
            out = silent if answered else set()
            asked = [name for name in self._there() if name not in answered and name not in out]
            if not asked:
                break
            found = self._collect(number, asked)
            sums |= found.sums
            answered |= {one.node: one for one in found.deliveries if one.reply is not None}
            failed += self._left_out(number, found.deliveries)
            silent |= {one.node for one in found.deliveries if one.silent}
            users = sum(int(one.arrays[USERS]) for one in sums.values())
            if answered and users >= self.config.min_clients:
                break
        if answered and users >= self.config.min_clients:
            self._skipped = 0
        elif not answered or set(self.fleet.nodes()) - set(answered):
            self._skipped += 1
            chance = answered and self.config.clients < 1 and self._skipped < MOST_SKIPPED
            if not chance:
                raise InputError(self._gone(number, len(answered), users, failed))
        ordered = [answered[name] for name in sorted(answered)]
        return [*ordered, *failed], [sums[name] for name in sorted(sums)]

    def _there(self) -> Sequence[str]:
        """The nodes; when there are none, those that come within ``wait`` seconds."""
        end = time.monotonic() + self.config.wait
        while not (nodes := self.fleet.nodes()) and time.monotonic() < end:
            time.sleep(POLL)
        return nodes

    def _left_out(self, number: int, deliveries: list[Delivery]) -> list[Delivery]:
        """Those without a reply, which are logged."""
        failed = [one for one in deliveries if one.reply is None]
        for one in failed:
            self.log("left out", round=number, node=one.node, problem=one.problem)
        return failed

    def _collect(self, number: int, nodes: list[str]) -> Collected:
        """Sums of each node, or of groups where they are secure."""
        if self.secure is not None:
            return self.secure.collect(number, nodes, self.now.state)
        deliveries = self._ask("train", number, nodes)
        return Collected(
            deliveries, {one.node: one.reply for one in deliveries if one.reply is not None}
        )

    def _ask(self, kind: Kind, number: int, nodes: list[str]) -> list[Delivery]:
        orders = self.asking.orders(kind, number, nodes, self.now.state)
        found = self.asking.ask(orders, dict.fromkeys(orders, going_up(self.method, kind)))
        return without_a_crowd(found, COUNTED[kind], self.clients)

    def _sums(self, reply: Reply) -> Sums:
        arrays = {one.name: reply.arrays[one.name] for one in self.method.up()}
        return Sums(arrays, float(reply.arrays[WEIGHT]), int(reply.arrays[USERS]))

    def _private(self, sums: Sums, number: int) -> Sums:
        """With noise: the noise of the server, and division by what does not depend on data."""
        privacy = self.config.privacy
        if not privacy.noise:
            return sums
        arrays = sums.arrays
        if privacy.where == "server":
            arrays = noisy(arrays, privacy, 1.0, (self.secret, number))
        expected = self.config.clients * self.clients * (1 - self.config.held_out)
        return Sums(arrays, max(1.0, expected), sums.users)

    def _evaluate(self, number: int) -> tuple[dict[str, float], dict[str, float], list[Delivery]]:
        """Figures at the server, at the clients, and what came from those."""
        config, now = self.config, self.now
        figures, on_clients, asked = {}, {}, []
        if number % config.evaluate_every and number != config.rounds:
            return figures, on_clients, asked
        if self.evaluate is not None:
            figures = self.evaluate(self.method.recommender(now.state))
        if config.client_evaluation:
            asked = self._ask("evaluate", number, list(self.fleet.nodes()))
            self._left_out(number, asked)
            on_clients = self._means(asked)
        value = figures.get("valid", on_clients.get(config.metric))
        if value is not None and (now.best_value is None or value > now.best_value):
            now.best_value, now.best_round, now.best = value, number, _model(now.state)
        return figures, on_clients, asked

    def _means(self, deliveries: list[Delivery]) -> dict[str, float]:
        """Over users, of the figures that nodes measured."""
        found = [one.reply.arrays for one in deliveries if one.reply is not None]
        users = sum(int(one[ASKED]) for one in found)
        if not users:
            return {}
        return {
            name: math.fsum(float(one[FIGURE + name]) for one in found) / users
            for name in measured(self.config)
        }

    def _per_client(
        self,
        kind: Kind,
        deliveries: list[Delivery],
        replies: Sequence[Reply] = (),
        users: int = 0,
    ) -> tuple[float, float]:
        """Bytes down and up of a client: those of a node of one user in its place.

        A message of a node has the arrays of one user's, so its bytes are the same. What is kept
        was sent for those users only who did not have it when they trained.
        """
        answered = [one for one in deliveries if one.reply is not None]
        if not answered:
            return 0.0, 0.0
        kept = {one.name: one.bytes for one in self.method.down() if one.kept}
        number = self.now.next_round
        whole = self.method.to_send(self.now.state, number)
        arrays = {name: array for name, array in whole.items() if name not in kept}
        besides, others = self.secure.added() if self.secure and kind == "train" else ({}, [])
        order = Order(kind, number, PROTOCOL, self.config.clients, arrays | besides)
        down = float(sum(self.fleet.size(one) for one in (order, *others)))
        for name, size in kept.items():
            new = sum(int(one.arrays[NEW + name]) for one in replies)
            down += size * new / max(users, 1)
        return down, float(max(one.up for one in answered))

    def _gone(self, number: int, nodes: int, users: int, failed: list[Delivery]) -> str:
        why = f" The last problem: {failed[-1].problem}" if failed else ""
        kept = f"Rounds up to {number - 1} are kept."
        if number == 1:
            kept = "No round was done, so there is nothing to go on from."
        elif self.folder:
            kept += f" Go on later: foretaste resume {self.folder}."
        return (
            f"round {number}: {users} clients of {nodes} nodes answered, "
            f"{self.config.min_clients} are needed.{why} {kept}"
        )

    def _own_secret(self) -> int:
        """What the server's noise is drawn from, in a file that only its owner can read."""
        path = None if self.folder is None else self.folder / SECRET
        if path is not None and path.exists():
            return int(path.read_text())
        found = secrets.randbits(128)
        if path is not None and self.config.privacy.noise:
            write_whole(path, str(found).encode(), mode=OWNER_ONLY)
        return found


def _model(state: Arrays) -> Arrays:
    """A state without the moments of the server's optimiser."""
    return {name: array for name, array in state.items() if not name.startswith("server/")}


def _problems(deliveries: list[Delivery]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in deliveries:
        if one.reply is None:
            counts[one.problem] = counts.get(one.problem, 0) + 1
    return counts


def _note(done: Round, metric: str) -> str:
    loss = "" if done.loss is None else f"loss {done.loss:.3f} "
    valid = f"{metric} {done.figures['valid']:.4f} " if "valid" in done.figures else ""
    return f"{loss}{valid}({done.users / max(done.seconds, 1e-9):,.0f} clients/s)"


def _nothing(event: str, **facts: Any) -> None:
    del event, facts
