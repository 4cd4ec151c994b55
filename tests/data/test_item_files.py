"""Titles, categories and text from a file beside the log or named by an option."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from foretaste.data.reading import read_interactions
from foretaste.errors import InputError

CSV = """user_id,item_id,rating,timestamp
u1,0104257,8,1364690142
u2,0903624,9,1377745112
u1,0903624,2,1377745113
"""


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_items_named_by_an_option(tmp_path, kind, check_contract):
    frame = pl.DataFrame(
        {
            "asin": ["007", "8"],
            "title": ["Bond", None],
            "genres": ["Spy, Film", ""],
            "description": ["d", "e"],
        }
    )
    path = tmp_path / f"items.{kind}"
    if kind in ("csv", "tsv"):
        frame.write_csv(path, separator="," if kind == "csv" else "\t")
    elif kind == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.with_columns(pl.col("genres").str.split(", ")).write_parquet(path)
    log = read_interactions(pl.DataFrame({"user": ["a"], "item": ["007"]}), items=path)
    assert log.items is not None
    check_contract(log)
    assert log.items.columns == ["item_id", "title", "categories", "text"]
    assert log.items.row(0) == ("007", "Bond", ["Spy", "Film"], "d")
    assert log.items["title"].to_list() == ["Bond", None]


def test_a_broken_item_file_stops_only_whom_it_was_asked_for(tmp_path):
    write(tmp_path / "ratings.csv", CSV)
    write(tmp_path / "movies.csv", "")
    log = read_interactions(tmp_path)
    assert log.items is None
    assert log.notes == ("items not read: movies.csv: the file is empty. Is it the right file?",)
    with pytest.raises(InputError, match="empty"):
        read_interactions(tmp_path / "ratings.csv", items=tmp_path / "movies.csv")


def test_ids_that_pandas_made_floats_are_whole_again(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id,timestamp\nu1,1,1\nu2,2,2\nu1,2,3\n")
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": [1.0, 2.0, None], "title": ["A", "B", "C"]}).write_parquet(path)
    items = read_interactions(log, items=path).items
    assert items is not None
    assert dict(items.select("item_id", "title").iter_rows()) == {"1": "A", "2": "B"}


def test_ids_beyond_whole_numbers_stay_numbers(tmp_path, check_contract):
    ids = [1e30, 2e30, 1.0]
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ids, "title": ["A", "B", "C"]}).write_parquet(path)
    log = read_interactions(pl.DataFrame({"user": ids, "item": ids}), items=path)
    check_contract(log)
    assert log.frame["user_id"].n_unique() == 3
    assert log.items is not None
    assert log.items["item_id"].to_list() == log.frame["item_id"].to_list()


def test_a_title_is_never_cut_at_a_delimiter_that_nobody_quoted(tmp_path):
    """Else what is left of it would become the category."""
    write(tmp_path / "ratings.csv", "user,item\na,1\nb,2\n")
    path = write(tmp_path / "movies.csv", "item_id,title\n1,Heat\n2,The Good, the Bad\n")
    with pytest.raises(InputError, match=r"movies.csv: more than 2 fields in 1 row \(.*row 2\)"):
        read_interactions(tmp_path / "ratings.csv", items=path)
    (note,) = read_interactions(tmp_path / "ratings.csv").notes
    assert note.startswith("items not read: movies.csv: more than 2 fields")


def test_a_file_about_other_items_is_told(tmp_path):
    log = write(tmp_path / "log.csv", CSV)
    other = write(tmp_path / "items.csv", "item_id,title\nx1,A\nx2,B\n")
    with pytest.raises(InputError, match="none of its items is in the log"):
        read_interactions(log, items=other)


def test_how_many_items_of_the_log_a_file_tells_of_is_noted(tmp_path):
    log = write(tmp_path / "log.csv", CSV)
    part = write(tmp_path / "items.csv", "item_id,title\n0104257,A\n")
    assert any(
        "tells of 1 of the log's 2 items" in note
        for note in read_interactions(log, items=part).notes
    )


def test_a_column_is_read_by_its_exact_name(tmp_path):
    """Polars takes ``^...$`` for a pattern of several columns."""
    log = write(tmp_path / "log.csv", CSV)
    path = write(tmp_path / "items.csv", "item_id,^title$,titles\n0104257,A,x\n0903624,B,y\n")
    items = read_interactions(log, items=path).items
    assert items is not None
    assert items["title"].to_list() == ["A", "B"]


def test_lists_that_are_written_out_stand_beside_words(tmp_path):
    rows = ["1\tAction|Drama", "2\t[none]", "3\t['Sci-Fi', \"Children's\"]", "4\t[]", "5\t"]
    path = write(tmp_path / "items.tsv", "\n".join(["item_id\tgenres", *rows]))
    log = read_interactions(pl.DataFrame({"user": ["a"], "item": ["1"]}), items=path)
    assert log.items is not None
    expected = [["Action", "Drama"], ["[none]"], ["Sci-Fi", "Children's"], [], None]
    assert log.items["categories"].to_list() == expected
