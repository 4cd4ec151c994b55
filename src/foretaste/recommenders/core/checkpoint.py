"""The state of a training run after a whole epoch, in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.errors import InputError
from foretaste.recommenders.core.results import Epoch
from foretaste.storage import read_arrays_about, write_arrays

FILE = "checkpoint.safetensors"


@dataclass
class TrainingState:
    """What decides the rest of a run, besides its seed and its configuration.

    Random choices of an epoch depend on the seed and the epoch only, so no generator is kept.
    """

    next_epoch: int = 1
    step: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    since_best: int = 0
    seconds: float = 0.0
    curve: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write network, optimizer and state to ``folder`` in one step."""
    about = {name: value for name, value in vars(state).items() if name != "best"}
    about["curve"] = [list(epoch) for epoch in state.curve]
    arrays = {f"network/{name}": value for name, value in network.state_dict().items()}
    arrays |= {f"best/{name}": value for name, value in state.best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
    write_arrays(folder / FILE, {name: _numpy(value) for name, value in arrays.items()}, about)


def load_checkpoint(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingState | None:
    """Put a checkpoint's state into network and optimizer; None when there is no checkpoint.

    Raises:
        InputError: when the file is damaged or of another network.
    """
    path = folder / FILE
    if not path.exists():
        return None
    arrays, about = read_arrays_about(path)
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
    try:
        for name, value in arrays.items():
            part, rest = name.split("/", 1)
            parts[part][rest] = torch.from_numpy(value)
        network.load_state_dict(parts["network"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, slot = name.split("/")
            slots.setdefault(int(index), {})[slot] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
        curve = [Epoch(*epoch) for epoch in about.pop("curve")]
        return TrainingState(**about, curve=curve, best=parts["best"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"{path}: not a checkpoint of this run ({reason}). Delete it to train anew."
        ) from error


def _numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy()
