"""What an honest but curious server can infer: was this item in the history?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from foretaste.data.sequences import Sequences
from foretaste.federated.core.base import FederatedMethod, LocalUsers
from foretaste.federated.core.local_training import chunks
from foretaste.federated.core.privacy import clipped, noisy
from foretaste.federated.core.randomness import hashed
from foretaste.federated.core.rounding import from_bytes, to_bytes


class Inference(NamedTuple):
    """How well items of a history can be told from all others, from one user's update.

    Attributes:
        auc: float64 ``[users]``: the odds that an item of the history has more evidence than one
            that is not in it. 0.5 is a guess, 1 is certainty; NaN where the method has no evidence,
            or every item is in the history: nothing was measured.
        mean: of those of ``auc`` that are numbers; NaN when none is.
    """

    auc: np.ndarray
    mean: float


def infer_histories(
    method: FederatedMethod,
    received: Mapping[str, np.ndarray],
    keys: np.ndarray,
    histories: Sequences,
    *,
    round: int = 1,
    secret: int = 0,
) -> Inference:
    """Train users alone, as nodes of one, and look at what each would send.

    Clipping, noise and rounding are as configured; noise is taken as added before the update is
    seen, which with ``privacy.where = "server"`` is the case of a server that adds it and then
    looks.

    Args:
        method: whose ``item_evidence`` is the curious server's guess.
        received: what came down.
        keys: uint64 ``[users]``.
        histories: of the users, two events each at least.
        round: of training.
        secret: of the noise.
    """
    draws = hashed(keys, method.world.seed, round)
    personal = method.first_personal(draws)
    privacy = method.config.privacy
    auc = np.full(len(histories), np.nan)
    for of in chunks(method.cost(histories.lengths), method.config.memory):
        mine = {name: array[of] for name, array in personal.items()}
        users = LocalUsers(keys[of], draws[of], histories.take(of), mine)
        updates = method.train(received, users, round, each=True).updates
        if privacy.clip:
            updates = clipped(updates, privacy)
        for place, user in enumerate(of):
            one = updates.pick(torch.tensor([place])).whole()
            arrays = {name: part[0].numpy() for name, part in one.parts.items()}  # type: ignore[index,union-attr]
            if privacy.noise:
                arrays = noisy(arrays, privacy, 1.0, (secret, int(user)))
            if method.config.upload == "int8":
                declared = method.up()
                arrays = from_bytes(to_bytes(arrays, declared, secret + int(user)), declared)
            evidence = method.item_evidence(arrays, received, round)
            if evidence is not None:
                auc[user] = area(evidence, np.unique(histories[int(user)]))
    measured = auc[np.isfinite(auc)]
    return Inference(auc, float(measured.mean()) if len(measured) else math.nan)


def area(evidence: np.ndarray, items: np.ndarray) -> float:
    """Area under the curve of telling ``items`` from the rest by ``evidence``; ties count half."""
    inside = np.zeros(len(evidence), bool)
    inside[items] = True
    hits, others = inside.sum(), (~inside).sum()
    if not hits or not others:
        return float("nan")
    ranks = rankdata(evidence)
    return float((ranks[inside].sum() - hits * (hits + 1) / 2) / (hits * others))
