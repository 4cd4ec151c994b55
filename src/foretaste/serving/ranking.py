"""From scores to lists: the best items of each case, seen ones left out, candidates only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foretaste.nn.item_index import ItemIndex
from foretaste.nn.topk import top_k
from foretaste.recommenders.core.base import Recommender
from foretaste.serving.histories import NO_EVENTS, Case, sequences_of


class Ranked(NamedTuple):
    """Item numbers, best first, and their scores."""

    items: list[int]
    scores: list[float]


def rank_by_vectors(
    vectors: Tensor, weight: Tensor, cases: Sequence[Case], index: ItemIndex | None = None
) -> list[Ranked]:
    """Lists from query vectors ``[B, D]`` and item vectors ``[N, D]``.

    With ``index`` an item may be missing; candidates are always ranked exactly.
    """
    whole = [place for place, case in enumerate(cases) if case.candidates is None]
    found: list[Ranked] = (
        [_rank_candidates(vectors[place], weight, case) for place, case in enumerate(cases)]
        if len(whole) < len(cases)
        else [_NOTHING] * len(cases)
    )
    if not whole:
        return found
    asked = [cases[place] for place in whole]
    seen = [_left_out(case) for case in asked]
    k = min(max(case.question.k for case in asked), len(weight))
    queries = vectors if len(whole) == len(cases) else vectors[torch.tensor(whole)]
    if index is None:
        top = top_k(queries, weight, k, seen=seen)
    else:
        top = index.top_k(queries, k, seen=seen)
    rows = zip(whole, top.indices.tolist(), top.values.tolist(), strict=True)
    for place, items, scores in rows:
        found[place] = _cut(items, scores, cases[place].question.k)
    return found


def rank_by_scores(recommender: Recommender, cases: Sequence[Case]) -> list[Ranked]:
    """Lists from the scores of the whole catalog, computed from whole histories."""
    found: list[Ranked] = [_NOTHING] * len(cases)
    for timed in (True, False):
        places = [at for at, case in enumerate(cases) if (case.times is not None) == timed]
        if not places:
            continue
        times = [_times(cases[at]) for at in places] if timed else None
        histories = sequences_of([cases[at].items for at in places], times)
        for rows, scores in recommender.scores(histories, exclude="none"):
            asked = [places[row] for row in rows.tolist()]
            for at, ranked in zip(
                asked, _rank_rows(scores, [cases[at] for at in asked]), strict=True
            ):
                found[at] = ranked
    return found


def _rank_rows(scores: Tensor, cases: Sequence[Case]) -> list[Ranked]:
    """Lists from scores ``[B, N]``, which are written on."""
    for row, case in zip(scores, cases, strict=True):
        if case.candidates is not None:
            allowed = torch.from_numpy(case.candidates)
            kept = row[allowed]
            row.fill_(-torch.inf)
            row[allowed] = kept
        row[torch.from_numpy(_left_out(case).astype(np.int64))] = -torch.inf
    k = min(max(case.question.k for case in cases), scores.shape[1])
    top = scores.topk(k, dim=1)
    rows = zip(top.indices.tolist(), top.values.tolist(), cases, strict=True)
    return [_cut(items, values, case.question.k) for items, values, case in rows]


def _rank_candidates(vector: Tensor, weight: Tensor, case: Case) -> Ranked:
    """The best of a few items: only their vectors are read."""
    if case.candidates is None:
        return _NOTHING
    allowed = torch.from_numpy(np.setdiff1d(case.candidates, _left_out(case)))
    top = (weight[allowed] @ vector).topk(min(case.question.k, len(allowed)))
    return Ranked(allowed[top.indices].tolist(), top.values.tolist())


def _cut(items: list[int], scores: list[float], k: int) -> Ranked:
    """The first ``k``, without the places that stayed empty."""
    length = min(k, len(items))
    while length and scores[length - 1] == -torch.inf:
        length -= 1
    return Ranked(items[:length], scores[:length])


def _left_out(case: Case) -> np.ndarray:
    return case.items if case.question.exclude_seen else NO_EVENTS


def _times(case: Case) -> np.ndarray:
    assert case.times is not None
    return case.times


_NOTHING = Ranked([], [])
