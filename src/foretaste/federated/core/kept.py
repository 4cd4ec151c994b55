"""What came down and is kept at a node, so that it travels only when it has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from foretaste.federated.core.boundary import Arrays, Refused
from foretaste.storage import read_arrays, write_arrays

FILE = "kept.safetensors"


class KeptArrays:
    """Arrays by name, and which users of the node have had them.

    A node of one user would have got an array when it first took part after it changed. So that
    bytes can be counted for each user, a node of many remembers who has had it.
    """

    def __init__(self, folder: Path | None, keys: np.ndarray) -> None:
        """``keys`` uint64 ``[users]`` of the node; without a folder all stays in memory."""
        self.folder, self.keys = folder, keys
        self._memory: Arrays = {}

    def put(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep these in place of older ones of the names; no user has had them."""
        state = self._read()
        for name, array in arrays.items():
            state[f"array/{name}"] = array
            state[f"had/{name}"] = self.keys[:0]
        self._write(state)

    def take(self, names: Sequence[str], place: str) -> Arrays:
        """The arrays of these names.

        Raises:
            Refused: when one is not here, as on a device that is new.
        """
        state = self._read()
        for name in names:
            if f"array/{name}" not in state:
                raise Refused(f'{place}: "{name}" was not kept here. Send it again.')
        return {name: state[f"array/{name}"] for name in names}

    def count_new(self, names: Sequence[str], rows: np.ndarray) -> dict[str, int]:
        """How many of the users ``rows`` had not had each array; now they have."""
        state, keys = self._read(), self.keys[rows]
        counts = {}
        for name in names:
            had = state[f"had/{name}"]
            counts[name] = int((~np.isin(keys, had)).sum())
            state[f"had/{name}"] = np.union1d(had, keys)
        self._write(state)
        return counts

    def _read(self) -> Arrays:
        if self.folder is None:
            return self._memory
        path = self.folder / FILE
        return read_arrays(path) if path.exists() else {}

    def _write(self, state: Arrays) -> None:
        if self.folder is None:
            self._memory = state
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_arrays(self.folder / FILE, state)
