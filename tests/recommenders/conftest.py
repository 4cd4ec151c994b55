"""Small logs whose right answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest

from foretaste.data.dataset import Dataset
from foretaste.data.interactions import ColumnGuess, Interactions
from foretaste.data.split import Split, SplitKind, split

BEGIN, HOUR = 1_600_000_000_000, 3_600_000

MakeSplit = Callable[..., Split]


@pytest.fixture(scope="session")
def split_of() -> MakeSplit:
    """Leave-last-out split of one list of item numbers per user, an event an hour."""

    def make(rows: Sequence[Sequence[int]], kind: SplitKind = "leave-last-out", **options) -> Split:
        frame = pl.DataFrame(
            {
                "user_id": [f"u{user:04}" for user, row in enumerate(rows) for _ in row],
                "item_id": [f"i{item:04}" for row in rows for item in row],
                "timestamp": [BEGIN + HOUR * place for row in rows for place in range(len(row))],
            }
        )
        log = Interactions(frame, None, "test log", ColumnGuess("user_id", "item_id", "t", None))
        return split(Dataset.from_interactions(log), kind, **options)

    return make


@pytest.fixture(scope="session")
def ordinary(split_of: MakeSplit) -> Split:
    """80 users and 30 items, some much more popular than others."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 31)
    rows = [
        rng.choice(30, rng.integers(4, 14), replace=False, p=share / share.sum()).tolist()
        for _ in range(80)
    ]
    return split_of(rows)


@pytest.fixture(scope="session")
def cyclic(split_of: MakeSplit) -> Split:
    """Item i is followed by item i + 1, the last of 12 by the first."""
    rng = np.random.default_rng(1)
    starts, lengths = rng.integers(0, 12, 200), rng.integers(5, 10, 200)
    return split_of(
        [((np.arange(n) + s) % 12).tolist() for s, n in zip(starts, lengths, strict=True)]
    )


@pytest.fixture(scope="session")
def checkerboard(split_of: MakeSplit) -> Split:
    """Users of even number choose among items 0 to 9, the others among items 10 to 19."""
    rng = np.random.default_rng(2)
    return split_of(
        [(rng.choice(10, 6, replace=False) + 10 * (user % 2)).tolist() for user in range(300)]
    )
