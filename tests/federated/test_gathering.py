"""The log of a device is read as the server's recipe says."""

from __future__ import annotations

import pytest

from foretaste.errors import InputError
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.randomness import user_keys
from foretaste.federated.gathering import read_users

from .rings import catalog

RATED = "who,sku,when,stars,age\na,i003,1,5,31\na,i004,2,2,31\na,i005,3,4,31\nb,i001,1,5,44\n"


def test_columns_and_ratings_are_those_of_the_recipe(tmp_path):
    log = tmp_path / "my.csv"
    log.write_text(RATED)
    section = DataSection(
        source="/server/log.csv",
        user_col="who",
        item_col="sku",
        time_col="when",
        rating_col="stars",
        min_rating=4,
        k_core=20,  # of the server's log: this device alone could not have it
        items="/server/titles.csv",
    )
    users = read_users(log, catalog(), section)
    assert users.keys.tolist() == user_keys(["a", "b"]).tolist()
    assert [history.tolist() for history in users.histories] == [[3, 5], [1]]
    assert users.unknown == 0


def test_duplicates_are_dealt_with_as_in_the_recipe(tmp_path):
    log = tmp_path / "my.csv"
    log.write_text("user,item,time\na,i003,1\na,i004,2\na,i003,3\n")
    kept = [
        read_users(log, catalog(), DataSection(duplicates=how)).histories.items.tolist()
        for how in ("first", "last", "keep")
    ]
    assert kept == [[3, 4], [4, 3], [3, 4, 3]]


def test_a_log_that_is_not_so_says_where_it_is_told(tmp_path):
    log = tmp_path / "my.csv"
    log.write_text("user,item,time\na,i003,1\n")
    with pytest.raises(InputError, match=r'no column "who".*\[data\] of the plan\'s recipe.toml'):
        read_users(log, catalog(), DataSection(user_col="who"))
    with pytest.raises(InputError, match=r"rating.*\[data\] of the plan\'s recipe.toml"):
        read_users(log, catalog(), DataSection(min_rating=4))
