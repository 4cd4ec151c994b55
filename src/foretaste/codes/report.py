"""How good a code table is, in numbers and, where something is wrong, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from foretaste.codes.checking import ROWS_AT_ONCE
from foretaste.codes.neighbours import Neighbours, compare_neighbours
from foretaste.errors import InputError

if TYPE_CHECKING:
    from foretaste.codes.table import Codes
    from foretaste.codes.tokenizer import Tokenizer

COLLAPSED = 0.1
"""A level is called collapsed when its perplexity is below this share of the way from 1, where all
items have one code, to what it could be."""
SLEEPY = 0.05
"""A share of codes that nobody uses is worth a word from here on."""
CROWDED = 0.05
"""A share of items that did not keep their nearest codes is worth a word from here on."""
STABLE = 0.5
"""Codes are called unstable when another seed gives fewer of the items the matching code."""


class LevelUse(NamedTuple):
    """How the codes of one level are used, before collisions are resolved.

    Attributes:
        size: codes of the level.
        used: codes that an item has.
        perplexity: how many codes there would be if the same information came from codes that are
            used equally: ``exp(entropy)``, at most ``size``.
        largest: share of the items with the most frequent code.
        counts: items of each code, the most frequent first.
    """

    size: int
    used: int
    perplexity: float
    largest: float
    counts: tuple[int, ...]


class Collisions(NamedTuple):
    """Items with the same codes, before and after they were told apart.

    Attributes:
        before: items that shared their nearest codes with another item.
        distinct: different codes among the nearest ones.
        largest: items with the most frequent codes.
        moved: items that got other codes than their nearest.
        after: items that share their codes in the table: always 0.
        by_group: how many groups of 2, 3, 4, 5..9, 10..99 and 100 or more items shared codes.
        same_vector: items whose vector another item has too, which no codebook can tell apart.
    """

    before: int
    distinct: int
    largest: int
    moved: int
    after: int
    by_group: tuple[int, ...]
    same_vector: int = 0


class Stability(NamedTuple):
    """Whether other seeds give the same codes, up to renaming them.

    Attributes:
        agreement: for each level the share of items that have the matching code, under the
            renaming that makes most match, averaged over the other seeds.
        chance: the same for codes that are shuffled among the items.
        seeds: tables compared with.
    """

    agreement: tuple[float, ...]
    chance: tuple[float, ...]
    seeds: int


@dataclass(frozen=True)
class CodeReport:
    """Figures about a code table.

    Attributes:
        tokenizer: its name.
        items: in the catalog.
        sizes: codes of each level, the extra one counted.
        levels: use of each level that the tokenizer learnt.
        collisions: see ``Collisions``.
        error: mean squared distance of vectors to what their codes stand for, as a share of their
            variance; 0 is perfect, 1 is what the mean vector alone would do.
        neighbours: see ``Neighbours``.
        stability: see ``Stability``; None when no other seed was tried.
        findings: what is wrong, a sentence each.
    """

    tokenizer: str
    items: int
    sizes: tuple[int, ...]
    levels: tuple[LevelUse, ...]
    collisions: Collisions
    error: float
    neighbours: Neighbours
    stability: Stability | None
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self)
        plain["levels"] = [level._asdict() for level in self.levels]
        plain["collisions"] = self.collisions._asdict()
        plain["neighbours"] = self.neighbours._asdict()
        plain["stability"] = self.stability and self.stability._asdict()
        return plain


GROUPS = (2, 3, 4, 5, 10, 100)
"""Where the groups of ``Collisions.by_group`` begin."""


def report_on(
    tokenizer: Tokenizer, vectors: np.ndarray, *, others: Sequence[np.ndarray] = (), seed: int = 0
) -> CodeReport:
    """Figures about a fitted tokenizer.

    Args:
        tokenizer: what ``fit`` was called on.
        vectors: float ``[items, D]``, those given to ``fit``.
        others: nearest codes int ``[items, levels]`` of the same items by other seeds.
        seed: of the items that are looked at.

    Raises:
        InputError: when it is not fitted, or vectors or tables are of other items.
    """
    codes = tokenizer.codes
    if codes is None:
        raise InputError(f"{tokenizer.name}: not fitted yet, so there is nothing to report.")
    if len(vectors) != len(codes):
        raise InputError(
            f"{len(vectors):,} vectors for codes of {len(codes):,} items. Give those of the fit."
        )
    vectors = np.asarray(vectors, np.float32)  # squares of less overflow
    levels, collisions = _use(codes, vectors)
    coded = tokenizer.reconstruct(codes.table)
    # Those of the table are dealt so that no two items have all of them in common.
    neighbours = compare_neighbours(vectors, coded, codes.nearest, ordered=codes.ordered, seed=seed)
    stability = stability_of(codes.nearest, others, seed) if len(others) else None
    spread = float(np.square(vectors - vectors.mean(0)).sum(1).mean())
    lost = float(np.square(vectors - coded).sum(1).mean())
    told_apart = spread > 1e-12 * float(np.square(vectors).sum(1).mean())
    error = lost / spread if told_apart else 0.0
    return CodeReport(
        tokenizer.name,
        len(codes),
        codes.sizes,
        levels,
        collisions,
        error,
        neighbours,
        stability,
        findings_of(levels, collisions, stability, len(codes)),
    )


def findings_on(codes: Codes, vectors: np.ndarray) -> tuple[str, ...]:
    """What a reader should know of codes made of vectors ``[items, D]``, a sentence each.

    It is what ``report_on`` finds without a look at neighbours and other seeds, in little time.
    """
    return findings_of(*_use(codes, vectors), None, len(codes))


def _use(codes: Codes, vectors: np.ndarray) -> tuple[tuple[LevelUse, ...], Collisions]:
    levels = tuple(
        level_use(codes.nearest[:, level], codes.sizes[level])
        for level in range(codes.nearest.shape[1])
    )
    collisions = collisions_of(codes.nearest, codes.table, codes.moved)
    return levels, collisions._replace(same_vector=same_vectors(vectors))


def level_use(column: np.ndarray, size: int) -> LevelUse:
    """Use of one level from the codes int ``[items]`` of the catalog."""
    counts = np.sort(np.bincount(column, minlength=size))[::-1]
    shares = counts[counts > 0] / len(column)
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return LevelUse(size, len(shares), perplexity, float(shares[0]), tuple(counts.tolist()))


def collisions_of(nearest: np.ndarray, table: np.ndarray, moved: np.ndarray) -> Collisions:
    """Collisions of nearest codes ``[items, levels]`` and of the table ``[items, L]``."""
    groups = np.unique(nearest, axis=0, return_counts=True)[1]
    after = np.unique(table, axis=0, return_counts=True)[1]
    ends = (*GROUPS[1:], len(nearest) + 1)
    by_group = tuple(
        int(((groups >= low) & (groups < high)).sum())
        for low, high in zip(GROUPS, ends, strict=True)
    )
    return Collisions(
        int(groups[groups > 1].sum()),
        len(groups),
        int(groups.max()),
        int(moved.sum()),
        int(after[after > 1].sum()),
        by_group,
    )


def same_vectors(vectors: np.ndarray) -> int:
    """How many of the rows float ``[items, D]`` equal another row."""
    weights = np.random.default_rng(0).integers(2**63, size=vectors.shape[1], dtype=np.uint64)
    hashes = np.empty(len(vectors), np.uint64)
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        part = np.asarray(vectors[first : first + ROWS_AT_ONCE], np.float32)
        bits = (part + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 becomes 0
        # Whole numbers wrap around, and their sum is the same in any order.
        hashes[first : first + len(part)] = ((bits + np.uint64(1)) * weights).sum(axis=1)
    counts = np.unique(hashes, return_counts=True)[1]
    return int(counts[counts > 1].sum())


def stability_of(table: np.ndarray, others: Sequence[np.ndarray], seed: int = 0) -> Stability:
    """How far tables of other seeds agree with this one, level by level.

    Raises:
        InputError: when a table is of another shape.
    """
    rng = np.random.default_rng(seed)
    agreement, chance = [], []
    for other in others:
        if other.shape != table.shape:
            raise InputError(
                f"codes {list(other.shape)} of another seed do not fit {list(table.shape)}."
            )
        shuffled = other[rng.permutation(len(other))]
        levels = range(table.shape[1])
        agreement.append([_matched(table[:, level], other[:, level]) for level in levels])
        chance.append([_matched(table[:, level], shuffled[:, level]) for level in levels])
    return Stability(
        tuple(np.mean(agreement, axis=0).tolist()),
        tuple(np.mean(chance, axis=0).tolist()),
        len(others),
    )


def _matched(one: np.ndarray, other: np.ndarray) -> float:
    """Share of items that agree under the best one-to-one renaming of codes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    pairs, counts = np.unique(np.stack([one, other], 1), axis=0, return_counts=True)
    (left, row), (right, column) = (np.unique(pair, return_inverse=True) for pair in pairs.T)
    # Sparse, since codes may be many. A code may stay alone: each has such a partner of its own.
    alone = np.arange(len(left))
    places = np.append(row, alone), np.append(column, len(right) + alone)
    weights = np.append(counts, np.full(len(left), 0.25 / len(left)))
    shape = (len(left), len(right) + len(left))
    together = coo_array((weights, places), shape=shape).tocsr()
    best = min_weight_full_bipartite_matching(together, maximize=True)
    return float(together[best].sum() // 1 / len(one))


def findings_of(
    levels: Sequence[LevelUse], collisions: Collisions, stability: Stability | None, items: int
) -> tuple[str, ...]:
    """What a reader should know before using the codes, a sentence each."""
    found = []
    for number, level in enumerate(levels, 1):
        possible = min(level.size, items)
        if level.perplexity - 1 < COLLAPSED * (possible - 1):
            found.append(
                f"Level {number} has collapsed: its {level.size} codes tell as much as "
                f"{level.perplexity:.1f} would, and the most frequent holds {level.largest:.0%} of "
                "the items."
            )
        elif possible - level.used >= max(1, SLEEPY * possible):
            found.append(
                f"Level {number} has dead codes: {level.size - level.used} of {level.size} are "
                "never used."
            )
    if collisions.moved >= CROWDED * items:
        found.append(
            f"{collisions.moved:,} of {items:,} items could not keep their nearest codes. More "
            "levels or more codes would tell more items apart."
        )
    if collisions.same_vector >= CROWDED * items:
        found.append(
            f"{collisions.same_vector:,} of {items:,} items have the same vector as another, so "
            "their codes differ by chance alone. Longer texts, a sentence model or the vectors of "
            "a trained run would tell them apart."
        )
    if stability and stability.agreement[0] < STABLE:
        found.append(
            f"The codes depend on the seed: only {stability.agreement[0]:.0%} of the items have "
            "the matching first code under another seed."
        )
    return tuple(found)
