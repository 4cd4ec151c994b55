"""Which rows stay, by hand and as properties."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.filtering import drop_duplicates, k_core, positives


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


@settings(max_examples=80, deadline=None)
@given(frame=LOGS, k=st.integers(1, 4))
def test_a_core_is_a_core_and_nothing_larger_is(frame, k):
    core = k_core(frame, k)
    for column in ("user_id", "item_id"):
        counts = core.group_by(column).len()["len"]
        assert counts.is_empty() or counts.min() >= k
    rows = frame.rows()
    while True:  # The definition, one row at a time.
        users = [row[0] for row in rows]
        items = [row[1] for row in rows]
        kept = [r for r in rows if users.count(r[0]) >= k and items.count(r[1]) >= k]
        if kept == rows:
            break
        rows = kept
    assert core.rows() == rows
