"""A trie of a catalog's paths in flat arrays: what may follow, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

ROOT = 0


class NoContinuationError(LookupError):
    """A search asked for what no item has: a mistake in the search, never in the data."""


class Children(NamedTuple):
    """What may follow some states: rows of equal width, padded.

    Attributes:
        tokens: int64 ``[B, C]``, ascending; 0 on padding.
        nodes: int64 ``[B, C]``, the states that they lead to; -1 on padding.
        real: bool ``[B, C]``, False on padding.
    """

    tokens: Tensor
    nodes: Tensor
    real: Tensor


class Trie:
    """Paths of a catalog, one for each item; a state is the number of a node.

    Nodes are numbered level by level and, within a level, in the order of their paths, so that the
    children of a node lie side by side with ascending tokens: ``first[n]`` to ``first[n + 1]``. A
    node costs 8 bytes (6 where tokens are below 32,768), an item 8 more for its leaf.

    Attributes:
        tokens: int16 or int32 ``[nodes]``, the token that leads to each node; 0 at the root.
        first: int32 ``[nodes + 1]``, the first child of each node.
        leaves: int32 ``[items]``, the nodes at which paths end, ascending.
        leaf_items: int32 ``[items]``, the item of each of these.
        levels: nodes of the tree down to each depth, ``[depth + 2]``: those at depth ``d`` are
            ``levels[d]`` to ``levels[d + 1]``.
        vocabulary: one more than the largest token.
        widths: the same of the tokens at each depth, ``[depth]``.
    """

    def __init__(
        self,
        tokens: Tensor,
        first: Tensor,
        leaves: Tensor,
        leaf_items: Tensor,
        levels: tuple[int, ...],
    ) -> None:
        """Use ``from_table`` or ``from_paths``."""
        self.tokens, self.first, self.leaves, self.leaf_items = tokens, first, leaves, leaf_items
        self.levels = levels
        ends = pairwise(levels[1:])
        self.widths = tuple(int(tokens[begin:end].max()) + 1 for begin, end in ends)
        self.vocabulary = max(self.widths)

    @classmethod
    def from_table(cls, table: np.ndarray) -> Trie:
        """Paths of equal length: row ``i`` of codes int ``[items, L]`` is the path of item ``i``.

        Raises:
            InputError: for no item, no level, a negative code, or two items of one path.
        """
        if table.ndim != 2 or not table.size:
            raise InputError(
                f"trie: codes {list(table.shape)}; give [items, levels], both above 0."
            )
        if (table < 0).any():
            raise InputError("trie: a code is negative.")
        ends = np.arange(0, table.size + 1, table.shape[1])
        return cls._built(Sequences(table.ravel(), ends))

    @classmethod
    def from_paths(cls, paths: Sequences | Sequence[Sequence[int]], end: int) -> Trie:
        """Paths of any length, such as the tokens of titles; ``end`` is put after each of them.

        With the end marker no path is the beginning of another, so every leaf is an item.

        Raises:
            InputError: for no path, a token that is negative or the end marker, or two items of
                one path.
        """
        rows = paths if isinstance(paths, Sequences) else Sequences.from_lists(paths)
        if not len(rows):
            raise InputError("trie: no path. Give a catalog with at least one item.")
        if end < 0 or (rows.items == end).any():
            raise InputError(f"trie: the end marker {end} is negative or a token of a path.")
        if (rows.items < 0).any():
            raise InputError("trie: a token is negative.")
        ended = np.insert(rows.items, rows.offsets[1:], end)
        return cls._built(Sequences(ended, rows.offsets + np.arange(len(rows) + 1)))

    @classmethod
    def _built(cls, paths: Sequences) -> Trie:
        """From paths of which none is the beginning of another, one token after the other."""
        width = int(paths.items.max()) + 1
        kind = np.int16 if width <= 2**15 else np.int32
        starts, lengths = paths.offsets[:-1], paths.lengths
        tokens, counts, levels = [np.zeros(1, kind)], [], [0, 1]
        leaves, items = [], []
        # Paths that are as long as this at least, and the node of each at the level above.
        alive, parent = np.arange(len(paths)), np.zeros(len(paths), np.int64)
        for depth in range(int(lengths.max())):
            keys = parent * width + paths.items[starts[alive] + depth]
            order = np.argsort(keys, kind="stable")
            alive, keys = alive[order], keys[order]
            begins = np.r_[True, keys[1:] != keys[:-1]]
            nodes, distinct = np.cumsum(begins) - 1, keys[begins]
            tokens.append((distinct % width).astype(kind))
            counts.append(np.bincount(distinct // width, minlength=levels[-1] - levels[-2]))
            ends = lengths[alive] == depth + 1
            _check_alone(nodes[ends], alive[ends])
            leaves.append(levels[-1] + nodes[ends])
            items.append(alive[ends])
            levels.append(levels[-1] + len(distinct))
            alive, parent = alive[~ends], nodes[~ends]
        counts.append(np.zeros(levels[-1] - levels[-2], np.int64))
        first = np.concatenate([[1], 1 + np.cumsum(np.concatenate(counts))])
        return cls(
            torch.from_numpy(np.concatenate(tokens)),
            torch.from_numpy(first.astype(np.int32)),
            torch.from_numpy(np.concatenate(leaves).astype(np.int32)),
            torch.from_numpy(np.concatenate(items).astype(np.int32)),
            tuple(levels),
        )

    def __len__(self) -> int:
        return len(self.leaves)

    @property
    def nodes(self) -> int:
        """Nodes, the root counted."""
        return len(self.tokens)

    @property
    def depth(self) -> int:
        """Tokens of the longest path, the end marker counted."""
        return len(self.levels) - 2

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.tokens, self.first, self.leaves, self.leaf_items)
        return sum(array.numel() * array.element_size() for array in arrays)

    @property
    def device(self) -> torch.device:
        """Where the arrays lie."""
        return self.tokens.device

    def to(self, device: torch.device | str) -> Trie:
        """The same trie on a device; itself, where it lies there."""
        if self.device == torch.device(device):
            return self
        return Trie(
            self.tokens.to(device),
            self.first.to(device),
            self.leaves.to(device),
            self.leaf_items.to(device),
            self.levels,
        )

    def start(self, count: int) -> Tensor:
        """The root, ``count`` times: int64 ``[count]``."""
        return torch.full((count,), ROOT, dtype=torch.int64, device=self.device)

    def children(self, states: Tensor) -> Children:
        """What may follow each state int64 ``[B]``.

        Raises:
            NoContinuationError: when nothing may follow one of them: it is a leaf, or no state.
        """
        begin, count = self._ranges(states)
        place = torch.arange(int(count.max()) if len(count) else 0, device=self.device)
        real = place < count[:, None]  # [B, C]
        nodes = torch.where(real, begin[:, None] + place, -1)
        # Index -1 reads the last node, which the mask then hides.
        return Children(self.tokens[nodes].long() * real, nodes, real)

    def mask(self, states: Tensor, vocabulary: int | None = None) -> Tensor:
        """Which tokens may follow each state int64 ``[B]``: bool ``[B, V]``.

        Args:
            states: to go on from.
            vocabulary: width of the mask; by default that of the trie.

        Raises:
            NoContinuationError: as ``children``.
            InputError: when a token of the trie does not fit the width.
        """
        width = self.vocabulary if vocabulary is None else vocabulary
        if width < self.vocabulary:
            raise InputError(f"trie: tokens up to {self.vocabulary - 1}, a mask of {width} asked.")
        rows, tokens = self.allowed(states)
        mask = torch.zeros(len(states), width, dtype=torch.bool, device=self.device)
        mask[rows, tokens] = True
        return mask

    def allowed(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """What may follow, without padding: rows and tokens, int64, row by row.

        Raises:
            NoContinuationError: as ``children``.
        """
        begin, count = self._ranges(states)
        rows = torch.repeat_interleave(torch.arange(len(states), device=self.device), count)
        ahead = count.cumsum(0) - count
        nodes = torch.arange(len(rows), device=self.device) - (ahead - begin)[rows]
        return rows, self.tokens[nodes].long()

    def step(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states int64 ``[B]`` that these tokens ``[B]`` lead to.

        Raises:
            NoContinuationError: when a token may not follow.
        """
        low, count = self._ranges(states)
        high = end = low + count
        # A search by halves, all rows at once; the widest node sets the number of rounds.
        for _ in range(int(count.max()).bit_length() if len(count) else 0):
            middle = (low + high) // 2
            below = self.tokens[middle.clamp_max(self.nodes - 1)] < tokens
            open_rows = low < high
            low = torch.where(open_rows & below, middle + 1, low)
            high = torch.where(open_rows & ~below, middle, high)
        found = (low < end) & (self.tokens[low.clamp_max(self.nodes - 1)] == tokens)
        if not bool(found.all()):
            row = int((~found).long().argmax())
            raise NoContinuationError(
                f"token {int(tokens[row])} does not follow node {int(states[row])} (row {row})"
            )
        return low

    def items(self, states: Tensor) -> Tensor:
        """The items int64 ``[B]`` at which paths to these states end; -1 where none ends."""
        place = torch.searchsorted(self.leaves, states.to(self.leaves.dtype))
        place = place.clamp_max(len(self) - 1)
        ends = self.leaves[place] == states
        return torch.where(ends, self.leaf_items[place].long(), -1)

    def parents(self, nodes: Tensor) -> Tensor:
        """The node above each node int64 ``[B]``, none of them the root."""
        return torch.searchsorted(self.first, nodes.to(self.first.dtype), right=True) - 1

    def paths(self, nodes: Tensor, depth: int) -> Tensor:
        """The tokens int64 ``[B, depth]`` that lead to nodes of this depth."""
        tokens = torch.empty(len(nodes), depth, dtype=torch.int64, device=self.device)
        for level in range(depth - 1, -1, -1):
            tokens[:, level] = self.tokens[nodes].long()
            nodes = self.parents(nodes)
        return tokens

    def _ranges(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """First child and number of children of each state."""
        outside = (states < 0) | (states >= self.nodes)
        known = states.masked_fill(outside, 0)
        begin = self.first[known].long()
        count = self.first[known + 1].long() - begin
        dead = outside | (count == 0)
        if bool(dead.any()):
            row = int(dead.long().argmax())
            raise NoContinuationError(f"nothing follows node {int(states[row])} (row {row})")
        return begin, count


def _check_alone(nodes: np.ndarray, items: np.ndarray) -> None:
    """Raise InputError when paths of two items end at one node; nodes ascend."""
    same = np.flatnonzero(nodes[1:] == nodes[:-1])
    if len(same):
        one, other = items[same[0]], items[same[0] + 1]
        raise InputError(
            f"trie: items {one} and {other} have the same path. Give every item codes of its own."
        )
