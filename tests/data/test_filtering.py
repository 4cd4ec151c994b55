"""Which rows stay, by hand and as properties."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.data import filtering
from foretaste.data.filtering import drop_duplicates, k_core, positives

ONE_PATCH = [HealthCheck.function_scoped_fixture]  # the same for all examples


def log(*rows: tuple) -> pl.DataFrame:
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


LOGS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz"), st.integers(0, 4)), max_size=25
).map(lambda rows: log(*rows))


def test_positives_keep_the_threshold_itself():
    frame = pl.DataFrame({"rating": [3.5, 4.0, 5.0, None]})
    assert positives(frame, 4)["rating"].to_list() == [4.0, 5.0]


def test_first_is_by_time_and_the_order_of_the_rows_stays():
    frame = log(("a", "x", 9), ("a", "y", 5), ("a", "x", 3), ("b", "x", 1))
    assert drop_duplicates(frame).rows() == [("a", "y", 5), ("a", "x", 3), ("b", "x", 1)]
    assert drop_duplicates(frame, "last").rows() == [("a", "x", 9), ("a", "y", 5), ("b", "x", 1)]
    assert drop_duplicates(frame, "keep").rows() == frame.rows()


def test_keep_drops_only_what_is_equal_in_all_three():
    frame = log(("a", "x", 9), ("a", "x", 9), ("a", "x", 8))
    assert drop_duplicates(frame, "keep").rows() == [("a", "x", 9), ("a", "x", 8)]


def test_among_equal_times_the_order_of_the_rows_decides():
    frame = log(("a", "x", 9), ("a", "x", 9)).with_columns(rating=pl.Series([1.0, 2.0]))
    assert drop_duplicates(frame, "first")["rating"].to_list() == [1.0]
    assert drop_duplicates(frame, "last")["rating"].to_list() == [2.0]


def test_a_core_needs_more_than_one_round():
    # Without c, item z has one event left; without z, user b has one.
    frame = log(
        ("a", "x", 1), ("a", "y", 2), ("d", "x", 3), ("d", "y", 4),
        ("b", "x", 5), ("b", "z", 6), ("c", "z", 7),
    )  # fmt: skip
    assert k_core(frame, 2).rows() == frame.rows()[:4]
    assert k_core(frame, 3).is_empty()
    assert k_core(frame, 1).rows() == frame.rows()


def test_categorical_ids_give_the_same_answer():
    frame = log(("a", "x", 9), ("a", "x", 3), ("b", "x", 1))
    numbered = frame.with_columns(pl.col("user_id", "item_id").cast(pl.Categorical))
    assert drop_duplicates(numbered).rows() == drop_duplicates(frame).rows()
    assert k_core(numbered, 2).rows() == k_core(frame, 2).rows()


@pytest.mark.parametrize("keep", ["first", "last"])
@settings(max_examples=80, deadline=None)
@given(frame=LOGS)
def test_one_row_per_pair_with_the_right_time(keep, frame):
    answer = drop_duplicates(frame, keep)
    pick = pl.col("timestamp").min() if keep == "first" else pl.col("timestamp").max()
    expected = frame.group_by("user_id", "item_id").agg(pick)
    assert sorted(answer.rows()) == sorted(expected.rows())


def assert_core(frame: pl.DataFrame, k: int) -> None:
    """The definition: rounds over all rows until one takes nothing out."""
    core = k_core(frame, k)
    for column in ("user_id", "item_id"):
        assert (core.group_by(column).len()["len"] >= k).all()
    rows, before = frame, -1
    while rows.height != before:
        before = rows.height
        rows = rows.filter(pl.len().over("user_id") >= k, pl.len().over("item_id") >= k)
    assert core.equals(rows)


@pytest.mark.parametrize("rounds", [0, 1, 16])
@settings(max_examples=80, deadline=None, suppress_health_check=ONE_PATCH)
@given(frame=LOGS, k=st.integers(1, 4))
def test_a_core_is_a_core_and_nothing_larger_is(rounds, frame, k, monkeypatch):
    monkeypatch.setattr(filtering, "_ROUNDS", rounds)
    assert_core(frame, k)


@pytest.mark.parametrize("rounds", [0, 2, 16])
@settings(max_examples=40, deadline=None, suppress_health_check=ONE_PATCH)
@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 60),
    items=st.integers(1, 60),
    events=st.integers(0, 400),
    chain=st.integers(0, 120),
    k=st.integers(1, 6),
)
def test_a_core_of_any_log(rounds, seed, users, items, events, chain, k, monkeypatch):
    monkeypatch.setattr(filtering, "_ROUNDS", rounds)
    rng = np.random.default_rng(seed)
    rows = list(
        zip(rng.integers(users, size=events), rng.integers(items, size=events), strict=True)
    )
    links = [(n // 2, (n + 1) // 2) for n in range(chain)]  # it may hang on the rest
    rows = [rows + links, [*links, *rows]][seed % 2]
    assert_core(log(*((f"u{user}", f"i{item}", 0) for user, item in rows)), k)


def test_a_long_chain_takes_no_quadratic_time():
    # Every user and every item has two events, but for the ends: each round takes one off.
    length = 40_000
    frame = log(*((f"u{n // 2}", f"i{(n + 1) // 2}", 0) for n in range(length)))
    started = time.perf_counter()
    assert k_core(frame, 2).is_empty()
    assert time.perf_counter() - started < 10  # rounds over all rows: half a minute
