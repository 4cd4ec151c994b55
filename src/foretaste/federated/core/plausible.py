"""What a reply cannot be, though it is declared: counts of nobody, sums that clipping forbids."""

from __future__ import annotations

import math

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.messages import Reply
from foretaste.federated.core.travelling import USERS, WEIGHT

SLACK = {"float32": 1.01, "int8": 2.0}
"""By how much a sum may pass the clipping norm, for what rounding adds."""


def check_counts(method: FederatedMethod, reply: Reply, place: str) -> None:
    """Refuse a reply to a training order that no honest node can send.

    Raises:
        InputError: for votes that users cannot have, or a sum longer than its users' clipped
            updates together.
    """
    config, privacy = method.config, method.config.privacy
    users, votes = int(reply.arrays[USERS]), float(reply.arrays[WEIGHT])
    even = config.weighting == "uniform"
    if users < 0 or (votes != users if even else votes < users):
        raise InputError(f"{place}: {votes:g} votes of {users} users cannot be. It was left out.")
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
