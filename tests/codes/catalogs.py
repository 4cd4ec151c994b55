"""Catalogs that tests of codes share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


def random_table(items: int, sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Distinct random codes int32 ``[items, L]``; many share prefixes when sizes are small."""
    rng = np.random.default_rng(seed)
    total = int(np.prod(sizes))
    keys = rng.choice(total, items, replace=False)
    return np.stack(np.unravel_index(keys, sizes), 1).astype(np.int32)


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """Codes of 1 to 30 items on 1 to 4 levels."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    total = int(np.prod(sizes))
    keys = draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=30, unique=True))
    return np.stack(np.unravel_index(np.array(keys), sizes), 1).astype(np.int32)


@st.composite
def path_lists(draw: st.DrawFn) -> list[list[int]]:
    """Distinct paths of 0 to 5 tokens, many the beginning of others."""
    path = st.lists(st.integers(0, 3), max_size=5).map(tuple)
    return [list(p) for p in draw(st.lists(path, min_size=1, max_size=25, unique=True))]


def clusters(items: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """Vectors float32 ``[items, width]`` around ``count`` far-apart centres, in turn."""
    rng = np.random.default_rng(seed)
    centres = 10 * rng.standard_normal((count, width))
    own = centres[np.arange(items) % count]
    return (own + 0.1 * rng.standard_normal((items, width))).astype(np.float32)
