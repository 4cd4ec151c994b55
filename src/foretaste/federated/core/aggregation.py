"""From the updates of nodes to one: the mean, and rules that bear hostile nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from foretaste.federated.core.base import Sums
from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.config import RobustConfig


def aggregate(sums: Sequence[Sums], config: RobustConfig) -> Sums:
    """One round's sums from those of nodes, in the order given (so a repeat gives equal bits).

    Robust rules look at the *mean* update of each node, and give every node one vote; their
    result is returned as sums of as many votes as the median node has, times the nodes: what a node
    says of its votes moves nothing. A node of many users counts once: against hostile users a
    robust rule needs nodes of one user.
    """
    counted = [one for one in sums if one.weight > 0]
    users = sum(one.users for one in sums)
    weight = float(sum(one.weight for one in counted))
    if not counted:
        return Sums({}, 0.0, users)
    if config.rule == "mean":
        total = {name: array.copy() for name, array in counted[0].arrays.items()}
        with np.errstate(over="ignore"):  # the server looks whether the model stays finite
            for one in counted[1:]:
                for name, array in total.items():
                    array += one.arrays[name]
        return Sums(total, weight, users)
    means = [one.mean() for one in counted]
    if config.rule == "krum":
        chosen = krum(means, hostile_of(len(means), config.share), config.keep)
        result = _mean([means[number] for number in chosen])
    elif config.rule == "trimmed":
        cut = min(max(int(config.share * len(means)), config.share > 0), (len(means) - 1) // 2)
        result = _coordinates(means, lambda ordered: ordered[cut : len(means) - cut].mean(0))
    else:
        result = _coordinates(means, lambda ordered: np.median(ordered, 0))
    votes = float(np.median([one.weight for one in counted])) * len(counted)
    return Sums({name: array * np.float32(votes) for name, array in result.items()}, votes, users)


def hostile_of(nodes: int, share: float) -> int:
    """Hostile nodes that Krum reckons with, as many as it can bear: ``nodes >= 2 f + 3``."""
    return max(0, min(int(share * nodes), (nodes - 3) // 2))


def krum(updates: Sequence[Arrays], hostile: int, keep: int) -> list[int]:
    """The updates nearest to their neighbours (Blanchard et al., NeurIPS 2017).

    The score of an update is the sum of squared distances to its ``n - hostile - 2`` nearest
    others. Returns the ``keep`` updates of lowest score, ascending by number.
    """
    names = sorted(updates[0])
    flat = np.stack([np.concatenate([one[name].ravel() for name in names]) for one in updates])
    flat = flat.astype(np.float64)
    squares = (flat**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0)
    near = max(1, len(updates) - hostile - 2)
    scores = np.sort(distances, 1)[:, 1 : near + 1].sum(1)  # the nearest of all is oneself
    return sorted(np.argsort(scores, kind="stable")[: min(keep, len(updates))].tolist())


def _coordinates(means: Sequence[Arrays], rule: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return {
        name: rule(np.sort(np.stack([one[name] for one in means]), 0)).astype(np.float32)
        for name in means[0]
    }


def _mean(updates: Sequence[Arrays]) -> Arrays:
    return {
        name: np.mean([one[name] for one in updates], 0).astype(np.float32) for name in updates[0]
    }
