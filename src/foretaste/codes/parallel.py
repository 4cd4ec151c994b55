"""Parallel codes: slots filled in any order, and all items scored at once by gather and sum."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from foretaste.codes.beam import FoundItems
from foretaste.codes.best import as_found, best_pairs, best_places
from foretaste.codes.trie import NoContinuationError
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

FREE = -1
NUMBERS_AT_ONCE = 4_000_000
"""Scores held at a time on a processor: 16 MB."""
NUMBERS_ON_DEVICE = 128_000_000


class Agreeing(NamedTuple):
    """Items that have the fixed codes of some rows, row by row and ascending within a row.

    Attributes:
        rows: int64 ``[n]``.
        items: int64 ``[n]``.
    """

    rows: Tensor
    items: Tensor


class Hidden(NamedTuple):
    """Unwanted items of queries (``SlotIndex.pairs``), and the query of each row, int64 ``[R]``."""

    pairs: Tensor
    queries: Tensor


class SlotIndex:
    """A catalog of parallel codes: which items agree with any subset of fixed slots.

    It holds the table once, with slots beside each other in one numbering (code ``c`` of slot ``l``
    is ``l * size + c``), and for each slot the items in the order of their codes: 8 bytes for each
    item and slot.

    Attributes:
        numbers: int32 ``[L, items]``, codes in the common numbering.
        order: int32 ``[L, items]``, for each slot the items by code.
        first: int64 ``[L * size + 1]``, where in ``order`` (flat) the items of each code begin.
        size: codes of a slot.
    """

    def __init__(self, numbers: Tensor, order: Tensor, first: Tensor, size: int) -> None:
        """Use ``from_table``."""
        self.numbers, self.order, self.first, self.size = numbers, order, first, size

    @classmethod
    def from_table(cls, table: np.ndarray, size: int) -> SlotIndex:
        """Index codes int ``[items, L]``, each below ``size``.

        Raises:
            InputError: for no item, no slot, a code outside 0..size-1, or two items of equal codes.
        """
        if table.ndim != 2 or not table.size:
            raise InputError(f"slots: codes {list(table.shape)}; give [items, L], both above 0.")
        if (table < 0).any() or (table >= size).any():
            raise InputError(f"slots: a code is outside 0..{size - 1}.")
        rows, counts = np.unique(table, axis=0, return_counts=True)
        if len(rows) < len(table):
            same = np.flatnonzero((table == rows[counts > 1][0]).all(1))
            raise InputError(
                f"slots: items {same[0]} and {same[1]} have the same codes. Give every item codes "
                "of its own."
            )
        numbers = (table + np.arange(table.shape[1]) * size).astype(np.int32)
        counts = np.bincount(numbers.ravel(), minlength=table.shape[1] * size)
        return cls(
            torch.from_numpy(np.ascontiguousarray(numbers.T)),
            torch.from_numpy(np.argsort(table, axis=0, kind="stable").T.astype(np.int32)),
            torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])),
            size,
        )

    def __len__(self) -> int:
        return self.numbers.shape[1]

    @property
    def slots(self) -> int:
        """Codes of an item."""
        return len(self.numbers)

    @property
    def device(self) -> torch.device:
        """Where the arrays lie."""
        return self.numbers.device

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.numbers, self.order, self.first)
        return sum(array.numel() * array.element_size() for array in arrays)

    def to(self, device: torch.device | str) -> SlotIndex:
        """The same index on a device; itself, where it lies there."""
        if self.device == torch.device(device):
            return self
        numbers, order = self.numbers.to(device), self.order.to(device)
        return SlotIndex(numbers, order, self.first.to(device), self.size)

    def agreeing(self, fixed: Tensor) -> Agreeing:
        """The items that agree with the fixed slots of each row.

        The items of the rarest fixed code of a row are looked through, so a row costs as many steps
        as that code has items; a row without a fixed slot gets the whole catalog.

        Args:
            fixed: int64 ``[B, L]``, codes, and ``FREE`` (-1) where a slot is not fixed.

        Raises:
            NoContinuationError: when no item agrees with a row.
            InputError: for a code outside the slot, or another number of slots.
        """
        self._check(fixed)
        codes = torch.arange(self.slots, device=self.device) * self.size + fixed  # [B, L]
        free = fixed == FREE
        begin, count = self._rarest(fixed)
        rows = torch.repeat_interleave(torch.arange(len(fixed), device=self.device), count)
        ahead = count.cumsum(0) - count
        place = torch.arange(len(rows), device=self.device) - (ahead - begin)[rows]
        items = self.order.flatten()[place].long()
        agrees = ((codes[rows] == self.numbers[:, items].T) | free[rows]).all(1)
        rows, items = rows[agrees], items[agrees]
        present = torch.zeros(len(fixed), dtype=torch.bool, device=self.device)
        present[rows] = True
        if not bool(present.all()):
            row = int((~present).long().argmax())
            raise NoContinuationError(f"no item has the codes {fixed[row].tolist()} (row {row})")
        order = (rows * len(self) + items).argsort()
        return Agreeing(rows[order], items[order])

    def _rarest(self, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Where in ``order`` the items of each row's rarest fixed code begin, and how many.

        A row with nothing fixed reads the items of slot 0, all of them.
        """
        codes = torch.arange(self.slots, device=self.device) * self.size + fixed  # [B, L]
        free = fixed == FREE
        known = codes.masked_fill(free, 0)
        counts = (self.first[known + 1] - self.first[known]).masked_fill(free, len(self))
        count, slot = counts.min(1)  # [B]
        rare = known.gather(1, slot[:, None]).squeeze(1)
        return torch.where(free.all(1), 0, self.first[rare]), count

    def allowed(self, fixed: Tensor, hidden: Hidden | None = None) -> Tensor:
        """The codes that remain: bool ``[B, L, K]``, True where some agreeing item has the code.

        In a fixed slot only its own code remains. Arguments and errors as ``agreeing``, with
        ``hidden`` the items of each row that do not count, of which there may be all.
        """
        if bool((fixed == FREE).all()):
            self._check(fixed)
            counts = self.first.diff()[None]  # [1, L K]
            if hidden is not None:
                counts = counts - self._counts(hidden)
            left = (counts > 0).view(-1, self.slots, self.size)
            return left.expand(len(fixed), -1, -1)
        rows, items = self.agreeing(fixed)
        if hidden is not None:
            count = ~torch.isin(hidden.queries[rows] * len(self) + items, hidden.pairs)
            rows, items = rows[count], items[count]
        mask = torch.zeros(len(fixed), self.slots * self.size, dtype=torch.bool, device=self.device)
        mask[rows[:, None], self.numbers[:, items].T.long()] = True
        return mask.view(len(fixed), self.slots, self.size)

    def _counts(self, hidden: Hidden) -> Tensor:
        """Hidden items of each row that have each code, ``[B, L K]``."""
        query, item = hidden.pairs // len(self), hidden.pairs % len(self)
        queries = int(torch.cat([query, hidden.queries]).amax()) + 1
        codes = query[:, None] * len(self.first.diff()) + self.numbers[:, item].T  # [n, L]
        counts = torch.bincount(codes.flatten(), minlength=queries * len(self.first.diff()))
        return counts.view(queries, -1)[hidden.queries]

    def pairs(self, hidden: Sequences) -> Tensor:
        """Items of rows as numbers ``row * items + item``, each once and ascending."""
        pairs = np.unique(hidden.rows * len(self) + hidden.items)
        return torch.from_numpy(pairs).to(self.device)

    def score(self, log_probs: Tensor) -> Tensor:
        """The score of every item, ``[B, N]``: the sum of its codes' log-probabilities.

        Args:
            log_probs: ``[B, L, K]`` with ``K`` at least ``size``.

        Raises:
            InputError: for another shape, or NaN.
        """
        flat = self._flat(log_probs)
        return torch.cat([self._sums(flat, part) for part in self._blocks(len(flat))]).T

    def totals(self, fixed: Tensor, logits: Tensor) -> Tensor:
        """The log of the summed exponentials of agreeing items' scores, ``[R]``; has gradients.

        Args:
            fixed: int64 ``[R, L]``, codes, ``FREE`` elsewhere.
            logits: ``[R, L, K]``; an item's score is their sum over the free slots.

        Raises:
            NoContinuationError: when no item agrees with a row.
            InputError: for shapes that do not fit, or NaN.
        """
        flat, found = self._flat(logits), []
        if bool((fixed == FREE).all()):
            parts = self._blocks(len(flat))
            return torch.stack([self._sums(flat, part).logsumexp(0) for part in parts]).logsumexp(0)
        for some in self._beams_at_once(fixed):
            rows, _, scores = self._agreeing_scores(fixed[some], flat[some])
            top = scores.new_full((some.stop - some.start,), -torch.inf)
            top = top.scatter_reduce(0, rows, scores.detach(), "amax")
            sums = torch.zeros_like(top).index_add(0, rows, (scores - top[rows]).exp())
            found.append(top + sums.log())
        return torch.cat(found)

    def marginals(self, fixed: Tensor, logits: Tensor, totals: Tensor) -> Tensor:
        """Log-probabilities of every code among agreeing items, ``[R, L, K]``; -inf where none is.

        Arguments and errors as ``totals``, whose result is given too.
        """
        flat = self._flat(logits)
        if bool((fixed == FREE).all()):
            step = max(1, self._numbers // len(self))
            parts = zip(flat.split(step), totals.split(step), strict=True)
            return torch.cat([self._marginals(*part) for part in parts])
        found = []
        for some in self._beams_at_once(fixed):
            rows, items, scores = self._agreeing_scores(fixed[some], flat[some])
            shares = (scores - totals[some][rows]).exp()
            place = rows * flat.shape[1] + self.numbers[:, items]  # [L, n]
            sums = flat.new_zeros((some.stop - some.start) * flat.shape[1])
            sums.index_add_(0, place.flatten(), shares.repeat(self.slots))
            found.append(sums.log().view(-1, self.slots, self.size))
        return torch.cat(found)

    def _marginals(self, flat: Tensor, totals: Tensor) -> Tensor:
        """Of some rows ``[B, L K]`` with nothing fixed; their items' shares are held at once."""
        parts = [self._sums(flat, part) - totals for part in self._blocks(len(flat))]
        shares, found = torch.cat(parts).exp(), []  # [N, B]
        for slot, items in enumerate(self.order):  # those with one code lie together
            first = self.first[slot * self.size : (slot + 1) * self.size] - slot * len(self)
            found.append(embedding_bag(items, shares, first.to(items.dtype), mode="sum"))
        return torch.stack(found).log().permute(2, 0, 1)  # [L, K, B] to [B, L, K]

    def _agreeing_scores(self, fixed: Tensor, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, items and scores ``[n]`` of all that agrees; of ``flat`` ``[R, L K]``."""
        found = self.agreeing(fixed)
        codes = self.numbers[:, found.items].T.long()  # [n, L]
        free = (fixed == FREE)[found.rows]
        scores = flat[found.rows[:, None], codes].masked_fill(~free, 0).sum(1)
        return found.rows, found.items, scores

    def top_items(
        self,
        log_probs: Tensor,
        k: int,
        *,
        hidden: Sequences | None = None,
        normalise: bool = False,
    ) -> FoundItems:
        """The ``k`` items with the highest scores, a block of the catalog at a time: exact.

        Args:
            log_probs: ``[B, L, K]``.
            k: items of each row; beyond the catalog the rest is -1.
            hidden: for each row the items that are not wanted.
            normalise: takes off each row's scores what makes the probabilities of all items, also
                the hidden ones, add up to 1; it costs no second look at the catalog.

        Raises:
            InputError: for ``k`` below 1, another shape, NaN, or ``hidden`` of other rows.
        """
        flat = self._flat(log_probs)
        if k < 1:
            raise InputError(f"k = {k} must be at least 1.")
        if hidden is not None and len(hidden) != len(flat):
            raise InputError(f"hidden items of {len(hidden)} rows, asked are {len(flat)}.")
        items = torch.full((len(flat), k), -1, device=self.device)
        scores, totals = flat.new_full((len(flat), k), -torch.inf), []
        for part in self._blocks(len(flat)):
            found = self._sums(flat, part)  # [n, B]
            if normalise:
                totals.append(found.logsumexp(0))
            if hidden is not None:
                inside = (hidden.items >= part.start) & (hidden.items < part.stop)
                row = torch.from_numpy(hidden.rows[inside]).to(self.device)
                at = torch.from_numpy(hidden.items[inside].astype(np.int64)).to(self.device)
                found[at - part.start, row] = -torch.inf
            values, places = best_places(found, k)
            # What was found before comes first, so that of equal scores it stays.
            both = torch.cat([scores, values], 1)
            numbers = torch.cat([items, places + part.start], 1)
            scores, chosen = both.topk(k, dim=1)
            items = numbers.gather(1, chosen)
        items = items.masked_fill(scores.isneginf(), -1)
        if normalise:
            scores = scores - torch.stack(totals).logsumexp(0)[:, None]
        return FoundItems(items, scores)

    def top_agreeing(
        self,
        fixed: Tensor,
        start: Tensor,
        log_probs: Tensor,
        queries: Tensor,
        count: int,
        k: int,
        *,
        hidden: Sequences | None = None,
    ) -> FoundItems:
        """The last stage of two-stage decoding: the best items that agree with beams, exactly.

        An item's score is that of its beam and the log-probabilities of its codes in the free
        slots; of several beams that it agrees with, the best counts.

        Args:
            fixed: int64 ``[R, L]``, the fixed codes of each beam, ``FREE`` elsewhere.
            start: ``[R]``, the score of each beam so far.
            log_probs: ``[R, L, K]``; what it says of fixed slots is not read.
            queries: int64 ``[R]``, the query of each beam.
            count: queries.
            k: items of each query; where fewer agree the rest is -1.
            hidden: for each query the items that are not wanted.

        Raises:
            NoContinuationError: when no item agrees with a beam.
            InputError: for shapes that do not fit, or NaN.
        """
        flat = self._flat(log_probs)
        self._check(fixed)
        unwanted = None if hidden is None else self.pairs(hidden)
        parts = []
        for some in self._beams_at_once(fixed):
            rows, items, gained = self._agreeing_scores(fixed[some], flat[some])
            scores = start[some][rows] + gained
            pairs = queries[some][rows] * len(self) + items
            if unwanted is not None:
                scores = scores.masked_fill(torch.isin(pairs, unwanted), -torch.inf)
            best = best_pairs(pairs, scores, len(self), k)
            parts.append((pairs[best], scores[best], fixed[some][rows[best]]))
        pairs, scores, written = (torch.cat(part) for part in zip(*parts, strict=True))
        if len(parts) > 1:
            best = best_pairs(pairs, scores, len(self), k)
            pairs, scores, written = pairs[best], scores[best], written[best]
        return as_found(pairs, scores, written, len(self), count, k)

    def _beams_at_once(self, fixed: Tensor) -> list[slice]:
        """Stretches of beams whose items are few enough to be looked through together."""
        ends = (self._rarest(fixed)[1].cumsum(0) * self.slots // self._numbers).cpu()
        cuts = (ends.diff() > 0).nonzero().squeeze(1).add(1).tolist()
        return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, len(fixed)], strict=True)]

    @property
    def _numbers(self) -> int:
        """Numbers held at once."""
        return NUMBERS_AT_ONCE if self.device.type == "cpu" else NUMBERS_ON_DEVICE

    def _blocks(self, rows: int) -> list[slice]:
        step = max(1, self._numbers // max(rows, 1))
        return [slice(i, min(i + step, len(self))) for i in range(0, len(self), step)]

    def _sums(self, flat: Tensor, part: slice) -> Tensor:
        """Gather and sum for some items: ``[n, B]``."""
        if len(flat) > 1:
            numbers = self.numbers[:, part].T.contiguous()
            return embedding_bag(numbers, flat.T.contiguous(), mode="sum")
        found = flat[0].index_select(0, self.numbers[0, part])
        for slot in range(1, self.slots):
            found += flat[0].index_select(0, self.numbers[slot, part])
        return found[:, None]

    def _flat(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities in the common numbering, ``[B, L * size]``."""
        shape = log_probs.shape
        if len(shape) != 3 or shape[1] != self.slots or shape[2] < self.size:
            raise InputError(
                f"slots: log-probabilities {list(shape)}, not [B, {self.slots}, {self.size}]."
            )
        if bool(log_probs.isnan().any()):
            raise InputError("slots: log-probabilities are NaN. Train with a lower learning rate.")
        return log_probs[:, :, : self.size].flatten(1).float()

    def _check(self, fixed: Tensor) -> None:
        if fixed.ndim != 2 or fixed.shape[1] != self.slots:
            raise InputError(f"slots: fixed codes {list(fixed.shape)}, not [B, {self.slots}].")
        if bool(((fixed < FREE) | (fixed >= self.size)).any()):
            raise InputError(f"slots: a fixed code is outside 0..{self.size - 1} and not -1.")
