"""Whether what a generator finds are items, and how much of the exact ranking it is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foretaste.codes.beam import FoundItems, share_found

QUERIES = 100
"""Queries that are asked."""
PATHS = 100_000
"""Paths of the catalog that may be followed for exact rankings: a few seconds on one processor."""
BEST = 10


class SearchCheck(NamedTuple):
    """What the search of a generator came to.

    Attributes:
        queries: that were asked.
        results: items that were found for them.
        illegal: results of which some code that was written is not a code of the item; None where
            no code is written, as all items are scored at once (MDGR with ``warm_up = 0``).
        exact_queries: queries whose exact ranking was looked at too.
        best_found: the share of the exact best 10 that was found for these; None without any, as in
            a catalog with more items than ``PATHS``.
    """

    queries: int
    results: int
    illegal: int | None
    exact_queries: int
    best_found: float | None

    def __str__(self) -> str:
        if self.illegal is None:
            told = f"No code is written: all items are scored ({self.queries:,} queries)."
        else:
            told = f"Illegal results: {self.illegal:,} of {self.results:,}, "
            told += f"for {self.queries:,} queries."
        if self.best_found is None:
            return told
        return (
            f"{told} Of the exact best {BEST} the search finds {self.best_found:.1%} "
            f"({self.exact_queries:,} queries)."
        )


def illegal(found: FoundItems, table: Tensor) -> Tensor | None:
    """Which results have codes that are not those of their item, bool ``[B, k]``.

    None where nothing was written.

    Args:
        found: what was written, and the items it is said to be.
        table: int64 ``[N, L]``, the codes of the catalog.
    """
    if found.tokens is None:
        return None
    own = table[found.items.clamp_min(0)]  # [B, k, L]
    wrong = (found.items < 0) | ((found.tokens != own) & (found.tokens >= 0)).any(2)
    return wrong & found.log_probs.isfinite()


def best_found(found: FoundItems, exact: FoundItems, items: int) -> Tensor:
    """The share of the exact best 10 that was found, ``[B]``; ``exact`` has every item."""
    scores = torch.full((len(exact.items), items), -torch.inf, device=exact.items.device)
    query, place = (exact.items >= 0).nonzero(as_tuple=True)
    scores[query, exact.items[query, place]] = exact.log_probs[query, place].to(scores.dtype)
    return share_found(found, scores, min(BEST, items))
