"""What a reply cannot be, though it is declared: counts of nobody, sums that clipping forbids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.fleet import Delivery
from foretaste.federated.core.messages import Reply
from foretaste.federated.core.travelling import COUNTED, FIGURE, NEW, WEIGHT

SLACK = {"float32": 1.01, "int8": 2.0}
"""By how much a sum may pass the clipping norm, for what rounding adds."""
ROUNDING = 1e-9
"""By how much, in itself, a mean may pass 1."""

MASKED = 1e-3
"""By how much a sum of masked numbers, which travel in fixed point, may be off."""


def check_counts(method: FederatedMethod, reply: Reply, most: int, place: str) -> None:
    """Refuse a reply to an order to train or to evaluate that no honest node can send.

    Args:
        method: what is run.
        reply: with plain numbers.
        most: users that it can be of.
        place: for messages.

    Raises:
        InputError: for users that do not exist, votes that users cannot have, a sum longer than
            its users' clipped updates together, or figures that are no means over users.
    """
    users = int(reply.arrays[COUNTED[reply.kind]])
    if not 0 <= users <= most:
        raise InputError(
            f"{place}: {users} users cannot be, where federated.users and federated.nodes make it "
            f"{most} at most. It was left out."
        )
    if reply.kind == "evaluate":
        _check_figures(reply, users, place)
    else:
        _check_votes(method, reply, users, place)
        _check_norm(method, reply, users, place)


def without_a_crowd(deliveries: Sequence[Delivery], counted: str, users: int) -> list[Delivery]:
    """Without the replies of most users, until the others are of ``users`` together at most.

    Args:
        deliveries: of replies that can be, each by itself.
        counted: the name of their count of users.
        users: that there are.
    """
    replies = {one.node: one.reply for one in deliveries if one.reply is not None}
    claims = {node: int(reply.arrays[counted]) for node, reply in replies.items()}
    total, left, problems = sum(claims.values()), users, {}
    for node in sorted(claims, key=lambda node: (claims[node], node)):
        left -= claims[node]
        if left < 0:
            problems[node] = (
                f"{node}: {claims[node]} of {total} users in all replies cannot be, where there "
                f"are {users} (federated.users). Replies of most users were left out."
            )
    return [
        one._replace(reply=None, problem=problems[one.node]) if one.node in problems else one
        for one in deliveries
    ]


def _check_figures(reply: Reply, users: int, place: str) -> None:
    for name, array in reply.arrays.items():
        value = float(array)
        if name.startswith(FIGURE) and not 0 <= value <= users * (1 + ROUNDING):
            raise InputError(
                f"{place}: {name} of {value:g} over {users} users cannot be. It was left out."
            )


def _check_votes(method: FederatedMethod, reply: Reply, users: int, place: str) -> None:
    votes, even = float(reply.arrays[WEIGHT]), method.config.weighting == "uniform"
    if votes != users if even else votes < users:
        raise InputError(f"{place}: {votes:g} votes of {users} users cannot be. It was left out.")
    for name in method.counts():
        array = reply.arrays[name]
        least, largest = float(array.min()), float(array.max())
        if least < -MASKED or largest > votes * (1 + ROUNDING) + MASKED:
            raise InputError(
                f"{place}: {name} from {least:g} to {largest:g}, where there are {votes:g} votes, "
                "cannot be. It was left out."
            )
    for name, array in reply.arrays.items():
        if name.startswith(NEW) and not 0 <= int(array) <= users:
            raise InputError(
                f"{place}: {name} of {int(array)} of {users} users cannot be. It was left out."
            )


def _check_norm(method: FederatedMethod, reply: Reply, users: int, place: str) -> None:
    config, privacy = method.config, method.config.privacy
    if not privacy.clip or (privacy.noise and privacy.where == "client"):
        return
    arrays = [reply.arrays[one.name] for one in method.up()]
    norm = math.sqrt(sum(float(np.square(one, dtype=np.float64).sum()) for one in arrays))
    if norm > SLACK[config.upload] * privacy.clip * users:
        raise InputError(
            f"{place}: an update of norm {norm:.3g}, where {users} users clipped to "
            f"{privacy.clip:g} come to {privacy.clip * users:.3g} at most. It was left out."
        )


def finite(state: Arrays) -> bool:
    """Whether a state holds finite numbers only."""
    return all(np.isfinite(one).all() for one in state.values() if one.dtype.kind == "f")
