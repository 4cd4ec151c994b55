"""Who is served and what is asked for: the groups that a mean over everybody hides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

HEAD_SHARE = 0.2
"""The share of the catalog that is called its head."""

# Lower ends of the bands of history length. Fixed, not terciles: a slice then means the same on
# every data set and in every run, so two runs can be compared slice by slice.
_BANDS = {"cold": 0, "1-4": 1, "5-19": 5, "20-99": 20, "100+": 100}


def user_slices(history_lengths: npt.ArrayLike) -> dict[str, Mask]:
    """Split queries by the number of events in their history.

    Args:
        history_lengths: ``int [Q]``, events.

    Returns:
        ``bool [Q]`` for each of ``cold`` (no event), ``1-4``, ``5-19``, ``20-99`` and ``100+``, in
        this order. Every query is in exactly one; a slice may be empty.

    Raises:
        ValueError: a length is negative.
    """
    lengths = np.asarray(history_lengths)
    if (lengths < 0).any():
        raise ValueError(f"a history cannot have {int(lengths.min())} events.")
    band = np.searchsorted(list(_BANDS.values()), lengths, side="right") - 1  # [Q]
    return {name: band == number for number, name in enumerate(_BANDS)}


def item_slices(target_items: npt.ArrayLike, popularity: npt.ArrayLike) -> dict[str, Mask]:
    """Split targets by how often their item was chosen in training.

    Args:
        target_items: ``int [T]`` in ``-1..N-1``; ``-1`` is an item unknown to the model.
        popularity: ``int [N]``, interactions of each item in training.

    Returns:
        ``bool [T]`` for each of ``head`` (see ``head_items``), ``tail`` (every other item of the
        catalog, the never chosen included) and ``new`` (``-1``). Every target is in exactly one.

    Raises:
        ValueError: a target is not in the catalog.
    """
    items = np.asarray(target_items, dtype=np.int64)
    head = head_items(popularity)
    if items.size and (items.min() < -1 or items.max() >= len(head)):
        raise ValueError(f"target_items must be in 0..{len(head) - 1}, or -1 for a new item.")
    new = items == -1
    in_head = ~new & np.append(head, False)[items]  # -1 reads the appended False
    return {"head": in_head, "tail": ~new & ~in_head, "new": new}


def head_items(popularity: npt.ArrayLike) -> Mask:
    """The most chosen fifth of the catalog: ``bool [N]``.

    These are the ``ceil(N / 5)`` items with the most interactions, of equals the one with the
    lower number; an item without any interaction is never among them. The fifth is a share of the
    items, not of the interactions, so the head has the same size whatever the popularity curve.

    Args:
        popularity: ``int [N]``, interactions of each item in training.
    """
    counts = np.asarray(popularity)
    most = np.argsort(-counts, kind="stable")[: int(np.ceil(HEAD_SHARE * len(counts)))]
    head = np.zeros(len(counts), dtype=bool)
    head[most] = True
    return head & (counts > 0)
