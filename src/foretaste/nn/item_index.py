"""An approximate index of item vectors (faiss), for catalogs above a million items.

The index only names candidates, from eight bits a coordinate; their scores are then made exactly,
from the item vectors themselves. What may be wrong is therefore that an item is missing, never a
score, an order, or an item that was to be left out. ``recall`` measures how much is missing.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import InputError, MissingExtraError
from foretaste.nn.scanning import Catalog, Floats, Ints
from foretaste.nn.topk import Seen, TopK, best_items, check, top_k

if TYPE_CHECKING:
    from types import ModuleType

Kind = Literal["ivf", "hnsw"]

VECTORS_PER_LIST = 64
"""Item vectors that each list of ``ivf`` is learnt from; more take longer and change little."""
LINKS = 32
"""Neighbours that an item of ``hnsw`` keeps."""
LINK_EFFORT = 64
"""Candidates among which ``hnsw`` chooses an item's neighbours when it is built."""


class ItemIndex:
    """Approximate ``top_k`` over the items it was built from.

    ``ivf`` divides the items into lists and reads those nearest to the query (Jegou et al. 2011).
    It is built in seconds and, on the vectors of ``benchmarks/topk.py``, misses less in less time.
    ``hnsw`` walks a graph of neighbours (Malkov and Yashunin 2018), which takes minutes to build.
    Its vectors get one more coordinate, with which the nearest is the one with the highest product
    (Bachrach et al., RecSys 2014): linked by their products they do not hold together.

    Attributes:
        kind: ``ivf`` or ``hnsw``.
        effort: what a query may cost: lists that are read (``ivf``) or candidates that are kept on
            the walk (``hnsw``). More of it takes longer and misses less. May be set at any time.
    """

    def __init__(self, kind: Kind, index: Any, weight: Tensor, effort: int) -> None:
        """Use ``build`` or ``from_arrays``."""
        self.kind: Kind = kind
        self.effort = effort
        self._index, self._weight = index, weight

    @classmethod
    def build(cls, weight: Tensor, kind: Kind = "ivf", *, effort: int | None = None) -> Self:
        """Learn an index of ``weight`` float32 ``[N, D]``, which is kept and must not change.

        The same weight gives the same index, ``hnsw`` on one thread only. ``effort`` is by default
        a sixteenth of the lists, or 400 candidates; ``reach`` finds one by measuring.

        Raises:
            InputError: for another kind, shape or type, no items, or a weight that is not finite.
            MissingExtraError: without faiss.
        """
        faiss = _faiss()
        if kind not in get_args(Kind):
            raise InputError(f'item index: kind = "{kind}" is unknown. Choose "ivf" or "hnsw".')
        if effort is not None and effort < 1:
            raise InputError(f"item index: effort = {effort} must be at least 1.")
        weight = weight.detach().cpu()
        if weight.ndim != 2 or not weight.numel() or weight.dtype != torch.float32:
            raise InputError(
                f"item index: weight is {weight.dtype} {list(weight.shape)}, must be float32 "
                "[N, D] with at least one item."
            )
        if not weight.isfinite().all():
            raise InputError("item index: the weight holds NaN or infinite values. Train again.")
        items = np.ascontiguousarray(weight.numpy())
        if kind == "ivf":
            index = _build_ivf(faiss, items)
            return cls(kind, index, weight, effort or max(1, index.nlist // 16))
        return cls(kind, _build_hnsw(faiss, items), weight, effort or 400)

    def __len__(self) -> int:
        return len(self._weight)

    def top_k(self, vectors: Tensor, k: int, *, seen: Seen | None = None) -> TopK:
        """As ``foretaste.nn.topk.top_k``, but an item may be missing.

        Twice ``k`` candidates are looked for, and besides as many as a row has seen. A row that
        comes out shorter than it need be all the same is answered exactly.

        Args:
            vectors: float32 ``[B, D]`` on the processor.
            k: items per row; it may be more than there are.
            seen: for each row the item numbers to leave out.

        Raises:
            InputError: as ``top_k`` does.
        """
        check(vectors, self._weight, k, seen)
        vectors = vectors.detach()
        queries, items = np.ascontiguousarray(vectors.numpy()), self._weight.numpy()
        values = np.full((len(queries), k), -np.inf, np.float32)
        indices = np.full((len(queries), k), -1, np.int64)
        short = []
        for row, candidates in enumerate(self._candidates(queries, k, seen)):
            mine = slice(row, row + 1)
            catalog = Catalog(items, np.sort(candidates[candidates >= 0]))
            left_out = None if seen is None else seen[mine]
            values[mine], indices[mine] = best_items(queries[mine], catalog, k, left_out)
            there = len(items) - (0 if seen is None else len(np.unique(seen[row])))
            if (indices[row] >= 0).sum() < min(k, there):
                short.append(row)
        found = TopK(torch.from_numpy(values), torch.from_numpy(indices))
        if short:
            left_out = None if seen is None else [seen[row] for row in short]
            exact = top_k(vectors[short], self._weight, k, seen=left_out)
            found.values[short], found.indices[short] = exact.values, exact.indices
        return found

    def recall(self, vectors: Tensor, k: int) -> float:
        """The share of the exact top ``k`` items of these queries ``[B, D]`` that is found.

        Raises:
            InputError: without a query that has an exact answer.
        """
        wanted, found = top_k(vectors, self._weight, k).indices, self.top_k(vectors, k).indices
        there = (wanted[:, :, None] == found[:, None, :]).any(2) & (wanted >= 0)  # [B, k]
        count = int((wanted >= 0).sum())
        if not count:
            raise InputError("item index: recall needs at least one query whose scores are finite.")
        return int(there.sum()) / count

    def reach(self, recall: float, vectors: Tensor, k: int) -> float:
        """Set the lowest ``effort``, of powers of two, with at least this recall on these queries.

        Returns:
            The recall that was measured. It is below what was asked for when even the full effort
            does not reach it; the effort is then full.

        Raises:
            InputError: for a recall outside 0..1, or as ``recall`` does.
        """
        if not 0 <= recall <= 1:
            raise InputError(f"item index: recall = {recall} must be between 0 and 1.")
        full = self._index.nlist if self.kind == "ivf" else len(self)
        self.effort = 1
        while (measured := self.recall(vectors, k)) < recall and self.effort < full:
            self.effort = min(2 * self.effort, full)
        return measured

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was learnt, by name, for a file; not the weight."""
        return {
            "index": _faiss().serialize_index(self._index),  # uint8
            "kind": np.array(get_args(Kind).index(self.kind)),
            "effort": np.array(self.effort),
            "weight": _fingerprint(self._weight),  # uint8 [16]
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], weight: Tensor) -> Self:
        """Take what ``arrays`` gave, with the weight that it was built from.

        faiss trusts what it reads: take arrays from a file only if you would run a program from
        there.

        Raises:
            InputError: when it was built from another weight, or something is missing.
            MissingExtraError: without faiss.
        """
        faiss, weight = _faiss(), weight.detach().cpu()
        if set(arrays) != {"index", "kind", "effort", "weight"}:
            raise InputError(f"item index: {sorted(arrays)} is not what an index is saved as.")
        if not np.array_equal(arrays["weight"], _fingerprint(weight)):
            raise InputError("item index: was built from other item vectors. Build it again.")
        index = faiss.deserialize_index(arrays["index"])
        kind = get_args(Kind)[arrays["kind"].item()]
        return cls(kind, index, weight, arrays["effort"].item())

    def _candidates(self, queries: Floats, k: int, seen: Seen | None) -> Ints:
        """Item numbers int64 ``[B, M]``, -1 where there are no more."""
        faiss = _faiss()
        most_seen = 0 if seen is None else max((len(items) for items in seen), default=0)
        count = min(2 * k + most_seen, len(self))
        if self.kind == "ivf":
            how = faiss.SearchParametersIVF(nprobe=min(self.effort, self._index.nlist))
        else:
            how = faiss.SearchParametersHNSW(efSearch=max(self.effort, count))
            queries = np.pad(queries, ((0, 0), (0, 1)))
        return self._index.search(queries, count, params=how)[1]


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("faiss", "ann") from None
    return faiss


def _build_ivf(faiss: ModuleType, items: Floats) -> Any:
    count, dim = items.shape
    lists = max(1, min(round(2 * math.sqrt(count)), count // 16))
    nearest = faiss.IndexFlatIP(dim)
    bits, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(nearest, dim, lists, bits, metric)
    index.cp.min_points_per_centroid = 1  # no warnings about small catalogs
    index.cp.max_points_per_centroid = VECTORS_PER_LIST
    index.train(items)  # a random part of them, always the same
    index.add(items)
    return index


def _build_hnsw(faiss: ModuleType, items: Floats) -> Any:
    squares = np.square(items, dtype=np.float32).sum(1)  # [N]
    last = np.sqrt(np.maximum(squares.max() - squares, 0))
    longer = np.column_stack([items, last]).astype(np.float32)  # [N, D + 1]
    bits = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexHNSWSQ(longer.shape[1], bits, LINKS, faiss.METRIC_L2)
    index.hnsw.efConstruction = LINK_EFFORT
    index.train(longer)
    index.add(longer)
    return index


def _fingerprint(weight: Tensor) -> np.ndarray:
    """128 bits of a hash of the values, uint8 ``[16]``."""
    content = np.ascontiguousarray(weight.numpy()).data
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return np.frombuffer(digest, np.uint8)
