"""Scores of users who each have a network of their own: the arm ``local`` of ``lumos.py``."""

import warnings
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, vmap

from foretaste.data.sequences import Sequences
from foretaste.federated.fedavg import FedAvg
from foretaste.recommenders.core.sequence import Histories


def scores_of_own(
    method: FedAvg, state: dict[str, np.ndarray], changes: Any, histories: Sequences
) -> torch.Tensor:
    """Scores ``[C, items]`` of each user's own network for its own history; seen items are out."""
    newest = histories.last(method.model._window())
    items = np.zeros((len(newest), int(newest.lengths.max())), np.int32)
    items[newest.rows, np.arange(newest.events) - newest.offsets[:-1][newest.rows]] = newest.items
    weights = {name: torch.from_numpy(state[name]) + changes[name] for name in state}
    network = method._fresh().eval()

    def one(own: dict[str, torch.Tensor], read: torch.Tensor, length: torch.Tensor):
        histories = Histories(read[None], length[None], None)
        hidden = functional_call(network, own, (histories,), tie_weights=False)[0]
        place = (length - 1).view(1, 1).expand(1, hidden.shape[1])
        return hidden.gather(0, place)[0] @ own["items.weight"].T

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        scores = vmap(one)(weights, torch.from_numpy(items), torch.from_numpy(newest.lengths))
    scores[torch.from_numpy(histories.rows), torch.from_numpy(histories.items).long()] = -torch.inf
    return scores
