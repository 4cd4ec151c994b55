"""Secure rounds for tests: recipes, fleets that fail where they are told to, and orders by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.fleet import Delivery, LocalFleet
from foretaste.federated.core.messages import PROTOCOL, Kind, Order
from foretaste.federated.core.node import Node
from foretaste.federated.core.travelling import (
    DELIVERED,
    MASK_KEYS,
    PLACE,
    SEALED,
    SESSION,
    SHARE_KEYS,
    THERE,
)

LOCAL = {"epochs": 2, "negatives": 6, "learning_rate": 0.02}


def secured(nodes: int, **secure: Any) -> dict[str, Any]:
    """Fields of a federation whose sums are secure."""
    return {"nodes": nodes, "clients": 1.0, "secure": {"on": True, **secure}}


class Failing(LocalFleet):
    """Nodes that do not answer some orders; ``fails`` says which, by node and kind."""

    def __init__(self, nodes: Iterable[Node], fails: Callable[[str, Kind], bool]) -> None:
        super().__init__(nodes)
        self.fails = fails
        self.asked: list[tuple[str, str]] = []

    def ask(self, orders, wait):
        self.asked += [(node, order.kind) for node, order in orders.items()]
        silent = {node for node, order in orders.items() if self.fails(node, order.kind)}
        here = {node: order for node, order in orders.items() if node not in silent}
        yield from super().ask(here, wait)
        for node in silent:
            yield Delivery(node, None, f"{node}: gone at {orders[node].kind}", 1)


class Group:
    """A session of some nodes that is driven by hand, as a server would."""

    def __init__(self, nodes: list[Node], session: int = 1, round: int = 1) -> None:
        self.nodes, self.round = nodes, round
        self.session = np.full(16, session, np.uint8)
        self.keys: list[Arrays] = []
        self.sealed = np.zeros((len(nodes), len(nodes), 60), np.uint8)
        self.there = np.ones(len(nodes), bool)

    def order(self, kind: Kind, arrays: Mapping[str, np.ndarray]) -> Order:
        return Order(kind, self.round, PROTOCOL, 1.0, {SESSION: self.session, **arrays})

    def give_keys(self) -> list[Arrays]:
        self.keys = [one.answer(self.order("train.keys", {})).arrays for one in self.nodes]
        return self.keys

    def shares_order(self, place: int) -> Order:
        keys = {
            name: np.concatenate([one[name] for one in self.keys])
            for name in (MASK_KEYS, SHARE_KEYS)
        }
        return self.order("train.shares", {PLACE: np.array(place, np.int64), **keys})

    def give_shares(self) -> None:
        for place, node in enumerate(self.nodes):
            self.sealed[place] = node.answer(self.shares_order(place)).arrays[SEALED]

    def train_order(self, place: int) -> Order:
        arrays = {THERE: self.there, SEALED: self.sealed[:, place].copy()}
        method = self.nodes[place].method
        return self.order("train", method.to_send(method.start(), self.round) | arrays)

    def begin(self) -> Group:
        """Keys and shares of all."""
        self.give_keys()
        self.give_shares()
        return self

    def train(self, place: int) -> Arrays:
        return self.nodes[place].answer(self.train_order(place)).arrays

    def unmask(self, place: int, delivered: list[bool]) -> Arrays:
        order = self.order("train.unmask", {DELIVERED: np.array(delivered)})
        return self.nodes[place].answer(order).arrays
