"""The best items of a catalog for some vectors: exact, and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from foretaste.errors import InputError
from foretaste.nn.scanning import Catalog, Floats, Ints, best_places

ROWS_AT_ONCE = 64
"""Queries that share one reading of the catalog; with so many, products take longer than it."""
LISTED_AT_ONCE = 4_000_000
"""Items listed for the rows that share a reading; longer lists make fewer rows share one."""
SCORES_ON_DEVICE = 64_000_000
"""Scores held at a time on an accelerator, where only the number of launches counts: 256 MB."""

Seen = Sequence[npt.NDArray[np.integer]]
NOTHING = np.zeros(0, np.int64)


class TopK(NamedTuple):
    """The best items of each row, best first.

    Attributes:
        values: float32 ``[B, k]``, scores; -inf where a row has fewer than k items.
        indices: int64 ``[B, k]``, item numbers; -1 where a row has fewer than k items.
    """

    values: Tensor
    indices: Tensor


def top_k(
    vectors: Tensor,
    weight: Tensor,
    k: int,
    *,
    seen: Seen | None = None,
    allowed: Tensor | npt.NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> TopK:
    """The ``k`` items with the highest ``vectors @ weight.T``, exactly, without that matrix.

    An item whose score is -inf or NaN is never listed. On a processor, of equal scores the lower
    item number comes first, whatever the number of threads; on an accelerator their order is that
    of ``torch.topk``. The last digits of a score depend on the rows beside it, as they do in
    ``vectors @ weight.T``.

    Args:
        vectors: float32 ``[B, D]``, one per query.
        weight: float32 ``[N, D]``, one per item, on the same device.
        k: items per row; it may be more than there are.
        seen: for each row the item numbers to leave out, in any order, repeated or not.
        allowed: bool ``[N]``, the items that may be listed; None means all.
        threads: at most so many, on a processor; None means as many as PyTorch uses. A small
            catalog is read by one.

    Raises:
        InputError: for shapes or types that do not fit, ``k`` or ``threads`` below 1, or a seen
            item that is not in the catalog.
    """
    check(vectors, weight, k, seen)
    if threads is not None and threads < 1:
        raise InputError(f"top_k: threads = {threads} must be at least 1.")
    chosen = None if allowed is None else _numbers(allowed, len(weight))
    if not vectors.is_cpu or not vectors.shape[0]:
        return _on_device(vectors.detach(), weight.detach(), k, seen, chosen)
    queries, catalog = vectors.detach().numpy(), Catalog(weight.detach().numpy(), chosen)
    found = best_items(queries, catalog, k, seen, threads or torch.get_num_threads())
    return TopK(*map(torch.from_numpy, found))


def best_items(
    queries: Floats, catalog: Catalog, k: int, seen: Seen | None, threads: int = 1
) -> tuple[Floats, Ints]:
    """What ``top_k`` finds on a processor, from arrays that need no checks; at least one query."""
    found = []
    for rows in _parts(len(queries), k):
        hidden = NOTHING if seen is None else _hidden(seen[rows], catalog.chosen)
        found.append(best_places(queries[rows], catalog, k, hidden, threads))
    values, places = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
    indices = catalog.chosen[places] if catalog.chosen is not None and catalog.places else places
    indices[values == -np.inf] = -1
    return values, indices


def check(vectors: Tensor, weight: Tensor, k: int, seen: Seen | None) -> None:
    """Refuse what would give a wrong list in silence.

    Raises:
        InputError: as ``top_k`` says.
    """
    fits = vectors.ndim == 2 == weight.ndim and vectors.shape[1] == weight.shape[1] > 0
    if not fits or vectors.dtype != torch.float32 or weight.dtype != torch.float32:
        raise InputError(
            f"top_k: vectors {list(vectors.shape)} of {vectors.dtype} and weight "
            f"{list(weight.shape)} of {weight.dtype} must be float32 [B, D] and [N, D], D above 0."
        )
    if vectors.device != weight.device:
        raise InputError(
            f"top_k: vectors are on {vectors.device}, weight on {weight.device}. Move one of them."
        )
    if k < 1:
        raise InputError(f"top_k: k = {k} must be at least 1.")
    if seen is None:
        return
    rows, items_there = vectors.shape[0], weight.shape[0]  # len of a tensor takes longer
    if len(seen) != rows:
        raise InputError(
            f"top_k: seen has {len(seen)} rows, vectors {rows}. Give one array for each "
            "row, empty where nothing is to be left out."
        )
    for row, items in enumerate(seen):
        if not len(items):
            continue
        if items.dtype.kind not in "iu":
            raise InputError(f"top_k: seen[{row}] is {items.dtype}, must be item numbers (int).")
        low, high = items.min(), items.max()
        if low < 0 or high >= items_there:
            raise InputError(
                f"top_k: seen[{row}] has item {low if low < 0 else high}, which is not in "
                f"0..{items_there - 1}. Leave out the items that the catalog does not have."
            )


def _numbers(allowed: Tensor | npt.NDArray[np.bool_], items: int) -> Ints | None:
    """The numbers of the allowed items, ascending; None when they are all."""
    marks = allowed.cpu().numpy() if isinstance(allowed, Tensor) else np.asarray(allowed)
    if marks.shape != (items,) or marks.dtype != np.bool_:
        raise InputError(
            f"top_k: allowed is {marks.dtype} {list(marks.shape)}, must be bool [{items}], "
            "one mark for each item."
        )
    chosen = np.flatnonzero(marks)
    return None if len(chosen) == items else chosen


def _parts(rows: int, k: int) -> list[slice]:
    """The rows in parts that share a reading of the catalog."""
    size = max(1, min(ROWS_AT_ONCE, LISTED_AT_ONCE // k))
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


def _hidden(seen: Seen, chosen: Ints | None) -> Ints:
    """What is left out as ``place * B + row``, int64 ``[S]``, in any order."""
    if len(seen) == 1 and chosen is None:
        return seen[0].astype(np.int64, copy=False)
    places = np.concatenate(seen).astype(np.int64, copy=False)
    rows = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    if chosen is not None:
        there = np.isin(places, chosen)
        places, rows = np.searchsorted(chosen, places[there]), rows[there]
    return places * len(seen) + rows


def _on_device(
    vectors: Tensor,
    weight: Tensor,
    k: int,
    seen: Seen | None,
    chosen: Ints | None,
) -> TopK:
    """The plain way, a stretch of items at a time: only the best of it are kept."""
    values = vectors.new_full((len(vectors), k), -torch.inf)
    indices = torch.full((len(vectors), k), -1, device=vectors.device)
    numbers = torch.arange(len(weight)) if chosen is None else torch.from_numpy(chosen)
    numbers = numbers.to(vectors.device)  # [M]
    for rows in _parts(len(vectors), k):
        part = vectors[rows]
        hidden = torch.from_numpy(NOTHING if seen is None else _hidden(seen[rows], chosen))
        place, row = hidden.to(part.device) // len(part), hidden.to(part.device) % len(part)
        size = max(1, SCORES_ON_DEVICE // len(part))
        for first in range(0, len(numbers), size):
            some = numbers[first : first + size]
            block = weight[first : first + size] if chosen is None else weight[some]
            scores = part @ block.T  # [B, n]
            scores.masked_fill_(scores.isnan(), -torch.inf)
            inside = (place >= first) & (place < first + size)
            scores[row[inside], place[inside] - first] = -torch.inf
            top = scores.topk(min(k, len(some)), dim=1)
            # What was found before comes first, so that the fill of a short list stays where it is.
            both = torch.cat([values[rows], top.values], 1)
            items = torch.cat([indices[rows], some[top.indices]], 1)
            values[rows], order = both.topk(k, dim=1)
            indices[rows] = items.gather(1, order)
    return TopK(values, indices.masked_fill_(values.isneginf(), -1))
