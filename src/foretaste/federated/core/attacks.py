"""Hostile clients, to test defences against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from foretaste.data.sequences import Sequences, offsets_of
from foretaste.federated.core.config import AttackConfig
from foretaste.federated.core.randomness import uniform
from foretaste.federated.core.updates import Rows, Updates

_PLACE = 7_001
"""Keeps the choice of hostile clients apart from other choices by the same keys."""


def hostile(keys: np.ndarray, config: AttackConfig, seed: int) -> np.ndarray:
    """Which users are hostile, bool ``[users]``; the same ones in every round."""
    if config.kind == "none":
        return np.zeros(len(keys), bool)
    return uniform(keys, seed, _PLACE) < config.share


def spoilt_histories(histories: Sequences, bad: np.ndarray, config: AttackConfig) -> Sequences:
    """Histories as hostile users give them: for ``promote``, the item follows every event."""
    if config.kind != "promote" or not bad.any():
        return histories
    times = 1 + bad[histories.rows]  # each event of a hostile user stands twice
    items = np.repeat(histories.items, times)
    second = np.zeros(len(items), bool)
    second[np.cumsum(times)[times == 2] - 1] = True
    items[second] = config.item
    clock = None if histories.times is None else np.repeat(histories.times, times)
    return Sequences(items, offsets_of(histories.lengths * (1 + bad)), clock)


def spoilt(
    updates: Updates, draws: np.ndarray, config: AttackConfig, counts: Sequence[str] = ()
) -> Updates:
    """Updates as hostile users send them; all of ``updates`` are of hostile users.

    Args:
        updates: what they would send if they were honest.
        draws: uint64 ``[C]``, a hash of seed, round and user.
        config: which attack.
        counts: parts that stay honest, since what cannot be is left out by the server.
    """
    kept = {name: updates.parts[name] for name in counts}
    changes = {name: part for name, part in updates.parts.items() if name not in kept}
    wrong = _spoilt(replace(updates, parts=changes), draws, config)
    return replace(wrong, parts={name: (kept | dict(wrong.parts))[name] for name in updates.parts})


def _spoilt(updates: Updates, draws: np.ndarray, config: AttackConfig) -> Updates:
    if config.kind != "noise":
        sign = -1.0 if config.kind == "flip" else 1.0
        return updates.scaled(torch.full((len(updates),), sign * config.scale))
    whole, norms = updates.whole(), updates.norms()
    parts = {}
    for place, (name, part) in enumerate(whole.parts.items()):
        assert not isinstance(part, Rows)
        rows = [
            np.random.default_rng([int(draw), place]).standard_normal(part.shape[1:], np.float32)
            for draw in draws
        ]
        parts[name] = torch.from_numpy(np.stack(rows))
    noise = replace(whole, parts=parts)
    return noise.scaled(config.scale * norms / noise.norms().clamp_min(1e-12))
