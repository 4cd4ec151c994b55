"""Several kinds of item vectors made one: each centred, scaled, weighted, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foretaste.errors import InputError


class Source(NamedTuple):
    """Item vectors of one origin, such as text, or a trained model.

    Attributes:
        name: of the origin, for messages.
        vectors: float32 ``[items, D]``; a zero row means that nothing is known of the item.
        weight: how much it counts beside the other sources.
    """

    name: str
    vectors: np.ndarray
    weight: float = 1.0


class Scaling(NamedTuple):
    """What makes sources comparable: learnt from a catalog, used for new items too.

    From a known vector its source's mean is taken away; then the source is scaled so that the mean
    squared length of its known vectors is ``weight ** 2``, however many numbers it has. One scale
    for the whole source, since one for each number would blow up the weakest directions of an SVD.
    An unknown vector stays zero: it then is the average one.

    Attributes:
        means: float32 ``[D]`` of each source.
        scales: a factor of each source.
    """

    means: tuple[np.ndarray, ...]
    scales: tuple[float, ...]

    @classmethod
    def fit(cls, sources: Sequence[Source]) -> Scaling:
        """Learn means and scales.

        Raises:
            InputError: when there is no source, a number is not finite, sources tell of different
                numbers of items, a weight is not positive, or a source knows no item.
        """
        _check(sources)
        means, scales = [], []
        for source in sources:
            known = _known(source.vectors)
            if not known.any():
                raise InputError(f"{source.name}: all vectors are zero, so no item is known.")
            mean = source.vectors[known].mean(axis=0, dtype=np.float64)
            spread = np.mean(np.sum((source.vectors[known] - mean) ** 2, axis=1))
            # Known vectors that are all one are told apart by nothing, at any scale.
            scales.append(source.weight / np.sqrt(spread) if spread > 1e-12 else 1.0)
            means.append(mean.astype(np.float32))
        return cls(tuple(means), tuple(float(scale) for scale in scales))

    def combine(self, sources: Sequence[Source]) -> np.ndarray:
        """Vectors float32 ``[items, sum of D]`` of sources of the same kinds, in the same order.

        Raises:
            InputError: as ``fit``, or when the widths are not those that were learnt. Here a
                source may know none of the items.
        """
        _check(sources)
        widths, learnt = [s.vectors.shape[1] for s in sources], [len(mean) for mean in self.means]
        if widths != learnt:
            raise InputError(f"item vectors: sources of width {widths} given, {learnt} learnt.")
        parts = []
        for source, mean, scale in zip(sources, self.means, self.scales, strict=True):
            moved = (source.vectors - mean) * np.float32(scale)
            moved[~_known(source.vectors)] = 0
            parts.append(moved)
        return np.concatenate(parts, axis=1).astype(np.float32, copy=False)


def _known(vectors: np.ndarray) -> np.ndarray:
    return (vectors != 0).any(axis=1)


def _check(sources: Sequence[Source]) -> None:
    if not sources:
        raise InputError("item vectors: no source given. Give text vectors or those of a run.")
    items = len(sources[0].vectors)
    for name, vectors, weight in sources:
        if vectors.ndim != 2 or not vectors.shape[1]:
            raise InputError(
                f"{name}: item vectors of shape {list(vectors.shape)}, not [items, D]."
            )
        if len(vectors) != items:
            raise InputError(
                f"{name}: vectors of {len(vectors):,} items, where {sources[0].name} has "
                f"{items:,}. Make both from one catalog."
            )
        if not weight > 0:
            raise InputError(f"{name}: weight = {weight} must be above 0.")
        wrong = ~np.isfinite(vectors).all(axis=1)
        if wrong.any():
            raise InputError(
                f"{name}: the vector of item {int(wrong.argmax())} is not finite "
                f"({int(wrong.sum()):,} such). Mend or leave out these items."
            )
