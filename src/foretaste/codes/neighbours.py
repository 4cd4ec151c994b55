"""Whether items that are alike have codes that are alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from foretaste.codes.kmeans import rows_at_once, squared_distances

ASKED = 1_000
"""Items whose neighbours are compared, drawn at random."""
POOL = 20_000
"""Items among which neighbours are sought, drawn at random."""
NEIGHBOURS = 10


class Neighbours(NamedTuple):
    """How codes keep neighbourhoods.

    Attributes:
        overlap: share of an item's nearest neighbours by its vector that are also the nearest by
            what the codes stand for, 0..1.
        agreement: for each level the share of (item, neighbour) pairs with the same code there;
            where codes are ordered, with the same codes up to there. In a report it is of nearest
            codes, before collisions are resolved.
        chance: the same for pairs of items drawn at random.
        asked: items whose neighbours were compared.
    """

    overlap: float
    agreement: tuple[float, ...]
    chance: tuple[float, ...]
    asked: int


def compare_neighbours(
    vectors: np.ndarray, coded: np.ndarray, table: np.ndarray, *, ordered: bool, seed: int = 0
) -> Neighbours:
    """Compare neighbourhoods of vectors ``[items, D]`` and of what codes stand for, ``coded``.

    Nearest is by Euclidean distance.
    """
    rng = np.random.default_rng(seed)
    pool = np.sort(rng.permutation(len(vectors))[:POOL])
    asked = np.sort(rng.permutation(len(pool))[:ASKED])
    count = min(NEIGHBOURS, len(pool) - 1)
    if count < 1:
        return Neighbours(1.0, (1.0,) * table.shape[1], (1.0,) * table.shape[1], len(asked))
    true = _nearest(vectors[pool], asked, count)
    found = _nearest(coded[pool], asked, count)
    shared = (true[:, :, None] == found[:, None]).any(2).mean()
    own = table[pool]
    same = own[asked][:, None] == own[true]  # [asked, count, L]
    one, other = rng.integers(len(pool), size=(2, 100_000))
    by_chance = own[one[one != other]] == own[other[one != other]]
    if ordered:
        same, by_chance = np.cumprod(same, axis=2), np.cumprod(by_chance, axis=1)
    return Neighbours(
        float(shared),
        tuple(same.mean((0, 1)).tolist()),
        tuple(by_chance.mean(0).tolist()),
        len(asked),
    )


def _nearest(vectors: np.ndarray, asked: np.ndarray, count: int) -> np.ndarray:
    """The nearest other rows of each asked row, int64 ``[asked, count]``."""
    centred = vectors - vectors.mean(0, dtype=np.float64)  # what all share would drown the rest
    points = torch.from_numpy(centred.astype(np.float32))
    found = []
    for rows in torch.from_numpy(asked).split(rows_at_once(len(points), points.device)):
        distances = squared_distances(points[rows], points)
        distances[torch.arange(len(rows)), rows] = torch.inf
        found.append(distances.topk(count, dim=1, largest=False).indices)
    return torch.cat(found).numpy()
