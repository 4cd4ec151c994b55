"""The log of a device is read as the server's recipe says."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.messages import PROTOCOL, Order
from foretaste.federated.core.node import USERS, Node
from foretaste.federated.core.randomness import user_keys
from foretaste.federated.gathering import read_users

from .rings import catalog, method_of

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


@pytest.mark.parametrize(
    "text", ["", "user,item,time\n", "user,item,time\na,i003,1\n", "user,item,time\na,x,1\na,y,2\n"]
)
def test_a_device_with_too_little_answers_of_nobody(tmp_path, text):
    log = tmp_path / "my.csv"
    log.write_text(text)
    method = method_of()
    node = Node(method, read_users(log, catalog(), DataSection()), "this device", tmp_path)
    order = Order("train", 1, PROTOCOL, 1.0, method.to_send(method.start(), 1))
    reply = node.answer(order)
    assert int(reply.arrays[USERS]) == 0
    assert not any(np.any(reply.arrays[one.name]) for one in method.up())


def test_a_device_whose_ratings_are_too_low_is_one_of_nobody(tmp_path):
    log = tmp_path / "my.csv"
    log.write_text("user,item,time,rating\na,i003,1,2\na,i004,2,1\n")
    assert not len(read_users(log, catalog(), DataSection(min_rating=4)))


def test_a_log_that_is_not_so_says_where_it_is_told(tmp_path):
    log = tmp_path / "my.csv"
    log.write_text("user,item,time\na,i003,1\n")
    with pytest.raises(InputError, match=r'no column "who".*\[data\] of the plan\'s recipe.toml'):
        read_users(log, catalog(), DataSection(user_col="who"))
    with pytest.raises(InputError, match=r"rating.*\[data\] of the plan\'s recipe.toml"):
        read_users(log, catalog(), DataSection(min_rating=4))
