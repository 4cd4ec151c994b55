"""Where a target stands among the scores of its query: counts, never a sorted list.

A rank is a count of better items, and a tie is a count of equal ones, so nothing has to be sorted:
each target costs two comparisons over its row. Sorting a row of 12,000 items costs as much as some
40 targets do, and the usual query has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from foretaste.errors import NotNumbersError

if TYPE_CHECKING:
    import torch

    IntTensor = torch.Tensor | npt.NDArray[np.integer]

Ints = npt.NDArray[np.int64]

# Scores compared at a time on an accelerator, where only the number of launches counts: 256 MB.
_BLOCK_ON_DEVICE = 64_000_000


class TargetPositions(NamedTuple):
    """How many items stand before, and beside, each target.

    A target occupies one of the ranks ``greater + 1 .. greater + 1 + equal``, each as likely as
    the others. A target that can never be found has ``greater == items`` and ``equal == 0``; it is
    not found even when a list is longer than the catalog.

    Attributes:
        greater: ``int64 [T]``, items of the row with a strictly higher score.
        equal: ``int64 [T]``, *other* items of the row with exactly the same score.
        items: N, how many items each row scores.
    """

    greater: Ints
    equal: Ints
    items: int

    def listed(self, k: int) -> npt.NDArray[np.float64]:
        """The chance that each target is in a list of ``k``, float64 ``[T]`` in 0..1."""
        ranks = self.equal + 1  # [T], those that the target may have
        return np.clip(min(k, self.items) - self.greater, 0, ranks) / ranks


def target_positions(
    scores: torch.Tensor, target_rows: IntTensor, target_items: IntTensor
) -> TargetPositions:
    """Count, for each (query row, target item), the items that score higher and the same.

    Args:
        scores: ``float32 [Q, N]`` on any device; ``-inf`` marks an excluded item.
        target_rows: ``int64 [T]`` in ``0..Q-1``, in any order, repeated for several targets.
        target_items: ``int64 [T]`` in ``-1..N-1``. ``-1`` is an item unknown to the model; it and
            a target whose own score is ``-inf`` are never found (``greater = N, equal = 0``).

    Returns:
        Positions in the order of the targets, as NumPy arrays.

    Raises:
        NotNumbersError: a row that holds a target contains NaN.
        ValueError: a row or item out of range; the same known item twice among one row's targets;
            shapes that do not fit.
    """
    # NumPy has no bfloat16; every half-precision number is a float32, so widening keeps all ties.
    scores = scores.detach().float() if scores.dtype.itemsize == 2 else scores.detach()
    rows, items = _as_int64(target_rows), _as_int64(target_items)
    _check(scores, rows, items)
    catalog = scores.shape[1]

    place = rows.to(scores.device)
    own = scores[place, items.to(scores.device).clamp_min(0)]  # [T]
    if scores.device.type == "cpu":
        greater, at_least = _count(scores.numpy(), rows.numpy(), own.numpy())
    else:
        greater, at_least = _count_on_device(scores, place, own)
    # NaN has been refused, so a known target's score is -inf or it has a place in the order.
    found = (items.numpy() >= 0) & (own.cpu().numpy() != -np.inf)
    # The item itself is one of those that score at least as much as it does.
    equal = np.where(found, at_least - greater - 1, 0)
    return TargetPositions(np.where(found, greater, catalog), equal, catalog)


def _as_int64(values: IntTensor) -> torch.Tensor:
    import torch

    if isinstance(values, torch.Tensor):
        return values.to("cpu", torch.int64)
    return torch.from_numpy(np.array(values, dtype=np.int64))  # copied: it may be read-only


def _check(scores: torch.Tensor, rows: torch.Tensor, items: torch.Tensor) -> None:
    """Refuse what would give a wrong count in silence."""
    if scores.ndim != 2 or scores.shape[1] == 0 or rows.ndim != 1 or rows.shape != items.shape:
        raise ValueError(
            "target_positions wants scores [Q, N], N > 0, target_rows [T] and target_items [T], "
            f"got {list(scores.shape)}, {list(rows.shape)} and {list(items.shape)}."
        )
    if not scores.is_floating_point():
        raise ValueError(f"scores must be floating point, got {scores.dtype}.")
    queries, catalog = scores.shape
    if len(rows) == 0:
        return
    if int(rows.min()) < 0 or int(rows.max()) >= queries:
        raise ValueError(f"target_rows must be in 0..{queries - 1}, the rows of scores.")
    if int(items.min()) < -1 or int(items.max()) >= catalog:
        raise ValueError(
            f"target_items must be in 0..{catalog - 1}, or -1 for an item unknown to the model."
        )
    if bool((rows[1:] > rows[:-1]).all()):
        return  # one target per row, so none can be repeated
    known = items >= 0
    pairs = (rows[known] * catalog + items[known]).sort().values  # [known targets]
    repeated = pairs[1:][pairs[1:] == pairs[:-1]]
    if len(repeated):
        row, item = divmod(int(repeated[0]), catalog)
        raise ValueError(
            f"row {row} has item {item} twice among its targets. Keep each target once: "
            "a list cannot show an item twice, so no list could be perfect."
        )


def _count(matrix: npt.NDArray, rows: Ints, own: npt.NDArray) -> tuple[Ints, Ints]:
    """Items above, and items at or above, each target's own score, on the processor.

    One row at a time, by NumPy, on one thread: the row and the marks of its comparison stay in the
    nearest cache, and booleans are counted 64 bytes at a time. PyTorch in blocks of rows is half as
    fast again on two idle cores; on two busy ones its threads wait for each other at the end of
    every operation and it falls to a hundredth, where this loses nothing but its share.
    """
    greater, at_least = np.empty_like(rows), np.empty_like(rows)  # [T], [T]
    mark = np.empty(matrix.shape[1], dtype=bool)  # [N]
    previous = -1
    for place, row in enumerate(rows.tolist()):
        scores = matrix[row]  # [N]
        if row != previous and np.isnan(scores.max()):  # the maximum is NaN if any score is
            raise _nan_in(row)
        previous = row
        np.greater(scores, own[place], out=mark)
        greater[place] = np.count_nonzero(mark)
        np.greater_equal(scores, own[place], out=mark)
        at_least[place] = np.count_nonzero(mark)
    return greater, at_least


def _count_on_device(
    scores: torch.Tensor, rows: torch.Tensor, own: torch.Tensor
) -> tuple[Ints, Ints]:
    """The same counts where the scores are, so that only counts travel to the host."""
    import torch

    size = max(1, _BLOCK_ON_DEVICE // scores.shape[1])
    greater, at_least = torch.empty_like(rows), torch.empty_like(rows)  # [T], [T]
    highest = torch.empty_like(own)  # [T]
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        block = scores.index_select(0, rows[part])  # [block, N]
        bar = own[part, None]  # [block, 1]
        greater[part] = (block > bar).sum(1)
        at_least[part] = (block >= bar).sum(1)
        highest[part] = block.amax(1)
    bad = rows[highest.isnan()]
    if len(bad):
        raise _nan_in(int(bad[0]))
    return greater.cpu().numpy(), at_least.cpu().numpy()


def _nan_in(row: int) -> NotNumbersError:
    return NotNumbersError(
        f"row {row} of the scores holds NaN, so its items have no order. "
        "Look for a division by zero or an exploded loss in the model that scored it."
    )
