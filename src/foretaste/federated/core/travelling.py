"""All that travels between a node and the server, as lists that both sides check against."""

from __future__ import annotations

from collections.abc import Sequence

from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Declared
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.messages import Kind
from foretaste.federated.core.rounding import as_bytes

MEASURED = ("ndcg@10", "hr@10")
USERS, WEIGHT, LOSS, ASKED = "count/users", "count/votes", "figure/loss", "count/asked"
NEW, FIGURE = "count/new/", "figure/"
"""Before names: of arrays that are kept, users who did not have one yet; of metrics, their sum."""
COUNTED: dict[Kind, str] = {"train": USERS, "evaluate": ASKED}
"""The users that a reply is of."""

SECURE = "secure/"
"""Before the names of what secure aggregation adds."""
SESSION, PLACE = SECURE + "session", SECURE + "place"
MASK_KEYS, SHARE_KEYS = SECURE + "mask_keys", SECURE + "share_keys"
SEALED, THERE, DELIVERED = SECURE + "sealed_shares", SECURE + "there", SECURE + "delivered"
SELF_SHARES, KEY_SHARES = SECURE + "self_shares", SECURE + "key_shares"
EXCHANGES: tuple[Kind, ...] = ("train.keys", "train.shares", "train", "train.unmask")
"""Of a secure round, in order."""
SESSION_BYTES, KEY_BYTES, SECRET_BYTES = 16, 32, 16
SEALED_BYTES = 12 + 2 * SECRET_BYTES + 16
"""A nonce, two shares, and the tag of their cipher."""


def going_up(method: FederatedMethod, kind: Kind, nodes: int | None = None) -> tuple[Declared, ...]:
    """All that a node may send in answer to an order of this kind.

    Args:
        method: what is run.
        kind: of the order.
        nodes: of the node's group in secure aggregation; None says the most.
    """
    config = method.config
    if kind == "evaluate":
        asked = Declared(ASKED, "int64", (), "users who were measured", "to divide by")
        return (asked, *(_measured(name) for name in measured(config)))
    if config.secure.on:
        return _secure_up(method, kind, nodes or config.secure.group)
    sums = method.up()
    return (*(as_bytes(sums) if config.upload == "int8" else sums), *_counts(method))


def measured(config: FederatedConfig) -> tuple[str, ...]:
    """Metrics of evaluation at the clients; the one that chooses the best round is among them."""
    return tuple(dict.fromkeys((*MEASURED, config.metric)))


def coming_down(
    method: FederatedMethod, kind: Kind, nodes: int | None = None
) -> tuple[Declared, ...]:
    """All that the server may send in an order of this kind; arguments as of ``going_up``."""
    own = method.down() if kind in ("train", "evaluate") else ()
    if not method.config.secure.on or kind == "evaluate":
        return own
    return (*own, *secure_down(kind, nodes or method.config.secure.group))


def sums_of(method: FederatedMethod) -> tuple[Declared, ...]:
    """What a node adds up in training, as it is before it is rounded or masked."""
    return (*method.up(), *_counts(method))


def masked(declared: Sequence[Declared]) -> tuple[Declared, ...]:
    """How sums are declared when they travel as whole numbers under masks.

    Single numbers become arrays of one, since only arrays may be unsigned.
    """
    return tuple(
        one._replace(
            dtype="uint32" if one.dtype == "float32" else "uint64",
            shape=one.shape or (1,),
            meaning=f"{one.meaning}; masked, so it tells nothing by itself",
        )
        for one in declared
    )


def secure_down(kind: Kind, nodes: int) -> tuple[Declared, ...]:
    """What an exchange of a secure round brings down besides the method's own arrays."""
    if kind == "train.keys":
        return (_session(),)
    if kind == "train.shares":
        place = Declared(PLACE, "int64", (), "which row of the group is the node's", "to find it")
        return (_session(), place, *_keys(nodes, "of the nodes of the group"))
    if kind == "train":
        there = Declared(THERE, "bool", (nodes,), "who of the group goes on", "to mask with them")
        what, why = "shares for this node, sealed by their senders", "to unmask nodes that drop out"
        return (_session(), there, Declared(SEALED, "uint8", (nodes, SEALED_BYTES), what, why))
    what = "who of the group sent sums"
    return (_session(), Declared(DELIVERED, "bool", (nodes,), what, "to know what to unmask"))


def _secure_up(method: FederatedMethod, kind: Kind, nodes: int) -> tuple[Declared, ...]:
    if kind == "train.keys":
        return (_session(), *_keys(1, "of this node, for one attempt of one round"))
    if kind == "train.shares":
        what = "shares of this node's two secrets, each sealed for one node of the group"
        why = "to unmask the sum when nodes drop out"
        return (_session(), Declared(SEALED, "uint8", (nodes, SEALED_BYTES), what, why))
    if kind == "train":
        return (_session(), *masked(sums_of(method)))
    shape = (nodes, SECRET_BYTES)
    own = "shares of the self masks of nodes that sent sums"
    keys = "shares of the mask keys of nodes that dropped out"
    why = "to take the masks off the sum of the group"
    return (
        _session(),
        Declared(SELF_SHARES, "uint8", shape, own, why),
        Declared(KEY_SHARES, "uint8", shape, keys, why),
    )


def _session() -> Declared:
    what = "random number of the attempt"
    return Declared(SESSION, "uint8", (SESSION_BYTES,), what, "to refuse what is of another")


def _keys(nodes: int, whose: str) -> tuple[Declared, ...]:
    shape = (nodes, KEY_BYTES)
    return (
        Declared(MASK_KEYS, "uint8", shape, f"public keys {whose}", "to agree on pairs of masks"),
        Declared(SHARE_KEYS, "uint8", shape, f"public keys {whose}", "to seal shares with"),
    )


def _counts(method: FederatedMethod) -> tuple[Declared, ...]:
    counts = [
        Declared(USERS, "int64", (), "users who trained", "to know whether enough took part"),
        Declared(WEIGHT, "float64", (), "sum of their votes", "to divide by"),
    ]
    if not method.config.privacy.noise:
        meaning = "training loss of what came down, summed over users"
        counts.append(Declared(LOSS, "float64", (), meaning, "to see that learning goes on"))
    for one in method.down():
        if one.kept:
            meaning = f"users who did not have {one.name} yet"
            counts.append(Declared(NEW + one.name, "int64", (), meaning, "to measure bytes down"))
    return tuple(counts)


def _measured(name: str) -> Declared:
    return Declared(FIGURE + name, "float64", (), f"{name}, summed over users", "evaluation")
