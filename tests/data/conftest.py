"""What every test of reading checks: the contract of Interactions."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from foretaste.data.interactions import Interactions


def _check_contract(log: Interactions) -> None:
    """What Interactions promises, whatever was read."""
    frame = log.frame
    assert frame.columns[:3] == ["user_id", "item_id", "timestamp"]
    assert frame.dtypes[:3] == [pl.String, pl.String, pl.Int64]
    assert not frame.is_empty()
    assert frame.select("user_id", "item_id", "timestamp").null_count().sum_horizontal().item() == 0
    assert not (frame["user_id"] == "").any() and not (frame["item_id"] == "").any()
    assert "rating" not in frame.columns or frame["rating"].dtype == pl.Float64
    assert log.has_time == (log.columns.time is not None)
    assert all("\n" not in note for note in log.notes)
    if not log.has_time:
        position = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id")
        assert frame.select((pl.col("timestamp") == position).all()).item()
    if log.items is not None:
        assert log.items["item_id"].is_unique().all()
        assert log.items["item_id"].null_count() == 0


@pytest.fixture(scope="session")
def check_contract() -> Callable[[Interactions], None]:
    """Raise unless a log is what Interactions promises."""
    return _check_contract


@pytest.fixture(scope="session")
def rows() -> Callable[[Interactions], list[tuple]]:
    """The rows of a log that keeps the contract."""

    def checked(log: Interactions) -> list[tuple]:
        _check_contract(log)
        return log.frame.rows()

    return checked
