"""Rankers that start from the weights of a trained ranker instead of from chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from foretaste.data.click_batches import ClickBatch
from foretaste.errors import InputError
from foretaste.nn.collective import CollectiveKeyValues
from foretaste.nn.compressing import begin_key_values, turn_output, turn_query
from foretaste.nn.key_values import FullKeyValues
from foretaste.recommenders.core.ranker_network import History, RankerNetwork
from foretaste.recommenders.core.starting import EVENTS, require_events

SAME = ("dim", "heads", "max_length", "hidden", "rounds", "bits")
"""Fields that the trained ranker must have alike, where a ranker has them."""

TURNED = ("key_values", "query", "interest", "taste", "planes")
"""Parts that read or make keys and values: theirs change with the form."""


@torch.no_grad()
def start_ranker(
    network: RankerNetwork,
    source: RankerNetwork,
    batches: Iterable[ClickBatch],
    read: Callable[[ClickBatch, torch.device], tuple[History, Tensor, Tensor]],
    seed: int,
) -> None:
    """Give ``network`` the weights of ``source``, and its form of them where it differs.

    Args:
        network: with weights to be replaced.
        source: trained, with full attention or of the same form; of the same shape (``SAME``).
        batches: of what it was trained on.
        read: makes of a batch what a network takes.
        seed: of k-means.

    Raises:
        InputError: when the forms do not fit, or there are fewer events than pool entries.
    """
    ours, theirs = network.state_dict(), source.state_dict()
    if {name: w.shape for name, w in ours.items()} == {n: w.shape for n, w in theirs.items()}:
        network.load_state_dict(theirs)
        return
    made, whole = network.key_values, source.key_values
    if not isinstance(made, CollectiveKeyValues) or not isinstance(whole, FullKeyValues):
        raise InputError(
            "model.start_from: only a ranker with full attention can become collective. Train "
            "from nothing, or start from a run with full attention."
        )
    turned = {name for name in ours if name.split(".")[0] in TURNED}
    network.load_state_dict({name: (ours if name in turned else theirs)[name] for name in ours})
    seen = _seen(source, batches, read, max(EVENTS, 10 * made.config.pool_size))
    require_events(made.config.pool_size, len(seen))
    turns = begin_key_values(made, whole, seen, seed)
    turn_query(network.query, source.query, turns.key, source.scale / network.scale)
    turn_output(network.interest, source.interest, turns.value)
    turn_output(network.taste, source.taste, turns.value)
    if "planes" in theirs:  # hashes of turned keys are those of the old ones
        planes = torch.einsum("hpk,hkl->hpl", theirs["planes"], turns.key)
        network.get_buffer("planes").copy_(planes)


def _seen(
    network: RankerNetwork,
    batches: Iterable[ClickBatch],
    read: Callable[[ClickBatch, torch.device], tuple[History, Tensor, Tensor]],
    events: int,
) -> Tensor:
    """What the keys and values of ``network`` read, ``[n, D]``, of about ``events``."""
    found: list[Tensor] = []
    hook = network.key_values.register_forward_hook(lambda _, given, __: found.append(given[0]))
    device, known = network.items.weight.device, 0
    network.eval()
    for batch in batches:
        network(*read(batch, device))
        known += int(np.sum(batch.lengths))
        if known >= events:
            break
    hook.remove()
    return torch.cat(found)
