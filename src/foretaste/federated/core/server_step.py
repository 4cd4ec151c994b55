"""What the server makes of a mean update: FedAvg's step, or FedAdam's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.config import ServerConfig

FIRST, SECOND = "server/first/", "server/second/"
"""Where a state keeps the moments of its arrays."""


def server_step(state: Arrays, change: Mapping[str, np.ndarray], config: ServerConfig) -> Arrays:
    """The state after a mean ``change`` of some of its arrays; the old one is left as it was.

    FedAvg adds the change; with momentum it is FedAvgM (Hsu et al., 2019). ``adam`` is FedAdam
    (Reddi et al., ICLR 2021, algorithm 2), without correction of the first steps, as there.
    """
    following = dict(state)
    for name, delta in change.items():
        step = delta
        if config.momentum or config.optimizer == "adam":
            old = state.get(FIRST + name, np.zeros_like(delta))
            keep = config.momentum
            gain = 1 - keep if config.optimizer == "adam" else 1.0
            step = following[FIRST + name] = (keep * old + gain * delta).astype(delta.dtype)
        if config.optimizer == "adam":
            old = state.get(SECOND + name, np.zeros_like(delta))
            second = config.second * old + (1 - config.second) * np.square(delta)
            following[SECOND + name] = second.astype(delta.dtype)
            step = step / (np.sqrt(second) + config.epsilon)
        following[name] = (state[name] + config.learning_rate * step).astype(delta.dtype)
    return following
