"""What may pass between a node and the server: a typed list, and the check against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from foretaste.errors import InputError

Arrays = dict[str, np.ndarray]


class Refused(InputError):
    """A message was not taken, or not sent.

    Its text names what is in messages (arrays, types, rounds) and nothing that a device holds, so
    it may travel; the text of any other error may not.
    """


class Declared(NamedTuple):
    """One array that travels or stays.

    Attributes:
        name: of the array.
        dtype: NumPy's name of its type, such as ``float32``.
        shape: its whole shape; ``()`` for a single number. Of personal arrays only, it may begin
            with -1: as many rows as the user has.
        meaning: what it is.
        reason: why it leaves (or, of personal arrays, why it stays).
        kept: the receiver keeps it, so it travels only when it has changed; for arrays that go
            down.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    meaning: str
    reason: str
    kept: bool = False

    @property
    def ragged(self) -> bool:
        """Whether it has as many rows as the user."""
        return -1 in self.shape[:1]

    @property
    def bytes(self) -> int:
        """Of its values; when it is ragged, of those of one row."""
        return abs(int(np.prod(self.shape, dtype=np.int64))) * np.dtype(self.dtype).itemsize


def check(arrays: Mapping[str, np.ndarray], declared: Sequence[Declared], place: str) -> None:
    """Refuse arrays that are not exactly what was declared.

    Args:
        arrays: what is about to pass, or has come.
        declared: all that may pass; each of it must be there.
        place: where, for the message, such as ``node 3, round 5``.

    Raises:
        Refused: an array too many or too few, of another type or shape, or with a value that
            is no finite number.
    """
    names = {one.name for one in declared}
    if extra := sorted(set(arrays) - names):
        raise Refused(
            f'{place}: "{extra[0]}" is not on the list of what may travel, so nothing was passed '
            "on. Declare it in the method, or do not send it."
        )
    for one in declared:
        if one.name not in arrays:
            raise Refused(f'{place}: "{one.name}" is missing. Update the sender to this method.')
        _check_one(arrays[one.name], one, place)


def _check_one(array: np.ndarray, one: Declared, place: str) -> None:
    if array.dtype != np.dtype(one.dtype) or array.shape != one.shape:
        raise Refused(
            f'{place}: "{one.name}" is {array.dtype} {list(array.shape)}, declared as {one.dtype} '
            f"{list(one.shape)}. Sender and receiver must have the same recipe and catalog."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(
            f'{place}: "{one.name}" holds values that are not finite numbers, so it was left out. '
            "Lower federated.local.learning_rate or set federated.local.clip."
        )
