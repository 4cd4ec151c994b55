"""Which items are chosen near each other, and item vectors smoothed over that graph."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array

from foretaste.data.sequences import Sequences

PAIRS_AT_ONCE = 20_000_000
"""Pairs counted together: half a gigabyte."""
COLUMNS_AT_ONCE = 32
"""Numbers of the vectors that are smoothed together."""


def cooccurrence(sequences: Sequences, items: int, window: int) -> csr_array:
    """How often two items stand at most ``window`` events apart in a history.

    Args:
        sequences: training histories over item numbers.
        items: size of the catalog.
        window: events between the two, at most; 1 means neighbours.

    Returns:
        Symmetric counts float32 ``[items, items]`` without a diagonal.
    """
    rows = sequences.rows
    counts = csr_array((items, items), dtype=np.float32)
    step = max(1, PAIRS_AT_ONCE // window)
    for first in range(0, sequences.events, step):
        last = min(first + step, sequences.events)
        pairs = [_apart(sequences.items, rows, first, last, gap) for gap in range(1, window + 1)]
        one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
        once = np.ones(len(one), np.float32)
        counts += coo_array((once, (one, other)), shape=(items, items)).tocsr()
    return csr_array(counts + counts.T)


def _apart(
    items: np.ndarray, rows: np.ndarray, first: int, last: int, gap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one row ``gap`` events apart whose first event is among ``first:last``."""
    end = max(first, min(last, len(items) - gap))
    one, other = items[first:end], items[first + gap : end + gap]
    kept = (rows[first:end] == rows[first + gap : end + gap]) & (one != other)
    kept &= (one >= 0) & (other >= 0)
    return one[kept], other[kept]


def smoothed(vectors: np.ndarray, graph: csr_array, alpha: float, hops: int) -> np.ndarray:
    """Item vectors drawn towards those of items chosen near them (S2GR, "H_align").

    With A' = D^-1/2 A D^-1/2: H(0) = X, H(k) = (1 - alpha) A' H(k-1) + alpha X, and the result is
    sum_k b_k H(k), with b_k in proportion to alpha (1 - alpha)^k. An item that nothing was chosen
    with is its own only neighbour, so that it keeps its vector; the paper leaves this open.

    Args:
        vectors: float ``[items, D]``.
        graph: ``cooccurrence`` of the same items.
        alpha: how much of its own vector an item keeps at each hop, above 0 and at most 1.
        hops: how far neighbours reach.

    Returns:
        float32 ``[items, D]``.
    """
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    alone = degrees == 0
    scale = 1 / np.sqrt(np.where(alone, 1, degrees))
    normal = diags_array(scale) @ graph @ diags_array(scale) + diags_array(alone.astype(float))
    normal = csr_array(normal, dtype=np.float32)
    weights = alpha * (1 - alpha) ** np.arange(hops + 1)
    weights = (weights / weights.sum()).astype(np.float32)
    result = np.empty(vectors.shape, np.float32)
    for first in range(0, vectors.shape[1], COLUMNS_AT_ONCE):
        columns = slice(first, first + COLUMNS_AT_ONCE)
        own = np.asarray(vectors[:, columns], np.float32)
        reached, summed = own, weights[0] * own
        for weight in weights[1:]:
            reached = np.float32(1 - alpha) * (normal @ reached) + np.float32(alpha) * own
            summed = summed + weight * reached
        result[:, columns] = summed
    return result
