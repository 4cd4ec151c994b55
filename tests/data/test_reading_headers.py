"""First lines that other programs write, and columns called like something of Polars or of ours."""

from __future__ import annotations

import gzip
import json

import polars as pl
import pytest

from foretaste.data.reading import read_interactions
from foretaste.errors import InputError

ROWS = [("u1", "i1", 1_364_690_142_000), ("u2", "i2", 1_377_745_112_000)]
VALUES = [("u1", "i1", "1364690142"), ("u2", "i2", "1377745112")]
ODD = ["*", "^.*$", "^x$", "__overflow__", "__overflow___", "len()"]


def csv(*header: str, mark: str = ",") -> str:
    return "\n".join(mark.join(row) for row in (header, *VALUES)) + "\n"


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.txt"])
@pytest.mark.parametrize("said", ["sep=;", "SEP=;", '"sep=;"', "\n\nsep=;"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_excel_says_how_its_file_is_delimited(tmp_path, rows, name, said, end):
    text = f"{said}\n" + csv("user", "item, or none", "time", mark=";")
    (tmp_path / name).write_bytes(text.replace("\n", end).encode("utf-8-sig"))
    log = read_interactions(tmp_path / name, item_col="item, or none")
    assert rows(log) == ROWS
    assert log.notes == ()


@pytest.mark.parametrize("mark", [",", "\t", "|"])
def test_the_delimiter_that_is_said_is_taken(tmp_path, rows, mark):
    text = f"sep={mark}\n" + csv("user;1", "item;2", "time;3", mark=mark)
    (tmp_path / "log.csv").write_text(text)
    log = read_interactions(
        tmp_path / "log.csv", user_col="user;1", item_col="item;2", time_col="time;3"
    )
    assert rows(log) == ROWS
    (tmp_path / "none.csv").write_text(f"sep={mark}\n" + csv(*VALUES[0], mark=mark))
    assert "no header" in read_interactions(tmp_path / "none.csv").notes[0]
    (tmp_path / "short.csv").write_text(f"sep={mark}\n" + mark.join(["user", "item", "time"]))
    with pytest.raises(InputError, match="a header and no rows"):
        read_interactions(tmp_path / "short.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("header", "user"),
    [
        (('"user\nid"', "item", "time"), "user id"),
        (("item", "time", '"the\n\nuser ""id"", or customer"'), 'the  user "id", or customer'),
        (('"user\nid"', '"item\nid"', '"time"'), "user id"),
    ],
)
def test_a_header_may_quote_line_ends(tmp_path, rows, header, user, end):
    values = [[row[0], row[1], row[2]] for row in VALUES]
    if header[0] == "item":
        values = [[row[1], row[2], row[0]] for row in VALUES]
    text = "\n".join(",".join(row) for row in (header, *values)) + "\n"
    (tmp_path / "log.csv").write_bytes(text.replace("\n", end).encode())
    log = read_interactions(tmp_path / "log.csv", user_col=user)
    assert rows(log) == ROWS
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert rows(read_interactions(tmp_path / "log.csv.gz", user_col=user)) == ROWS


def test_an_inch_in_a_header_is_no_quote(tmp_path, rows):
    (tmp_path / "log.csv").write_text(csv('user 5"', "item", "time"))
    assert rows(read_interactions(tmp_path / "log.csv", user_col='user 5"')) == ROWS


def test_a_first_row_of_data_may_quote_line_ends(tmp_path):
    text = 'u1,i1,1364690142,"so\nso"\n' + "".join(f"u{n},i1,1364690142,x\n" for n in range(3))
    (tmp_path / "log.csv").write_text(text)
    log = read_interactions(tmp_path / "log.csv")
    assert log.frame["user_id"].to_list() == ["u1", "u0", "u2"]  # u1 met i1 before
    assert "no header" in log.notes[0]


@pytest.mark.parametrize("odd", ODD)
def test_a_column_is_its_name_and_no_pattern(tmp_path, rows, odd):
    """As a column that plays no role, then as that of users: text, JSON, Parquet, frames."""
    frame = pl.DataFrame(VALUES, schema=["user", "item", "time"], orient="row")
    beside = frame.with_columns(pl.Series(odd, ["a", "b"]))
    for table, options in ((beside, {}), (frame.rename({"user": odd}), {"user_col": odd})):
        folder = tmp_path / f"log{len(options)}"
        folder.mkdir()
        for name in ("1.csv", "2.csv"):
            table.write_csv(folder / name)
        table.write_parquet(tmp_path / "log.parquet")
        lines = "\n".join(json.dumps(row) for row in table.to_dicts())
        (tmp_path / "log.jsonl").write_text(lines)
        assert rows(read_interactions(folder / "1.csv", **options)) == ROWS
        assert rows(read_interactions(folder, **options)) == ROWS
        for source in (tmp_path / "log.parquet", tmp_path / "log.jsonl", table):
            assert rows(read_interactions(source, **options)) == ROWS


@pytest.mark.parametrize("name", ["log.csv", "log.inter"])
def test_a_row_too_long_is_seen_beside_any_name(tmp_path, name):
    header, mark = ["user", "item", "__overflow__"], ","
    if name == "log.inter":
        header, mark = [f"{column}:token" for column in header], "\t"
    text = mark.join(header) + "\n" + mark.join("abc") + "\n"
    (tmp_path / name).write_text(text)
    assert read_interactions(tmp_path / name, time_col="", rating_col="").frame.height == 1
    (tmp_path / name).write_text(text + mark.join("abcd") + "\n")
    with pytest.raises(InputError, match="more than 3 fields in 1 row"):
        read_interactions(tmp_path / name, time_col="", rating_col="")
