"""A log is numbered the same way however its rows lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.catalog import Catalog
from foretaste.data.dataset import Dataset
from foretaste.errors import InputError

from .logs import dataset, interactions

LOG = [("u2", "b", 5), ("u1", "c", 3), ("u2", "a", 1), ("u1", "b", 9), ("u10", "c", 2)]


def test_known_answer() -> None:
    data = dataset(LOG)
    assert data.users.to_list() == ["u1", "u10", "u2"]
    assert data.catalog.item_ids == ["a", "b", "c"]
    assert [row.tolist() for row in data.sequences] == [[2, 1], [2], [0, 1]]
    assert data.sequences.times is not None
    assert data.sequences.times.tolist() == [3, 9, 2, 1, 5]
    assert data.sequences.items.dtype == np.int32
    assert data.sequences.times.dtype == np.int64
    assert (data.interactions, data.name, data.has_time) == (5, "log", True)
    assert str(data) == "log: 3 users, 3 items, 5 interactions"


@given(st.permutations(LOG))
@settings(max_examples=30, deadline=None)
def test_numbers_do_not_depend_on_the_order_of_rows(rows: list) -> None:
    assert dataset(rows).fingerprint == dataset(LOG).fingerprint


@given(st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 3)),
                min_size=2, max_size=30))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_events_of_equal_time_keep_the_order_of_the_source(rows: list) -> None:
    data = dataset(rows)
    for user, items in zip(data.users, data.sequences, strict=True):
        expected = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        assert [data.catalog.item_ids[item] for item in items] == [row[1] for row in expected]


def test_the_catalog_takes_what_is_known_about_items() -> None:
    log = interactions(LOG)
    known = pl.DataFrame({"item_id": ["z", "b"], "title": ["Zed", "Bee"]})
    described = type(log)(log.frame, known, "log", log.columns)
    assert Dataset.from_interactions(described, name="mine").catalog.titles == ["a", "Bee", "c"]


@pytest.mark.parametrize("rows", [[], LOG[:1]])
def test_too_short_a_log_is_an_input_error(rows: list) -> None:
    with pytest.raises(InputError, match="log: too short to learn from"):
        dataset(rows)


@pytest.mark.parametrize(
    "other",
    [
        LOG[:-1],  # one event less
        [*LOG[:-1], ("u10", "c", 3)],  # another time
        [*LOG[:-1], ("u10", "a", 2)],  # another item
        [*LOG[:-1], ("u11", "c", 2)],  # another user
        [("u" + user, item, time) for user, item, time in LOG],  # ids alone
        [(user, item + item, time) for user, item, time in LOG],
    ],
)
def test_other_content_has_another_fingerprint(other: list) -> None:
    assert dataset(other).fingerprint != dataset(LOG).fingerprint


def test_ids_that_read_alike_when_joined_have_other_fingerprints() -> None:
    left = dataset([("ab", "x", 1), ("c", "y", 2)])
    right = dataset([("a", "x", 1), ("bc", "y", 2)])
    assert left.fingerprint != right.fingerprint


def test_the_fingerprint_is_of_the_content_alone() -> None:
    # A fixed value: runs of different versions and machines must agree on it.
    data = dataset(LOG)
    assert data.fingerprint == "d016a6112e8fc4e8e09738cd10ef7260"
    titled = Catalog.from_items(pl.Series(["a", "b", "c"]),
                                pl.DataFrame({"item_id": ["a"], "title": ["A"]}))  # fmt: skip
    other = Dataset("other name", data.users, titled, data.sequences, notes=("read elsewhere",))
    assert other.fingerprint == data.fingerprint


def test_the_rated_fingerprint_is_of_the_ratings_too() -> None:
    data = dataset(LOG)
    assert data.rated_fingerprint == data.fingerprint
    ratings = np.arange(data.interactions, dtype=np.float32)
    ratings[0] = np.nan
    others = [ratings, ratings + 1, np.nan_to_num(ratings)]
    prints = {replace(data, ratings=values).rated_fingerprint for values in others}
    assert len(prints | {data.fingerprint}) == 4
    assert replace(data, ratings=-ratings * -1).rated_fingerprint in prints  # another NaN


def test_ties_are_stable_in_a_long_log() -> None:
    # Short lists are sorted in a stable way by chance, long ones are not.
    rows = [(f"u{n % 3}", f"i{(n * 7919) % 1009:04d}", n % 2) for n in range(30_000)]
    data = dataset(rows)
    for user, items in zip(data.users, data.sequences, strict=True):
        expected = [item for time in (0, 1) for u, item, t in rows if (u, t) == (user, time)]
        assert data.catalog.frame["item_id"].gather(items.astype(int)).to_list() == expected


def rated(rows: list[tuple[str, str, int, float | None]]) -> Dataset:
    log = interactions([row[:3] for row in rows])
    ratings = pl.Series("rating", [row[3] for row in rows], dtype=pl.Float64)
    return Dataset.from_interactions(replace(log, frame=log.frame.with_columns(ratings)))


RATINGS = [4.0, 2.5, None, 1.0, 5.0]


def test_ratings_stay_beside_their_events() -> None:
    data = rated([(*event, rating) for event, rating in zip(LOG, RATINGS, strict=True)])
    assert data.ratings is not None
    assert data.ratings.dtype == np.float32
    # u1: c at 3, b at 9; u10: c at 2; u2: a at 1, b at 5.
    np.testing.assert_array_equal(data.ratings, [2.5, 1.0, 5.0, np.nan, 4.0])


def test_ratings_do_not_change_the_rest() -> None:
    data = rated([(*event, rating) for event, rating in zip(LOG, RATINGS, strict=True)])
    bare = dataset(LOG)
    assert bare.ratings is None
    assert data.fingerprint == bare.fingerprint
    assert data.sequences.items.tolist() == bare.sequences.items.tolist()


@given(st.permutations(list(zip(LOG, RATINGS, strict=True))))
@settings(max_examples=20, deadline=None)
def test_ratings_do_not_depend_on_the_order_of_rows(rows: list) -> None:
    data = rated([(*event, rating) for event, rating in rows])
    np.testing.assert_array_equal(data.ratings, np.array([2.5, 1.0, 5.0, np.nan, 4.0], np.float32))


def test_ratings_of_a_log_without_any_are_all_missing() -> None:
    data = rated([(*event, None) for event in LOG])
    assert data.ratings is not None
    assert np.isnan(data.ratings).all()
