"""Our messages as Flower's, and Flower's grid as a fleet. Both engines of Flower share this."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretaste.errors import InputError, MissingExtraError
from foretaste.federated.core.boundary import Arrays, Refused
from foretaste.federated.core.fleet import POLL, Delivery, Fleet
from foretaste.federated.core.messages import Kind, Order, Reply

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.serverapp import Grid

ARRAYS, NUMBERS, ABOUT, PROBLEM = "arrays", "numbers", "about", "problem"
LONGEST = 300
"""Characters of a node's reason that are kept."""


def require_flower() -> None:
    """Raises ``MissingExtraError`` when Flower is not installed."""
    try:
        import flwr  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("flwr", "federated") from error


def to_records(message: Order | Reply) -> RecordDict:
    """A message as Flower's records: arrays, numbers, and what it is about."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    about: dict[str, Any] = {"round": message.round, "protocol": message.protocol}
    if isinstance(message, Order):
        about["clients"] = message.clients
    whole = {name: one for name, one in message.arrays.items() if one.ndim}
    numbers = {name: one.item() for name, one in message.arrays.items() if not one.ndim}
    return RecordDict(
        {
            ARRAYS: ArrayRecord({name: Array(one) for name, one in whole.items()}),
            NUMBERS: MetricRecord(numbers),
            ABOUT: ConfigRecord(about),
        }
    )


def from_records(records: RecordDict, kind: Kind, place: str) -> Order | Reply:
    """The message in Flower's records.

    Raises:
        Refused: when records are missing, cut short or of other types.
    """
    try:
        about = dict(records.config_records[ABOUT])
        arrays: Arrays = {name: one.numpy() for name, one in records.array_records[ARRAYS].items()}
        for name, number in records.metric_records[NUMBERS].items():
            dtype = np.int64 if isinstance(number, int) else np.float64
            arrays[name] = np.array(number, dtype)
        if wrong := [name for name, one in arrays.items() if type(one) is not np.ndarray]:
            raise ValueError(f"{wrong[0][:40]} is no array")
        round_, protocol = int(about["round"]), int(about["protocol"])  # type: ignore[arg-type]
        if "clients" in about:
            return Order(kind, round_, protocol, float(about["clients"]), arrays)  # type: ignore[arg-type]
        return Reply(kind, round_, protocol, arrays)
    except Exception as error:  # what strangers send may break anything
        reason = " ".join(str(error).split())[:100]
        raise Refused(
            f"{place}: a message was cut short or is not one of ours ({reason}). It was left out; "
            "the round goes on without it."
        ) from error


def problem(text: str) -> RecordDict:
    """A reply that says why there is none."""
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({PROBLEM: ConfigRecord({"text": text})})


def size_of(records: RecordDict) -> int:
    """Bytes of records as Flower counts them: serialised arrays, numbers and names."""
    return sum(record.count_bytes() for record in records.values())


class FlowerFleet(Fleet):
    """The nodes of a Flower grid. A node's name is its number in Flower."""

    def __init__(self, grid: Grid, expected: int, wait: float) -> None:
        """Nothing is asked yet.

        Args:
            grid: Flower's way to its nodes.
            expected: nodes to wait for before the first round.
            wait: seconds to wait for them; then the round begins with those that are there.
        """
        self.grid, self.expected, self.wait = grid, expected, wait

    def nodes(self) -> Sequence[str]:
        """As of ``Fleet``; waits for the expected nodes the first time."""
        end = time.monotonic() + (self.wait if self.expected else 0)
        found = sorted(self.grid.get_node_ids())
        while len(found) < self.expected and time.monotonic() < end:
            time.sleep(POLL)
            found = sorted(self.grid.get_node_ids())
        self.expected = 0  # later, nodes may come and go
        return [str(one) for one in found]

    def ask(self, orders: Mapping[str, Order], wait: float) -> Iterator[Delivery]:
        """As of ``Fleet``."""
        from flwr.app import Message

        sizes, sent = {}, []
        made: dict[int, tuple[RecordDict, int]] = {}
        for node, order in orders.items():
            if id(order) not in made:  # one order to many nodes is one set of records
                records = to_records(order)
                made[id(order)] = records, size_of(records)
            records, sizes[node] = made[id(order)]
            sent.append(
                Message(
                    content=records,
                    dst_node_id=int(node),
                    message_type=order.kind,
                    group_id=str(order.round),
                )
            )
        silent = set(orders)
        for answer in self.grid.send_and_receive(sent, timeout=wait):
            node = str(answer.metadata.src_node_id)
            if node in silent:
                silent.discard(node)
                yield _delivery(node, orders[node].kind, answer, sizes[node])
        for node in sorted(silent):
            why = f"node {node}: no answer within {wait:g} seconds"
            yield Delivery(node, None, why, sizes[node], silent=True)

    def size(self, order: Order) -> int:
        """As of ``Fleet``."""
        return size_of(to_records(order))


def _delivery(node: str, kind: Kind, answer: Message, down: int) -> Delivery:
    if answer.has_error():
        reason = " ".join((answer.error.reason or "no reason given").split())[:200]
        return Delivery(node, None, f"node {node}: {reason}", down)
    content = answer.content
    if PROBLEM in content.config_records:
        text = str(content.config_records[PROBLEM].get("text", "gave no reason"))
        return Delivery(node, None, " ".join(text[:LONGEST].split()), down)
    try:
        reply = from_records(content, kind, f"node {node}")
    except InputError as error:
        return Delivery(node, None, str(error), down, size_of(content))
    if not isinstance(reply, Reply):
        return Delivery(node, None, f"node {node}: sent an order", down, size_of(content))
    return Delivery(node, reply, "", down, size_of(content))
