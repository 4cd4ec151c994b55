"""Views kept by content, tables of them, and going on after a stop."""

from __future__ import annotations

import sqlite3

import numpy as np
import polars as pl
import pytest

from foretaste.errors import InputError
from foretaste.language.views.chat import ChatConfig, ChatViews
from foretaste.language.views.drawn import RandomConfig, RandomViews
from foretaste.language.views.making import ViewBook, maker_for
from foretaste.language.views.store import (
    ViewStore,
    key_of,
    print_of,
    read_table,
    write_table,
)
from foretaste.language.views.table import TableConfig, TableViews, shuffled
from foretaste.language.views.views import View

from .scripted import Scripted, catalog, request


def view(*items: int) -> View:
    row = np.array(items, np.int32)
    return View(row, row[::-1].copy(), row[:1].copy())


def book(model: Scripted, path=None, **config) -> ViewBook:
    maker = ChatViews(ChatConfig.model_validate(config), model, catalog())
    return ViewBook(maker, catalog(), ViewStore(path))


def test_a_history_is_asked_for_once(tmp_path):
    model = Scripted(lambda _: "1. Amelie\n2. Nothing Known")
    path = tmp_path / "deep" / "views.sqlite"
    first = book(model, path).views(request([0, 1], [2], [0, 1]))
    assert sum(map(len, model.asked)) == 2 * 3
    again = book(model, path).views(request([0, 1], [2], [0, 1], seed=99))
    assert sum(map(len, model.asked)) == 2 * 3
    for one, other in zip(first.rows, again.rows, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
    assert (first.asked, first.unmatched) == (again.asked, again.unmatched) == (12, 6)
    book(model, path).views(request([0, 1, 2]))
    assert sum(map(len, model.asked)) == 3 * 3


def test_other_settings_or_another_catalog_are_asked_anew(tmp_path):
    model = Scripted(lambda _: "1. Amelie")
    path = tmp_path / "views.sqlite"
    book(model, path).views(request([0]))
    book(model, path, newest=3).views(request([0]))
    other = catalog(["Amelie", "Other", "Third"])
    maker = ChatViews(ChatConfig(), model, other)
    (row,) = ViewBook(maker, other, ViewStore(path)).views(request([1])).rows
    assert row.future.tolist() == [1, 0]
    assert sum(map(len, model.asked)) == 9


def test_what_was_made_before_a_stop_is_kept(tmp_path):
    class Stopped(Exception):
        pass

    def until(prompt: str) -> str:
        if len(model.asked) > 3:
            raise Stopped
        return "1. Amelie"

    model = Scripted(until, batch=4)
    histories = [[number] for number in range(8)]
    path = tmp_path / "views.sqlite"
    with pytest.raises(Stopped):
        book(model, path).views(request(*histories))
    again = Scripted(lambda _: "1. Amelie")
    views = book(again, path).views(request(*histories))
    assert sum(map(len, again.asked)) == 3 * 4
    assert [row.future.tolist() for row in views.rows] == [[n, 9] for n in range(8)]


def test_views_of_chance_are_not_kept():
    maker = RandomViews(RandomConfig(), 10)
    kept = ViewBook(maker, catalog())
    one = kept.views(request([0, 1])).rows[0]
    other = kept.views(request([0, 1], seed=77)).rows[0]
    assert not np.array_equal(one.counterfactual, other.counterfactual)


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("future", b"abc"),
        ("future", np.array([10], "<i4").tobytes()),
        ("counterfactual", np.array([0, -1], "<i4").tobytes()),
        ("rephrasing", None),
        ("rephrasing", "text"),
        ("asked", "many"),
        ("unmatched", -1),
    ],
)
def test_damaged_views_are_made_anew(tmp_path, column, content):
    model, path = Scripted(lambda _: "1. Amelie"), tmp_path / "views.sqlite"
    first = book(model, path).views(request([0], [1]))
    with sqlite3.connect(path) as database:
        chosen = "WHERE key = (SELECT key FROM views LIMIT 1)"
        database.execute(f"UPDATE views SET {column} = ? {chosen}", (content,))
    database.close()
    for asked in (3 * 3, 3 * 3):  # once more, and it is mended
        again = book(model, path).views(request([0], [1]))
        assert sum(map(len, model.asked)) == asked
        for one, other in zip(first.rows, again.rows, strict=True):
            for left, right in zip(one, other, strict=True):
                np.testing.assert_array_equal(left, right)


def test_a_file_that_is_no_store_is_told(tmp_path):
    path = tmp_path / "views.sqlite"
    path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(InputError, match="damaged or not a store of views"):
        ViewStore(path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot make the folder"):
        ViewStore(tmp_path / "file" / "views.sqlite")


def test_a_table_gives_back_what_was_written(tmp_path):
    items, path = catalog(), tmp_path / "views.parquet"
    printed = print_of(items)
    histories = [np.array([0, 1]), np.array([2]), np.array([3, 4, 5])]
    views = {
        key_of(history, printed): view(1, 2, number) for number, history in enumerate(histories)
    }
    write_table(path, items, views)
    maker = maker_for(TableConfig(path=path), items)
    found = maker.make(request([0, 1], [9], [3, 4, 5])).rows
    assert [row.future.tolist() for row in found] == [[1, 2, 0], [], [1, 2, 2]]
    assert found[0].rephrasing.tolist() == [0, 2, 1]


def test_shuffled_views_are_of_others():
    views = {bytes([number]): view(number, number + 1) for number in range(20)}
    found = shuffled(views)
    assert found.keys() == views.keys()
    for key, one in found.items():
        assert one.future[0] != key[0]
        assert one.future[0] == one.rephrasing[1]
        assert one.counterfactual[0] == key[0]
    assert sorted(one.future[0] for one in found.values()) == list(range(20))


def test_tables_that_do_not_fit_are_told(tmp_path):
    items, path = catalog(), tmp_path / "views.parquet"
    with pytest.raises(InputError, match="no table of views"):
        TableViews(TableConfig(path=path), items)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no table of views"):
        TableViews(TableConfig(path=path), items)
    write_table(path, items, {key_of(np.array([0]), print_of(items)): view(1)})
    with pytest.raises(InputError, match="another catalog"):
        read_table(path, catalog(["One", "Two"]))
    write_table(path, items, {b"key": view(10)})
    with pytest.raises(InputError, match="does not have"):
        read_table(path, items)
    frame = pl.read_parquet(path).with_columns(future=pl.lit("text"))
    frame.write_parquet(path)
    with pytest.raises(InputError, match="other types"):
        read_table(path, items)
