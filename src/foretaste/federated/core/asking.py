"""Orders to nodes with what a method sends down, and replies that are as declared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Arrays, Declared, check
from foretaste.federated.core.fleet import Delivery, Fleet
from foretaste.federated.core.messages import PROTOCOL, Kind, Order, Reply, check_protocol
from foretaste.federated.core.plausible import check_counts
from foretaste.federated.core.randomness import uniform, user_keys
from foretaste.federated.core.rounding import from_bytes

LATE = 21
"""Place of the hash by which nodes are late."""


class Asking:
    """The server's way to its nodes. What a node keeps is not sent to it again.

    Attributes:
        clients: users of the federation.
        held: fingerprints of what each node keeps, by the names of node and array.
    """

    def __init__(self, method: FederatedMethod, fleet: Fleet, clients: int) -> None:
        """Nothing is asked yet."""
        self.method, self.fleet, self.config = method, fleet, method.config
        self.clients = clients
        self.held: dict[str, dict[str, str]] = {}

    def orders(
        self, kind: Kind, number: int, nodes: Sequence[str], state: Arrays
    ) -> dict[str, Order]:
        """An order for each node with what goes down in a round."""
        whole = self.method.to_send(state, number)
        check(whole, self.method.down(), f"server, round {number}")
        kept = {one.name for one in self.method.down() if one.kept}
        prints = {name: _fingerprint(whole[name]) for name in kept}
        orders: dict[frozenset[str], Order] = {}
        asked = {}
        for node in nodes:
            has = self.held.get(node, {})
            absent = frozenset(name for name in kept if has.get(name) == prints[name])
            if absent not in orders:
                arrays = {name: array for name, array in whole.items() if name not in absent}
                orders[absent] = Order(kind, number, PROTOCOL, self.config.clients, arrays)
            asked[node] = orders[absent]
            self.held[node] = dict(prints)
        return asked

    def ask(
        self, orders: Mapping[str, Order], declared: Mapping[str, Sequence[Declared]]
    ) -> list[Delivery]:
        """Send orders; replies that are not as declared, by node, become problems."""
        checked = []
        for one in self.fleet.ask(orders, self.config.wait):
            order = orders[one.node]
            try:
                if one.reply is not None:
                    if is_late(one.node, order.round, self.config.faults.late):
                        raise InputError("too late")
                    place = f"{one.node}, round {order.round}"
                    check_protocol(one.reply, place)
                    if (one.reply.kind, one.reply.round) != (order.kind, order.round):
                        raise InputError(f"{place}: a reply to round {one.reply.round} came late.")
                    check(one.reply.arrays, declared[one.node], place)
                    restored = self._restored(one.reply, place)
                    if order.kind == "evaluate" or not self.config.secure.on:
                        check_counts(self.method, restored, self.most(1), place)
                    one = one._replace(reply=restored)
            except InputError as error:
                one = one._replace(reply=None, problem=str(error))
            if one.reply is None:
                self.held.pop(one.node, None)  # it may have lost what it kept, or never got it
            checked.append(one)
        return checked

    def most(self, nodes: int) -> int:
        """Users that so many nodes can have: one each where every user is a node."""
        return self.clients if self.config.nodes else min(nodes, self.clients)

    def _restored(self, reply: Reply, place: str) -> Reply:
        """With numbers again where bytes came."""
        up = self.method.up()
        if reply.kind != "train" or self.config.upload == "float32":
            return reply
        sums = from_bytes(reply.arrays, up)
        check(sums, up, place)
        return reply._replace(arrays={**reply.arrays, **sums})


def is_late(node: str, round: int, odds: float) -> bool:
    """Whether a node is late in a round, by chance; for tests of stragglers."""
    return bool(odds) and bool(uniform(user_keys([node]), round, LATE)[0] < odds)


def _fingerprint(array: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
