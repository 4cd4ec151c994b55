"""Why a list is as it is: each event is left out in turn and the scores are computed again.

It asks the model itself and knows nothing of how it works, so it is as true for a neighbourhood
model as for a transformer. It is the effect of one event at a time: two that say the same can both
seem unimportant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from foretaste.data.catalog import Catalog
from foretaste.recommenders.core.base import Recommender
from foretaste.serving.histories import sequences_of
from foretaste.serving.limits import EXPLAINED_EVENTS
from foretaste.serving.questions import Reason
from foretaste.serving.ranking import ScoresItems


@torch.inference_mode()
def explain(
    recommender: Recommender,
    catalog: Catalog,
    items: np.ndarray,
    times: np.ndarray | None,
    listed: Sequence[int],
) -> list[Reason]:
    """How much the mean score of ``listed`` falls without each of the last 20 events.

    Args:
        recommender: the model.
        catalog: its catalog.
        items: int ``[n]``, the history, oldest first.
        times: int64 ``[n]`` milliseconds, or None.
        listed: item numbers of the list.

    Returns:
        The last events, the one without which the scores fall most first.
    """
    first = max(0, len(items) - EXPLAINED_EVENTS)
    events = range(first, len(items))
    if len(items) < 2 or not listed:  # without any event there are no scores to compare
        return [Reason(*_named(catalog, int(items[event])), None) for event in reversed(events)]
    rows = [items, *(np.delete(items, event) for event in events)]
    stamps = None if times is None else [times, *(np.delete(times, event) for event in events)]
    histories = sequences_of(rows, stamps)
    if isinstance(recommender, ScoresItems):
        scores = recommender.score_items(histories, np.array(listed))
        return _reasons(catalog, items[first:], scores.double().mean(1).cpu().numpy())
    means = np.empty(len(rows))
    chosen = torch.tensor(listed)
    # Of these alone: a search for the best of all items might miss some without an event.
    allowed = np.zeros(len(catalog), bool)
    allowed[listed] = True
    blocks = recommender.scores(histories, exclude="none", allowed=allowed, depth=len(listed))
    for places, scores in blocks:
        means[places] = scores[:, chosen].double().mean(1).cpu().numpy()
    return _reasons(catalog, items[first:], means)


def _reasons(catalog: Catalog, events: np.ndarray, means: np.ndarray) -> list[Reason]:
    """From mean scores with all events, and without each of these ``[1 + n]``."""
    falls = means[0] - means[1:]
    heaviest = np.argsort(-falls, kind="stable")
    return [Reason(*_named(catalog, int(events[place])), float(falls[place])) for place in heaviest]


def _named(catalog: Catalog, item: int) -> tuple[str, str]:
    return catalog.item_ids[item], catalog.titles[item]
