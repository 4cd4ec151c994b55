"""Lists from scores that are at hand: the best of each row, of equal scores the lower number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from foretaste.nn.topk import TopK


def best_scores(scores: Tensor, k: int) -> TopK:
    """The ``k`` best of each row, best first; of equal scores the lower item number comes first.

    A list of ``k`` is therefore the head of every longer one, which ``torch.topk`` does not
    promise. Only rows whose k-th score is tied are looked through again.

    Args:
        scores: float ``[B, N]`` on any device; -inf marks what is left out, in no order.
        k: items per row, at least 1; it may be more than there are.

    Returns:
        Scores and item numbers ``[B, min(k, N)]``. Items of -inf keep their numbers.
    """
    k = min(k, scores.shape[1])
    more = scores.topk(
        min(k + 1, scores.shape[1]), dim=1
    )  # one more shows whether the k-th is tied
    values, indices = more.values[:, :k], more.indices[:, :k]
    if k < scores.shape[1]:
        last = values[:, -1]  # [B]
        tied = ((last == more.values[:, k]) & ~last.isneginf()).nonzero()[:, 0]
        if len(tied):
            indices = indices.clone()
            indices[tied] = _lowest(scores, values[tied], indices[tied], tied)
    if not bool((values[:, 1:] == values[:, :-1]).any()):
        return TopK(values, indices)
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return TopK(values, indices.gather(1, order))


def _lowest(scores: Tensor, values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Lists ``[T, k]`` of the tied rows with the lowest numbers at their tied ends."""
    last = values[:, -1:]  # [T, 1]
    above = (values > last).sum(1).tolist()
    bars, lists = last[:, 0].double().cpu().numpy(), indices.cpu().numpy()
    for place, row in enumerate(rows.tolist()):
        of_row, bar, listed = scores[row].double().cpu().numpy(), bars[place], lists[place]
        first, begin, size = above[place], 0, 1024
        while first < len(listed):  # where ties are many, the lowest numbers are found at once
            found = np.flatnonzero(of_row[begin : begin + size] == bar)[: len(listed) - first]
            listed[first : first + len(found)] = found + begin
            first, begin, size = first + len(found), begin + size, 4 * size
    return torch.from_numpy(lists).to(indices.device)
