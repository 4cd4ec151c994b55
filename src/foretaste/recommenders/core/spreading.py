"""What a search found, among the scores of a whole catalog."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from foretaste.codes.beam import FoundItems
from foretaste.data.sequences import Sequences


def by_popularity(popularity: np.ndarray) -> Tensor:
    """Scores in (-1, 0], all different, the most popular item's the highest: ``[N]``."""
    order = np.lexsort((np.arange(len(popularity)), -popularity))
    place = np.empty(len(order), np.float32)
    place[order] = np.arange(len(order), dtype=np.float32)
    return torch.from_numpy(-place / len(order))


def spread(scores: Tensor, rows: np.ndarray, found: FoundItems, numbers: np.ndarray) -> None:
    """Write what was found over ``scores`` ``[B, N]``, above all that was not."""
    real = found.items >= 0
    lowest = found.log_probs.masked_fill(~real, torch.inf).amin(1)
    lowest = lowest.masked_fill(lowest.isinf(), 0).to(scores.device)
    at = torch.from_numpy(rows)
    scores[at] += lowest[:, None] - 1
    query, place = real.cpu().nonzero(as_tuple=True)
    items = torch.from_numpy(numbers)[found.items.cpu()[query, place]]
    scores[at[query], items] = found.log_probs.cpu()[query, place].to(scores.dtype)


def within(histories: Sequences, numbers: np.ndarray, items: int) -> Sequences:
    """Histories in the rows of an index: those of its items alone."""
    row = np.full(items, -1, np.int32)
    row[numbers] = np.arange(len(numbers), dtype=np.int32)
    renamed = Sequences(row[histories.items], histories.offsets)
    return renamed.where(renamed.items >= 0)
