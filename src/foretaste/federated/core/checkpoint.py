"""What a server knows between rounds, and the file that it goes on from when it was killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Arrays, check
from foretaste.storage import read_arrays_about, write_arrays

CHECKPOINT = "federation.safetensors"


class Round(NamedTuple):
    """What one round came to.

    Attributes:
        round: from 1.
        users: who took part.
        nodes: that answered.
        problems: nodes that did not, to train or to evaluate, by reason.
        loss: training loss of what came down, mean over users; None when it may not be told.
        seconds: of the whole round.
        down: bytes that one client receives to train, from the serialised order.
        up: bytes that one client sends then, from the serialised reply.
        wire_down: bytes sent to all nodes together.
        wire_up: bytes that came from all nodes.
        figures: of evaluation at the server, by name; empty when it was not due.
        on_clients: of evaluation at the clients, means over users; empty likewise.
        evaluation_down: as ``down``, of evaluation at the clients; what is kept counts in ``down``.
        evaluation_up: as ``up``, likewise.
        evaluation_wire_down: as ``wire_down``, likewise, with what is kept.
        evaluation_wire_up: as ``wire_up``, likewise.
    """

    round: int
    users: int
    nodes: int
    problems: dict[str, int]
    loss: float | None
    seconds: float
    down: float
    up: float
    wire_down: int
    wire_up: int
    figures: dict[str, float]
    on_clients: dict[str, float]
    evaluation_down: float = 0.0
    evaluation_up: float = 0.0
    evaluation_wire_down: int = 0
    evaluation_wire_up: int = 0


@dataclass
class Progressed:
    """What decides the rest of a federation."""

    state: Arrays
    next_round: int = 1
    best: Arrays = field(default_factory=dict)
    best_round: int | None = None
    best_value: float | None = None
    curve: list[Round] = field(default_factory=list)


def write_checkpoint(folder: Path, method: FederatedMethod, now: Progressed) -> None:
    """Write what a federation of the method has come to."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"state/{name}": array for name, array in now.state.items()}
    arrays |= {f"best/{name}": array for name, array in now.best.items()}
    about: dict[str, Any] = {
        "method": method.name,
        "next_round": now.next_round,
        "best_round": now.best_round,
        "best_value": now.best_value,
        "curve": [list(one) for one in now.curve],
    }
    write_arrays(folder / CHECKPOINT, arrays, about)


def read_checkpoint(folder: Path | None, method: FederatedMethod) -> Progressed | None:
    """What was written to the folder; None when nothing was.

    Raises:
        InputError: when it is damaged, or of another federation.
    """
    if folder is None or not (folder / CHECKPOINT).exists():
        return None
    path = folder / CHECKPOINT
    arrays, about = read_arrays_about(path)
    try:
        if about.pop("method") != method.name:
            raise ValueError("it is of another method")
        curve = [Round(*one) for one in about.pop("curve")]
        state = _part(arrays, "state/")
        check(method.to_send(state, about["next_round"]), method.down(), str(path))
        return Progressed(state, curve=curve, best=_part(arrays, "best/"), **about)
    except (KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"{path}: not a checkpoint of this federation ({reason}). Delete it to begin anew."
        ) from error


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
