"""From scores to lists: the best items of each case, seen ones left out, candidates only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.nn.item_index import ItemIndex
from foretaste.nn.listing import best_scores
from foretaste.nn.scanning import Catalog
from foretaste.nn.topk import best_items, top_k
from foretaste.recommenders.core.base import SCORES_AT_ONCE, Recommender
from foretaste.recommenders.core.ranker import Ranker
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
    k = min(max([case.question.k for case in asked]), weight.shape[0])
    queries = vectors if len(whole) == len(cases) else vectors[torch.tensor(whole)]
    if index is not None:
        top = index.top_k(queries, k, seen=seen)
    elif weight.is_cpu:  # what is asked here fits: checks would take a tenth of the time
        catalog = Catalog(weight.numpy(), None)
        top = best_items(queries.numpy(), catalog, k, seen, torch.get_num_threads())
    else:
        top = top_k(queries, weight, k, seen=seen)
    values, indices = top
    rows = zip(whole, indices.tolist(), values.tolist(), strict=True)
    for place, items, scores in rows:
        found[place] = _cut(items, scores, cases[place].question.k)
    return found


@torch.inference_mode()
def rank_by_records(
    ranker: Ranker, states: Sequence[np.ndarray], cases: Sequence[Case]
) -> list[Ranked]:
    """Lists from the records of whole histories; of candidates these alone are scored."""
    found: list[Ranked] = [_NOTHING] * len(cases)
    whole = []
    for at, case in enumerate(cases):
        if case.candidates is None:
            whole.append(at)
            continue
        allowed = np.setdiff1d(case.candidates, _left_out(case))
        scores = ranker.score_records([states[at]], allowed)[0]
        found[at] = _best(allowed, scores, case.question.k)
    every = np.arange(len(ranker.popularity))
    block = max(1, SCORES_AT_ONCE // len(every))
    for first in range(0, len(whole), block):
        places = whole[first : first + block]
        together = ranker.score_records([states[at] for at in places], every)  # [B, N]
        for at, scores in zip(places, together, strict=True):
            case = cases[at]
            scores[torch.from_numpy(_left_out(case).astype(np.int64))] = -torch.inf
            found[at] = _cut(*_best(every, scores, case.question.k), case.question.k)
    return found


@runtime_checkable
class ScoresItems(Protocol):
    """A model that can score a few items for less than the whole catalog."""

    def score_items(self, histories: Sequences, items: np.ndarray) -> Tensor:
        """Scores ``[B, n]`` of item numbers int64 ``[n]``; no history may be empty."""
        ...


@torch.inference_mode()
def rank_by_scores(recommender: Recommender, cases: Sequence[Case]) -> list[Ranked]:
    """Lists computed from whole histories.

    Candidates alone are scored where the model can do so, otherwise the whole catalog.
    """
    found: list[Ranked] = [_NOTHING] * len(cases)
    whole = []
    for at, case in enumerate(cases):
        if case.candidates is not None and not len(case.candidates):
            continue
        if case.candidates is None or not len(case.items):
            whole.append(at)
        elif isinstance(recommender, ScoresItems):
            found[at] = _rank_few(recommender, case, case.candidates)
        else:
            whole.append(at)
    for places in _alike(cases, whole):
        first = cases[places[0]]
        allowed = None
        if first.candidates is not None:
            allowed = np.zeros(len(recommender.popularity), bool)
            allowed[first.candidates] = True
        times = None if first.times is None else [_times(cases[at]) for at in places]
        histories = sequences_of([cases[at].items for at in places], times)
        blocks = recommender.scores(
            histories,
            exclude="seen" if first.question.exclude_seen else "none",
            allowed=allowed,
            depth=first.question.k,
        )
        for rows, scores in blocks:
            top = best_scores(scores, first.question.k)
            for row, items, values in zip(
                rows.tolist(), top.indices.tolist(), top.values.tolist(), strict=True
            ):
                found[places[row]] = _cut(items, values, first.question.k)
    return found


def _rank_few(model: ScoresItems, case: Case, candidates: np.ndarray) -> Ranked:
    """The best of a few items, the only ones that are scored."""
    allowed = np.setdiff1d(candidates, _left_out(case))
    history = sequences_of([case.items], None if case.times is None else [case.times])
    return _best(allowed, model.score_items(history, allowed)[0], case.question.k)


def _alike(cases: Sequence[Case], places: Sequence[int]) -> list[list[int]]:
    """Places of cases that are asked for alike, and so can be asked together.

    What a search finds depends on how much is wanted of it, and of what.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for at in places:
        case = cases[at]
        candidates = None if case.candidates is None else case.candidates.tobytes()
        asked = case.times is None, case.question.exclude_seen, case.question.k, candidates
        groups.setdefault(asked, []).append(at)
    return list(groups.values())


def _rank_candidates(vector: Tensor, weight: Tensor, case: Case) -> Ranked:
    """The best of a few items: only their vectors are read."""
    if case.candidates is None:
        return _NOTHING
    allowed = np.setdiff1d(case.candidates, _left_out(case))
    return _best(allowed, weight[torch.from_numpy(allowed)] @ vector, case.question.k)


def _best(items: np.ndarray, scores: Tensor, k: int) -> Ranked:
    """The ``k`` best of ``items`` ``[n]``, ascending, by their ``scores`` ``[n]``."""
    top = best_scores(scores[None], k)
    return Ranked(items[top.indices[0].cpu().numpy()].tolist(), top.values[0].tolist())


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
