"""Numbers as bytes: every row in steps of its own, which a byte counts.

What comes down is rounded to the nearest step. What goes up is rounded by chance, to the step above
as often as the value lies nearer to it, so that it is right in the mean over many messages (as in
QSGD; Alistarh et al., NeurIPS 2017). It is what a node sends that is rounded, whether one user
stands behind it or many, once, and what the server restores before it adds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from foretaste.federated.core.boundary import Arrays, Declared

SCALE = "scale/"
"""Before the name of an array that travels as bytes: the steps of its rows."""
_LARGEST = 127


def step_of(table: np.ndarray) -> np.ndarray:
    """The step by which each row ``[..., D]`` fits into -127..127, float32 ``[..., 1]``."""
    step = (np.abs(table).max(-1, keepdims=True) / _LARGEST).astype(np.float32)
    return np.maximum(step, np.finfo(np.float32).tiny)  # below it, floats lose their precision


def as_bytes(declared: Sequence[Declared]) -> tuple[Declared, ...]:
    """How these arrays are declared when they travel as bytes.

    Rows lie along the last axis; those of one number only (counts) and single numbers stay as they
    are, since a byte and its step would be more.
    """
    found = []
    for one in declared:
        if not _rounds(one):
            found.append(one)
            continue
        steps, what = (*one.shape[:-1], 1), f"steps of the rows of {one.name}"
        found.append(one._replace(dtype="int8", meaning=f"{one.meaning}; in steps, rounded"))
        found.append(Declared(SCALE + one.name, "float32", steps, what, "to read the bytes"))
    return tuple(found)


def to_bytes(
    arrays: Mapping[str, np.ndarray], declared: Sequence[Declared], seed: int | None
) -> Arrays:
    """The arrays as ``as_bytes(declared)`` says: finite ones, each within a step of what it was.

    Args:
        arrays: those of ``declared``.
        declared: as they are before.
        seed: of the chance; None rounds to the nearest step.
    """
    rng, found = None if seed is None else np.random.default_rng(seed), {}
    for one in declared:
        array = arrays[one.name]
        if _rounds(one):
            step = step_of(array)
            scaled = array / step
            if rng is None:
                steps = np.rint(scaled)
            else:
                below = np.floor(scaled)
                steps = below + (rng.random(array.shape, np.float32) < scaled - below)
            found[one.name] = steps.clip(-_LARGEST, _LARGEST).astype(np.int8)
            found[SCALE + one.name] = step
        else:
            found[one.name] = array
    return found


def from_bytes(arrays: Mapping[str, np.ndarray], declared: Sequence[Declared]) -> Arrays:
    """The arrays of ``declared`` as float32 again; too large a step gives what is not finite."""
    found = {}
    with np.errstate(over="ignore"):
        for one in declared:
            array = arrays[one.name]
            if _rounds(one):
                array = array.astype(np.float32) * arrays[SCALE + one.name]
            found[one.name] = array
    return found


def _rounds(one: Declared) -> bool:
    return one.dtype == "float32" and bool(one.shape) and one.shape[-1] > 1
