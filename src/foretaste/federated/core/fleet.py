"""The nodes as the server sees them, and the simplest of fleets: nodes in this process."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from foretaste.errors import InputError
from foretaste.federated.core.messages import Order, Reply, decode, encode
from foretaste.federated.core.node import Node

POLL = 0.5
"""Seconds between looks for nodes."""
LOGGER = logging.getLogger(__name__)


class Delivery(NamedTuple):
    """What came back of one order.

    Attributes:
        node: whose.
        reply: None when none came or it could not be read.
        problem: why not, one line.
        down: bytes of the order as it was sent.
        up: bytes of the reply as it came.
        silent: nothing came at all, so that asking again is waiting again.
    """

    node: str
    reply: Reply | None
    problem: str = ""
    down: int = 0
    up: int = 0
    silent: bool = False


class Fleet(ABC):
    """Nodes that can be asked."""

    @abstractmethod
    def nodes(self) -> Sequence[str]:
        """Names of the nodes that can be asked now, in an order that does not change."""

    @abstractmethod
    def ask(self, orders: Mapping[str, Order], wait: float) -> Iterable[Delivery]:
        """Send each node its order; give what comes back within ``wait`` seconds.

        A delivery for every order, in any order; late ones have no reply.
        """

    @abstractmethod
    def size(self, order: Order) -> int:
        """Bytes of an order as this fleet sends it."""


class LocalFleet(Fleet):
    """Nodes in this process. Messages pass as bytes, as they would over a wire."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        """``nodes`` need names of their own."""
        self._nodes = {node.name: node for node in nodes}

    def nodes(self) -> Sequence[str]:
        """As of ``Fleet``."""
        return list(self._nodes)

    def ask(self, orders: Mapping[str, Order], wait: float) -> Iterator[Delivery]:
        """As of ``Fleet``; nothing is ever late."""
        del wait
        sent: dict[int, bytes] = {}
        for name, order in orders.items():
            content = sent.get(id(order)) or encode(order)
            sent[id(order)] = content  # one order to many nodes is one string of bytes
            yield self._deliver(self._nodes[name], content, order.round)

    def size(self, order: Order) -> int:
        """As of ``Fleet``."""
        return len(encode(order))

    def _deliver(self, node: Node, content: bytes, round: int) -> Delivery:
        try:
            order = decode(content, node.name)
            assert isinstance(order, Order)
            answer = encode(node.answer(order))
            reply = decode(answer, node.name)
            assert isinstance(reply, Reply)
        except InputError as error:
            return Delivery(node.name, None, str(error), len(content))
        except Exception as error:  # of one node, which must not end the federation
            LOGGER.exception("%s, round %d", node.name, round)
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return Delivery(node.name, None, f"{node.name}, round {round}: {said}", len(content))
        return Delivery(node.name, reply, "", len(content), len(answer))
