"""An approximate index for catalogs above a million items, and the recall that was measured."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from foretaste.data.sequences import Sequences, offsets_of
from foretaste.nn.item_index import ItemIndex
from foretaste.recommenders.core.incremental import IncrementalRecommender

QUERIES, LONGEST, DAY = 256, 20, 86_400_000
MEASURED_AT = 100
"""Length of the lists in which the recall is counted."""


class IndexWish(NamedTuple):
    """What kind of index, and the recall that it shall have."""

    kind: Literal["ivf", "hnsw"]
    recall: float


class MeasuredIndex(NamedTuple):
    """An index, and the share of the exact lists that it found."""

    index: ItemIndex
    recall: float


def build_index(model: IncrementalRecommender, wish: IndexWish) -> MeasuredIndex:
    """An index of the model's items that costs as little as the wished recall allows.

    The recall is measured on the vectors of made-up users, who chose up to 20 items as often as
    these were chosen in training.

    Raises:
        MissingExtraError: without faiss.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, LONGEST + 1, QUERIES)
    share = (model.popularity + 1) / (model.popularity + 1).sum()
    items = rng.choice(len(share), int(lengths.sum()), p=share).astype(np.int32)
    times = np.arange(len(items), dtype=np.int64) * DAY
    nothing = [np.empty((0, model.record_bytes), np.uint8)] * QUERIES
    vectors = model.advance(nothing, Sequences(items, offsets_of(lengths), times)).vectors
    index = ItemIndex.build(model.item_vectors(), wish.kind)
    return MeasuredIndex(index, index.reach(wish.recall, vectors, MEASURED_AT))
