"""Orders of the server and replies of nodes, and their bytes."""

from __future__ import annotations

import json
import zlib
from typing import Any, Literal, NamedTuple

import numpy as np

from foretaste.federated.core.boundary import Arrays, Refused

PROTOCOL = 1
"""Of messages. A node and a server that differ in it do not understand each other."""

Kind = Literal["train", "evaluate", "train.keys", "train.shares", "train.unmask"]
"""The last three are of secure aggregation, before and after ``train``."""


class Order(NamedTuple):
    """What the server asks of a node.

    Attributes:
        kind: what is asked.
        round: from 1.
        protocol: of the sender.
        clients: the share of a node's users that take part; who does is a hash of seed, round and
            user, so it does not depend on how users are grouped into nodes.
        arrays: what goes down.
    """

    kind: Kind
    round: int
    protocol: int
    clients: float
    arrays: Arrays


class Reply(NamedTuple):
    """What a node answers.

    Attributes:
        kind: of the order.
        round: of the order.
        protocol: of the sender.
        arrays: what goes up: sums over users, and counts.
    """

    kind: Kind
    round: int
    protocol: int
    arrays: Arrays


def encode(message: Order | Reply) -> bytes:
    """A message as the bytes of a safetensors file."""
    from safetensors.numpy import save

    about: dict[str, Any] = {"type": type(message).__name__.lower(), **message._asdict()}
    del about["arrays"]
    whole = {name: np.asarray(array, order="C") for name, array in message.arrays.items()}
    about["crc32"] = _checksum(whole)
    return save(whole, {"about": json.dumps(about)})


def decode(content: bytes, place: str) -> Order | Reply:
    """The message that ``encode`` made.

    Raises:
        Refused: when it was cut short or is no message.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        about = json.loads(header["__metadata__"]["about"])
        if about.pop("crc32") != _checksum(arrays):
            raise ValueError("its values are not as they were sent")
        kind = {"order": Order, "reply": Reply}[about.pop("type")]
        return kind(arrays=arrays, **about)
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:100]
        raise Refused(
            f"{place}: a message was cut short or is not one of ours ({reason}). It was left out; "
            "the round goes on without it."
        ) from error


def _checksum(arrays: Arrays) -> int:
    checksum = 0
    for _, array in sorted(arrays.items()):
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def check_protocol(message: Order | Reply, place: str) -> None:
    """Refuse a message of another version of the protocol.

    Raises:
        Refused: which says who has to be updated.
    """
    if message.protocol != PROTOCOL:
        older = "sender" if message.protocol < PROTOCOL else "receiver"
        raise Refused(
            f"{place}: the message has protocol {message.protocol}, this side {PROTOCOL}. Update "
            f"Foretaste at the {older}; until then its messages are left out."
        )
