"""The state of a training run after a whole epoch, in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.errors import InputError
from foretaste.recommenders.core.base import require_version
from foretaste.recommenders.core.results import Epoch
from foretaste.storage import read_arrays, read_arrays_about, write_arrays

FILE = "checkpoint.safetensors"
KEPT = "kept/"


class Origin(NamedTuple):
    """What weights are of, where their names and shapes do not tell: no other can go on with them.

    Attributes:
        version: of the recommender.
        codes: ``Codes.table_fingerprint``; empty for one that writes no codes.
    """

    version: int = 1
    codes: str = ""


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
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    origin: Origin,
    kept: dict[str, np.ndarray],
) -> None:
    """Write network, optimizer, state and what is ``kept`` with them to ``folder`` in one step."""
    about: dict[str, Any] = {"origin": origin._asdict()}
    about |= {name: value for name, value in vars(state).items() if name != "best"}
    about["curve"] = [list(epoch) for epoch in state.curve]
    arrays = {f"network/{name}": value for name, value in network.state_dict().items()}
    arrays |= {f"best/{name}": value for name, value in state.best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
    plain = {name: _numpy(value) for name, value in arrays.items()}
    plain |= {f"{KEPT}{name}": value for name, value in kept.items()}
    write_arrays(folder / FILE, plain, about)


def read_kept(folder: Path | None) -> dict[str, np.ndarray]:
    """What a checkpoint holds that was made before training; nothing without a checkpoint.

    Raises:
        InputError: when the file is damaged.
    """
    if folder is None or not (folder / FILE).exists():
        return {}
    arrays = read_arrays(folder / FILE)
    return {
        name.removeprefix(KEPT): array for name, array in arrays.items() if name.startswith(KEPT)
    }


def load_checkpoint(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, origin: Origin
) -> TrainingState | None:
    """Put a checkpoint's state into network and optimizer; None when there is no checkpoint.

    Raises:
        InputError: when the file is damaged, or of another network, version or code table.
    """
    path = folder / FILE
    if not path.exists():
        return None
    arrays, about = read_arrays_about(path)
    written = Origin(**about.pop("origin", {}))
    require_version(folder, written.version, origin.version)
    if written.codes != origin.codes:
        raise InputError(
            f"{folder}: training began with other codes, for which alone its weights are of use. "
            "Restore them, or train again into another folder."
        )
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
    try:
        for name, value in arrays.items():
            if name.startswith(KEPT):
                continue
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
