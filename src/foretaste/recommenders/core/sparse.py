"""Histories as sparse matrices, and sparse matrices as arrays that can be saved."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from foretaste.data.sequences import Sequences

Sparse = Any
"""A ``csr_array``. scipy has no types of its own, and what is inferred of it is mostly wrong."""


def user_items(histories: Sequences, items: int) -> Sparse:
    """1 where a history holds an item, however often: float32 ``[B, items]``, sorted columns."""
    ones = np.ones(histories.events, np.float32)
    shape = (len(histories), items)
    matrix: Sparse = csr_array((ones, histories.items, histories.offsets), shape=shape, copy=True)
    matrix.sum_duplicates()  # writes on the arrays, hence the copy
    matrix.data[:] = 1
    return matrix


def sparse_arrays(matrix: Sparse) -> dict[str, np.ndarray]:
    """The three arrays of a sparse matrix, by name."""
    return {
        "offsets": matrix.indptr.astype(np.int64),
        "columns": matrix.indices.astype(np.int32),
        "values": matrix.data.astype(np.float32),
    }


def sparse_from(arrays: dict[str, np.ndarray], shape: tuple[int, int]) -> Sparse:
    """The matrix of ``sparse_arrays``.

    Raises:
        KeyError: when an array is missing.
        ValueError: when they do not make a matrix of this shape. Compiled code would read outside
            its memory on such arrays, so this is checked here.
    """
    offsets, columns, values = arrays["offsets"], arrays["columns"], arrays["values"]
    sound = (
        offsets.shape == (shape[0] + 1,)
        and offsets.dtype == np.int64
        and columns.dtype == np.int32
        and values.dtype == np.float32
        and columns.shape == values.shape == (int(offsets[-1]),)
        and offsets[0] == 0
        and bool((np.diff(offsets) >= 0).all())
        and bool(((columns >= 0) & (columns < shape[1])).all())
    )
    if not sound:
        raise ValueError(f"offsets, columns and values are not a matrix {list(shape)}")
    return csr_array((values, columns, offsets), shape=shape)
