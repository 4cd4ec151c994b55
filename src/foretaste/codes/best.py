"""The best of many scores: of columns, and of pairs of query and item."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.codes.beam import FoundItems

GROUP = 64
"""Items whose best score is looked at before their own scores."""


def best_places(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best ``k`` of each column of ``[n, B]``, as rows ``[B, k]``, and where they stand.

    The best items lie in the groups with the best maxima, so only those are looked through; the
    scores lie item by item, and are never turned round as a whole.
    """
    count, rows = scores.shape
    if rows == 1 or count <= GROUP * k:
        best = scores.T.topk(min(k, count), dim=1)
        return best.values, best.indices
    padded = torch.nn.functional.pad(scores, (0, 0, 0, -count % GROUP), value=-torch.inf)
    grouped = padded.view(-1, GROUP, rows)  # [G, 64, B]
    groups = grouped.amax(1).T.topk(k, dim=1).indices  # [B, k]
    owner = torch.arange(rows, device=scores.device)[:, None]
    best = grouped[groups, :, owner].flatten(1).topk(k, dim=1)
    group = groups.gather(1, best.indices // GROUP)
    return best.values, group * GROUP + best.indices % GROUP


def best_pairs(pairs: Tensor, scores: Tensor, items: int, k: int) -> Tensor:
    """Where the best ``k`` of each query stand, best first.

    Among pairs ``query * items + item``, each once; the queries in their order.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[pairs[order].argsort(stable=True)]
    # Equal pairs lie together now, the best of each in front.
    first = torch.ones(len(order), dtype=torch.bool, device=order.device)
    first[1:] = pairs[order][1:] != pairs[order][:-1]
    order = order[first]
    order = order[scores[order].argsort(descending=True, stable=True)]
    query = pairs[order] // items
    by_query = query.argsort(stable=True)
    order, query = order[by_query], query[by_query]
    return order[_ranks(query) < k]


def as_found(
    pairs: Tensor, scores: Tensor, written: Tensor, items: int, count: int, k: int
) -> FoundItems:
    """What ``best_pairs`` chose as rows of ``k``; ``written`` ``[n, L]`` are its tokens."""
    query = pairs // items
    rank = _ranks(query)
    found = torch.full((count, k), -1, device=pairs.device)
    best = scores.new_full((count, k), -torch.inf)
    tokens = written.new_full((count, k, written.shape[1]), -1)
    found[query, rank], best[query, rank], tokens[query, rank] = pairs % items, scores, written
    return FoundItems(found.masked_fill(best.isneginf(), -1), best, tokens)


def _ranks(owner: Tensor) -> Tensor:
    """The place of each element among those of its owner; owners are ascending."""
    sizes = torch.bincount(owner)
    return torch.arange(len(owner), device=owner.device) - (sizes.cumsum(0) - sizes)[owner]
