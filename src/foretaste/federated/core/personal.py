"""What stays with users between rounds, on the disk of their node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from foretaste.errors import InputError
from foretaste.federated.core.boundary import Arrays, Declared
from foretaste.storage import read_arrays, write_arrays

LENGTHS = "lengths/"
"""Before the name of an array of which every user has as many rows as it likes: how many."""


def as_rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of different lengths as an array of arrays, ``[users]``."""
    found = np.empty(len(parts), object)
    for place, part in enumerate(parts):
        found[place] = part
    return found


def nothing(declared: Declared, users: int) -> np.ndarray:
    """What users have before anything was kept: zeros, or no rows."""
    if declared.ragged:
        return as_rows([np.zeros((0, *declared.shape[1:]), declared.dtype)] * users)
    return np.zeros((users, *declared.shape), declared.dtype)


class PersonalStore:
    """Personal arrays of the users of one node.

    A file holds them as they were after a round. An order for a round reads what was there before
    it, so that a round that is asked again (the server was killed, say) trains from the same
    arrays as the first time. Two files are kept.
    """

    def __init__(self, declared: tuple[Declared, ...], keys: np.ndarray, folder: Path | None):
        """``keys`` uint64 ``[users]`` of the node; without a folder all stays in memory."""
        self.declared, self.folder = declared, folder
        self.order = np.argsort(keys)
        self.keys = keys[self.order]
        self._memory: dict[int, Arrays] = {}
        if folder is not None and declared:
            folder.mkdir(parents=True, exist_ok=True)

    def before(self, round: int) -> tuple[Arrays, np.ndarray]:
        """Arrays ``[users, *shape]`` as they were before a round, in the order of the keys given.

        Of an array with rows as many as a user has (shape ``(-1, ...)``), an array of arrays.

        Returns:
            The arrays, and whether a user has any, bool ``[users]``.
        """
        known = np.zeros(len(self.keys), bool)
        arrays = {one.name: nothing(one, len(self.keys)) for one in self.declared}
        earlier = [number for number in self._rounds() if number < round]
        if not self.declared or not earlier:
            return arrays, known
        kept = self._read(max(earlier))
        place = np.searchsorted(self.keys, kept["keys"]).clip(max=len(self.keys) - 1)
        mine = self.keys[place] == kept["keys"]  # a node may have lost users since
        rows = self.order[place[mine]]
        known[rows] = True
        for one in self.declared:
            found = kept[one.name]
            if one.ragged:
                ends = np.cumsum(kept[LENGTHS + one.name])
                found = as_rows(np.split(found, ends)[:-1])
            arrays[one.name][rows] = found[mine]
        return arrays, known

    def after(self, round: int, arrays: Arrays, known: np.ndarray) -> None:
        """Keep the arrays of the users for which ``known`` holds, as they are after a round."""
        if not self.declared:
            return
        rows = self.order[known[self.order]]
        kept = {name: array[rows] for name, array in arrays.items()}
        for one in self.declared:
            if one.ragged:
                own = kept[one.name]
                kept[one.name] = np.concatenate([*own, np.zeros((0, *one.shape[1:]), one.dtype)])
                kept[LENGTHS + one.name] = np.array([len(part) for part in own], np.int64)
        kept["keys"] = self.keys[known[self.order]]
        if self.folder is None:
            self._memory[round] = kept
        else:
            write_arrays(self._path(round), kept)
        numbers = self._rounds()
        later = [number for number in numbers if number > round]  # of a federation begun anew
        for old in [*sorted(number for number in numbers if number < round)[:-1], *later]:
            self._memory.pop(old, None)
            if self.folder is not None:
                self._path(old).unlink(missing_ok=True)

    def _read(self, round: int) -> Arrays:
        if self.folder is None:
            return self._memory[round]
        kept = read_arrays(self._path(round))
        for one in self.declared:
            if not _fits(one, kept):
                raise InputError(
                    f"{self._path(round)}: not the personal arrays of this method. Give the node "
                    "another folder, or delete the file to begin anew."
                )
        return kept

    def _rounds(self) -> list[int]:
        if self.folder is None:
            return list(self._memory)
        return [int(path.stem.split("-")[1]) for path in self.folder.glob("personal-*.safetensors")]

    def _path(self, round: int) -> Path:
        assert self.folder is not None
        return self.folder / f"personal-{round:06d}.safetensors"


def _fits(declared: Declared, kept: Mapping[str, np.ndarray]) -> bool:
    array, users = kept.get(declared.name), len(kept["keys"])
    if array is None or not declared.ragged:
        return array is not None and array.shape == (users, *declared.shape)
    lengths = kept.get(LENGTHS + declared.name, np.zeros(0))
    return len(lengths) == users and array.shape == (lengths.sum(), *declared.shape[1:])
