"""Roles of columns from names, from values, from options."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from foretaste.data.columns import guess_columns, is_rating, is_time, looks_like_data
from foretaste.errors import InputError


def guess(names: str, row: list | None = None, **options):
    columns = names.split(",")
    values = row or ["x"] * len(columns)
    sample = pl.DataFrame({name: [value] for name, value in zip(columns, values, strict=True)})
    found = guess_columns(sample, "log.csv", **options)
    return (found.user, found.item, found.time, found.rating)


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        ("user_id,item_id,rating,timestamp", ("user_id", "item_id", "timestamp", "rating")),
        ("userId,movieId,rating,timestamp", ("userId", "movieId", "timestamp", "rating")),
        ("uid,iid,ts", ("uid", "iid", "ts", None)),
        ("customer_id,article_id,t_dat,price", ("customer_id", "article_id", "t_dat", None)),
        (
            "reviewerID,asin,overall,unixReviewTime,reviewTime",
            ("reviewerID", "asin", "unixReviewTime", "overall"),
        ),
        ("user_id,parent_asin,rating,timestamp", ("user_id", "parent_asin", "timestamp", "rating")),
        ("timestamp,visitorid,event,itemid", ("visitorid", "itemid", "timestamp", None)),
        ("SessionId,ItemId,Time", ("SessionId", "ItemId", "Time", None)),
        ("session_id,user_id,product", ("user_id", "product", None, None)),
        ("User-ID;ISBN;Book-Rating".replace(";", ","), ("User-ID", "ISBN", None, "Book-Rating")),
        ("USER,SKU,STARS,CREATED_AT", ("USER", "SKU", "CREATED_AT", "STARS")),
        ("review_id,user_id,business_id,stars,date", ("user_id", "business_id", "date", "stars")),
        (
            "amazon_customer_id,main_product_id",
            ("amazon_customer_id", "main_product_id", None, None),
        ),
        ("username,song,played_at", ("username", "song", "played_at", None)),
        ("uid,track,score", ("uid", "track", None, "score")),
    ],
)
def test_headers_of_public_logs(header, roles):
    assert guess(header) == roles


def test_the_leftmost_of_equal_names_wins():
    assert guess("userId,user_id,item_id")[0] == "userId"
    assert guess("user_id,userId,item_id")[0] == "user_id"


def test_a_time_without_a_telling_name_is_found_by_its_values():
    assert guess("user,item,x", ["a", "b", datetime(2020, 1, 1)])[2] == "x"
    assert guess("user,item,x", ["a", "b", "2020-01-01T10:00:00Z"])[2] == "x"
    assert guess("user,item,x", ["a", "b", 1_577_836_800])[2] == "x"
    assert guess("user,item,x", ["a", "b", "1577836800000"])[2] == "x"
    assert guess("user,item,x", ["a", "b", 12])[2] is None


def test_a_date_of_the_item_is_not_the_time():
    assert guess("user,item,release_date", ["a", "b", "2020-01-01"])[2] is None


def test_few_small_numbers_under_a_header_are_no_rating_unless_it_says_so():
    assert guess("user,item,quantity", ["a", "b", 3])[3] is None
    assert guess("user,item,helpful_score_raw", ["a", "b", 3])[3] == "helpful_score_raw"


def test_without_a_header_values_and_places_decide():
    sample = pl.DataFrame(
        {
            "column_1": ["196", "186"],
            "column_2": ["242", "302"],
            "column_3": ["3", "4"],
            "column_4": ["881250949", "891717742"],
        }
    )
    found = guess_columns(sample, "u.data", headed=False)
    assert str(found) == (
        "user=column_1 (guessed), item=column_2 (guessed), time=column_4 (guessed), "
        "rating=column_3 (guessed)"
    )
    pairs = guess_columns(sample.select("column_1", "column_2"), "pairs", headed=False)
    assert (pairs.user, pairs.item, pairs.time, pairs.rating) == (
        "column_1",
        "column_2",
        None,
        None,
    )


def test_options_overrule_and_are_not_called_guesses():
    sample = pl.DataFrame({"user": ["a"], "who": ["b"], "item": ["c"], "ts": [1], "rating": [1]})
    found = guess_columns(sample, "x", user_col="who", time_col="", rating_col="")
    assert (found.user, found.item, found.time, found.rating) == ("who", "item", None, None)
    assert found.guessed == ("item",)
    swapped = guess_columns(sample, "x", user_col="item", item_col="user")
    assert (swapped.user, swapped.item) == ("item", "user")


def test_no_user_is_an_error_that_shows_the_columns():
    with pytest.raises(InputError) as caught:
        guess("a,b,c")
    assert str(caught.value) == (
        "log.csv: no column looks like a user id (columns: a, b, c). Name it with --user-col."
    )
    with pytest.raises(InputError, match=r"no column looks like an item id .* --item-col"):
        guess("user,b,c")


def test_a_name_that_is_not_there_suggests_the_nearest():
    with pytest.raises(InputError) as caught:
        guess("user_id,item_id", user_col="userid")
    assert str(caught.value) == (
        'log.csv: no column "userid" (--user-col; columns: user_id, item_id). Did you mean user_id?'
    )


def test_one_column_cannot_play_two_roles():
    with pytest.raises(InputError, match="named for both user and item"):
        guess("user_id,item_id", user_col="user_id", item_col="user_id")


@pytest.mark.parametrize(
    ("first", "following", "data"),
    [
        (["196", "242", "3"], [], True),
        (["user_id", "item_id"], [], False),
        (["A1", "B2", "5.0"], [], True),
        (["alice", "titanic"], [["alice", "alien"]], True),
        (["alice", "titanic"], [["bob", "alien"]], False),
        (["who", "what", "2020-01-01"], [], True),
        (["", "0", "1"], [], False),
        (["", "rawid", "title"], [], False),
    ],
)
def test_a_header_is_told_from_data(first, following, data):
    assert looks_like_data(first, following) is data


def test_values_of_times_and_ratings():
    assert is_time(pl.Series([1_364_817_600, 1_364_817_601]))
    assert not is_time(pl.Series([439_023_483, 1]))
    assert not is_time(pl.Series(["a", None]))
    assert is_rating(pl.Series(["1", "4.5", None]))
    assert is_rating(pl.Series([1, 5, 3]))
    assert not is_rating(pl.Series([1, 500]))
    assert not is_rating(pl.Series(list(range(50))))
    assert not is_rating(pl.Series([None, None], dtype=pl.Float64))
