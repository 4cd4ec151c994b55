"""A log rebuilt from windows on it is the log; what cannot be dated never enters train."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.errors import InputError
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection

ROOT = Path(__file__).parents[2]
DAY = 86_400


def _script() -> ModuleType:
    path = ROOT / "benchmarks" / "amazon18.py"
    spec = importlib.util.spec_from_file_location("amazon18", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["amazon18"] = module
    spec.loader.exec_module(module)
    return module


amazon18 = _script()


def question(items: list[int], place: int, part: str = "train", user: str = "u"):
    """The published row that asks for the event at ``place``."""
    history = tuple(items[max(0, place - 10) : place])
    return amazon18.Question(part, user, history, items[place], place * DAY * 1000)


def office_folder(folder: Path, rows: dict[str, list[tuple[str, list[int], int, int]]]) -> Path:
    """Files in the form of Office: user, history, item, time of every row."""
    header = "uid,iid,his_len,hist_id,rating,label,hist_rating,hist_label,timestamp\n"
    for part, name in amazon18.OFFICE.items():
        lines = [
            f'{user},{item},{len(history)},"{history}",5.0,1,"[5.0]","[1]",{time}\n'
            for user, history, item, time in rows.get(part, [])
        ]
        (folder / name).write_text(header + "".join(lines))
    numbers = range(1, 41)
    items = "".join(f"{n},A{n},Title {n},A{n},{n}\n" for n in numbers)
    (folder / "item.csv").write_text(",rawid,title,mapping_iid,iid\n" + items)
    return folder


def industrial_folder(folder: Path, rows: dict[str, list[tuple[str, list[int], int]]]) -> Path:
    """Files in the form of Industrial: user, history, item of every row, in the order of time."""
    told = {
        str(n): {"title": f"Title {n}", "description": f"['It's {n}', \"Two\"]" if n else "[]"}
        for n in range(30)
    }
    (folder / "index").mkdir()
    (folder / "index" / "Industrial_and_Scientific.item.json").write_text(json.dumps(told))
    for part in ("valid", "test"):
        (folder / part).mkdir()
        lines = "".join(f'{user},{item},"{history}"\n' for user, history, item in rows[part])
        path = folder / part / "Industrial_and_Scientific_5_2016-10-2018-11.csv"
        path.write_text("user_id,item_id,history_item_id\n" + lines)
    return folder


@given(st.lists(st.integers(0, 10_000), min_size=11, max_size=60, unique=True), st.data())
def test_windows_that_touch_give_the_sequence_back(items: list[int], data: st.DataObject) -> None:
    places = [10]
    while places[-1] < len(items) - 1:
        farthest = min(places[-1] + 10, len(items) - 1)
        places.append(data.draw(st.integers(places[-1] + 1, farthest)))
    events = amazon18.merged([question(items, place) for place in places])
    assert [event.item for event in events] == items
    known = {place: event.time for place, event in enumerate(events) if event.time is not None}
    assert known == {place: place * DAY * 1000 for place in places}


@given(st.lists(st.integers(0, 2), min_size=2, max_size=40))
def test_all_questions_of_a_user_give_repeats_back_too(items: list[int]) -> None:
    events = amazon18.merged([question(items, place) for place in range(1, len(items))])
    assert [event.item for event in events] == items


def test_windows_without_a_common_event_stand_one_after_the_other() -> None:
    items = list(range(40))
    events = amazon18.merged([question(items, 10), question(items, 35)])
    assert [event.item for event in events] == [*range(11), *range(25, 36)]


def test_questions_of_one_time_take_the_order_in_which_they_go_on() -> None:
    items = list(range(14))
    rows = [question(items, place)._replace(time=0) for place in (13, 11, 10, 12)]
    events = amazon18.merged(rows)
    assert [event.item for event in events] == items
    assert (np.diff(amazon18.dated(events, 0, None)) > 0).all()


def test_office_has_published_times_and_estimates_between_them(tmp_path: Path) -> None:
    long = list(range(1, 15))
    rows = {
        "train": [("7", long[:10], 11, 100 * DAY), ("7", long[1:11], 12, 110 * DAY)],
        "valid": [("8", list(range(20, 30)), 30, 200 * DAY)],
        "test": [("7", long[3:13], 14, 300 * DAY)],
    }
    rows["train"].append(rows["train"][0])  # a repeated row is one question
    folder = office_folder(tmp_path, rows)
    log = amazon18.rebuild(amazon18.read_source(folder))
    own = log.filter(pl.col("user_id") == "7")
    assert own["item_id"].to_list() == [str(item) for item in long]
    days = (own["timestamp"] / (DAY * 1000)).round().to_list()
    # Before the first known one at the usual gap of ten days; between two known ones evenly.
    assert days == [*range(0, 100, 10), 100, 110, 205, 300]
    assert own["timed"].to_list() == [False] * 10 + [True, True, False, True]


def test_no_answer_of_validation_or_test_is_in_train(tmp_path: Path) -> None:
    long = list(range(1, 15))
    rows = {
        "train": [("7", long[:10], 11, 100 * DAY)],
        "valid": [("8", [*range(1, 10), 39], 40, 200 * DAY), ("7", long[1:11], 12, 210 * DAY)],
        "test": [("7", long[2:12], 13, 300 * DAY)],
    }
    split = amazon18.published_split(office_folder(tmp_path, rows))
    ids = split.catalog.item_ids
    assert ids == [str(item) for item in range(1, 12)]
    assert [[ids[item] for item in row] for row in split.train] == [ids, []]
    # What only later questions hold is in no history, and no answer: 39, 40, 12 and 13.
    assert split.valid.users.tolist() == [1, 0]
    assert split.valid.targets.items.tolist() == [-1, -1]
    assert [len(row) for row in split.valid.histories] == [9, 10]
    assert split.test.users.tolist() == [0]
    assert [ids[item] for item in split.test.histories[0]] == [str(n) for n in range(3, 12)]


def test_industrial_takes_as_train_what_no_later_question_asks(tmp_path: Path) -> None:
    rows = {
        "valid": [("A", [1, 2, 3], 4), ("B", [5], 6), ("A", [1, 2, 3, 4], 2)],
        "test": [("B", [5, 6], 7), ("C", [8, 8, 9], 1)],
    }
    folder = industrial_folder(tmp_path, rows)
    source = amazon18.read_source(folder)
    assert source.items["description"].to_list()[:2] == [None, "It's 1 Two"]
    log = amazon18.rebuild(source)
    by_user = {user: rows["item_id"].to_list() for (user,), rows in log.group_by("user_id")}
    assert by_user == {
        "A": ["1", "2", "3", "4", "2"],
        "B": ["5", "6", "7"],
        "C": ["8", "8", "9", "1"],
    }
    asked = log.filter("timed")["item_id"].to_list()
    assert asked == ["4", "6", "2", "7", "1"]  # the order of the rows is the order of time
    split = amazon18.published_split(folder)
    names = split.catalog.item_ids
    assert [[names[i] for i in row] for row in split.train] == [
        ["1", "2", "3"],
        [],  # nothing dates B's first event
        ["8", "8", "9"],
    ]
    # 4, 6, 2 and 7, 1: only what train knows can be found.
    found = [names[i] if i >= 0 else None for i in split.valid.targets.items]
    assert found == [None, None, "2"]
    assert [names[i] if i >= 0 else None for i in split.test.targets.items] == [None, "1"]


def test_the_written_files_are_read_as_they_are(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "source").mkdir()
    rows = {
        "valid": [("A", [1, 2, 3], 4), ("B", [5], 6), ("A", [1, 2, 3, 4], 2)],
        "test": [("B", [5, 6], 7), ("C", [8, 8, 9], 1)],
    }
    folder = industrial_folder(tmp_path / "source", rows)
    monkeypatch.setattr(sys, "argv", ["amazon18", str(folder), str(tmp_path), "--protocol"])
    amazon18.main()
    assert "3 users, 9 items, 12 events (42% timed)" in capsys.readouterr().out
    section = DataSection(
        source=str(tmp_path / "interactions.parquet"),
        items=str(tmp_path / "items.parquet"),
        duplicates="keep",
    )
    data = load_dataset(section)
    assert data.interactions == 12 and data.has_time
    numbers = data.catalog.numbers(["1", "5"])
    assert [data.catalog.titles[n] for n in numbers] == ["Title 1", "Title 5"]
    assert data.catalog.frame["text"][int(numbers[0])] == "It's 1 Two"
    protocol = pl.read_parquet(tmp_path / "protocol.parquet")
    assert protocol.row(0) == ("valid", "A", ["1", "2", "3"], "4")


def test_another_folder_and_a_broken_row_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither amazon18-office nor amazon18-industrial"):
        amazon18.read_source(tmp_path)
    folder = office_folder(tmp_path, {"train": [("7", [1], 2, 5)]})
    path = folder / "train_10000.csv"
    path.write_text(path.read_text().replace("[1]", "[1", 1))
    with pytest.raises(InputError, match="is not a list of item numbers"):
        amazon18.read_source(folder)
