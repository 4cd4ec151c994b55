"""Training that starts from the weights of a trained run instead of from chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from foretaste.data.batches import training_batches
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.nn.attention import IncrementalLayer
from foretaste.nn.collective import CollectiveKeyValues
from foretaste.nn.key_values import FullKeyValues, KeyValues
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.sequence import tensors
from foretaste.recommenders.core.windowed import WindowedNetwork

EVENTS = 20_000
"""Events whose keys and values say where pools begin, and more where pools are large."""

SAME = ("dim", "heads", "layers", "window")


Model = TypeVar("Model", bound=Recommender)


def load_source(model: Model, folder: Path, same: Sequence[str] = SAME) -> Model:
    """The trained model that ``model`` starts from.

    Args:
        model: with its catalog set.
        folder: of a run, or where a model was saved.
        same: fields that both configurations must have alike.

    Raises:
        InputError: when it is another model, has another shape, or knows other items.
    """
    source = Recommender.load(folder)
    place = f"model.start_from = {folder}"
    if type(source) is not type(model):
        raise InputError(f"{place}: holds a {source.name}, not a {model.name}.")
    for field in same:
        theirs, ours = getattr(source.config, field), getattr(model.config, field)
        if theirs != ours:
            raise InputError(f"{place}: its {field} is {theirs}, here it is {ours}.")
    assert source.catalog is not None and model.catalog is not None
    if source.catalog.item_ids != model.catalog.item_ids:
        raise InputError(f"{place}: was trained on other items. Train it on the same data.")
    return source


def start_from(
    network: WindowedNetwork, source: WindowedNetwork, histories: Sequences, seed: int
) -> None:
    """Give ``network`` the weights of ``source``, and its form of them where it differs.

    Args:
        network: with weights to be replaced.
        source: trained, with full attention or of the same form.
        histories: what it was trained on.
        seed: of which events are looked at, and of k-means.

    Raises:
        InputError: when neither is the case, or there are fewer events than pool entries.
    """
    ours, theirs = network.state_dict(), source.state_dict()
    if {name: w.shape for name, w in ours.items()} == {n: w.shape for n, w in theirs.items()}:
        network.load_state_dict(theirs)
        return
    pairs: list[tuple[IncrementalLayer, IncrementalLayer]] = []
    for made, full in zip(network.layers, source.layers, strict=True):
        assert isinstance(made, IncrementalLayer) and isinstance(full, IncrementalLayer)
        kinds = made.key_values, full.key_values
        if isinstance(kinds[0], FullKeyValues) and isinstance(kinds[1], FullKeyValues):
            continue  # a first layer that stays full: its weights are copied below
        pairs.append((made, full))
        if not (isinstance(kinds[0], CollectiveKeyValues) and isinstance(kinds[1], FullKeyValues)):
            raise InputError(
                "model.start_from: only a model with full attention can become collective. Train "
                "from nothing, or start from a run with full attention."
            )
    known = {name for name in ours if name in theirs and theirs[name].shape == ours[name].shape}
    network.load_state_dict({name: (theirs if name in known else ours)[name] for name in ours})
    sources = [full.key_values for _, full in pairs]
    wanted = max(EVENTS * min(network.pool_levels, 3), 10 * network.pool_size)
    seen = _seen(source, sources, histories, seed, wanted)
    for (made, full), x in zip(pairs, seen, strict=True):
        require_events(network.pool_size, len(x))
        made.begin_from(full, x, seed)


def require_events(pool_size: int, events: int) -> None:
    """Raises InputError when a pool would have more entries than there are events."""
    if events < pool_size:
        raise InputError(
            f"collective.pool_size = {pool_size}: more entries than the {events} "
            "events to learn from. Make it smaller."
        )


def _seen(
    network: WindowedNetwork,
    sources: list[KeyValues],
    histories: Sequences,
    seed: int,
    events: int,
) -> list[Tensor]:
    """What each of ``sources`` in ``network`` reads, ``[n, D]``, of at least ``events``."""
    found: list[list[Tensor]] = [[] for _ in sources]
    hooks = [
        part.register_forward_hook(lambda _, inputs, __, kept=kept: kept.append(inputs[0][real]))
        for part, kept in zip(sources, found, strict=True)
    ]
    rng, known = np.random.default_rng(seed), 0
    batches = training_batches(histories, 2 * network.window, 4_096, rng)
    with torch.no_grad():
        for batch in batches:
            given = tensors(batch, network.items.weight.device)
            place = torch.arange(given.items.shape[1], device=given.items.device)
            real = place < given.lengths[:, None]
            network.eval()(given)
            known += batch.tokens
            if known >= events:
                break
    for hook in hooks:
        hook.remove()
    return [torch.cat(kept) for kept in found]
