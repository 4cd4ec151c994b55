"""Item vectors from who chose what, for catalogs without text."""

from __future__ import annotations

import numpy as np

from foretaste.data.sequences import Sequences
from foretaste.recommenders.core.sparse import user_items


def collaborative_vectors(train: Sequences, items: int, dim: int, seed: int) -> np.ndarray:
    """The leading right singular vectors of the users x items matrix, times their values.

    Rows and columns are divided by the root of their counts first, so that neither busy users nor
    popular items decide alone. The vectors have length 1: what is popular lies beside what is
    chosen with it, not beside what else is popular.

    Args:
        train: histories over numbers below ``items``.
        items: size of the catalog.
        dim: at most so many numbers.
        seed: of the vector that the iteration begins with (ARPACK).

    Returns:
        float32 ``[items, D]``; zero for an item that nobody chose.
    """
    from scipy.sparse.linalg import svds

    matrix = user_items(train, items)
    of_user = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(1)).ravel(), 1))
    of_item = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(0)).ravel(), 1))
    scaled = matrix.multiply(of_user[:, None]).multiply(of_item[None]).tocsr()
    if min(scaled.shape) <= dim:  # too few for an iteration, and few enough to do without
        _, values, right = np.linalg.svd(scaled.toarray(), full_matrices=False)
    else:
        begin = np.random.default_rng(seed).standard_normal(min(scaled.shape))
        _, values, right = svds(scaled.astype(np.float64), k=dim, v0=begin)
    assert right is not None
    vectors = right.T * values
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
