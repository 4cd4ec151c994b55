"""Every format with its known answer, options, notes, and the way there and back."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.data.reading import read_interactions
from foretaste.errors import InputError

ROWS = [
    ("u1", "0104257", 1_364_690_142_000, 8.0),
    ("u2", "0903624", 1_377_745_112_000, 9.0),
    ("u1", "0903624", 1_377_745_113_000, 2.0),
]
CSV = """user_id,item_id,rating,timestamp
u1,0104257,8,1364690142
u2,0903624,9,1377745112
u1,0903624,2,1377745113
"""


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# Formats.


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("name", ["log.csv", "log.txt", "log"])
def test_delimited_text_whatever_the_delimiter(tmp_path, delimiter, name, rows):
    log = read_interactions(write(tmp_path / name, CSV.replace(",", delimiter)))
    assert rows(log) == ROWS
    assert log.columns.guessed == ("user", "item", "time", "rating")
    assert log.notes == ()


def test_tsv(tmp_path, rows):
    assert rows(read_interactions(write(tmp_path / "log.tsv", CSV.replace(",", "\t")))) == ROWS


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_line_ends_of_other_systems(tmp_path, ending, rows):
    assert rows(read_interactions(write(tmp_path / "l.csv", CSV.replace("\n", ending)))) == ROWS


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv"])
def test_gzip_is_known_by_its_content(tmp_path, name, rows):
    (tmp_path / name).write_bytes(gzip.compress(CSV.encode()))
    assert rows(read_interactions(tmp_path / name)) == ROWS


def test_quoted_fields_and_blanks_around_ids(tmp_path, rows):
    text = 'user_id,item_id,title\n"u,1", 007 ,"a ""b"", c"\nu2,"0\n8",x\n'
    log = read_interactions(write(tmp_path / "log.csv", text))
    assert rows(log) == [("u,1", "007", 0), ("u2", "0\n8", 0)]


def test_csv_without_a_header_says_so(tmp_path, rows):
    log = read_interactions(write(tmp_path / "log.csv", "1,0010,3,881250949\n2,20,5,891717742\n"))
    assert rows(log) == [("1", "0010", 881_250_949_000, 3.0), ("2", "20", 891_717_742_000, 5.0)]
    assert log.notes == ('no header: the first row is data ("1,0010,3,881250949")',)


def test_an_option_that_names_a_cell_makes_the_first_row_a_header(tmp_path, rows):
    path = write(tmp_path / "log.csv", "2019,b\nx,y\nx,z\n")
    assert rows(read_interactions(path, user_col="2019", item_col="b"))[0] == ("x", "y", 0)


def test_blank_lines_are_counted(tmp_path, rows):
    log = read_interactions(write(tmp_path / "log.csv", "\nuser,item\n\na,x\r\n\r\nb,y\n\n"))
    assert rows(log) == [("a", "x", 0), ("b", "y", 0)]
    assert any("blank row" in note for note in log.notes)


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "log.jsonl.gz"])
def test_json_lines(tmp_path, name, rows):
    text = (
        '{"userId": "u1", "itemId": "0104257", "rating": 8, "ts": 1364690142, "x": {"y": [1]}}\n'
        "\n"
        '{"itemId": "0903624", "userId": "u2", "rating": 9.0, "ts": 1377745112}\n'
        '{"userId": "u1", "itemId": "0903624", "rating": 2, "ts": 1377745113}\n'
    )
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (tmp_path / name).write_bytes(data)
    assert rows(read_interactions(tmp_path / name)) == ROWS


def test_numbers_of_any_size_in_json_stay_exact(tmp_path, rows):
    path = write(tmp_path / "log.jsonl", '{"user": 9007199254740993, "item": "a"}\n')
    assert rows(read_interactions(path)) == [("9007199254740993", "a", 0)]


def test_parquet_file_folder_and_glob(tmp_path, rows):
    frame = pl.read_csv(CSV.encode(), schema_overrides={"item_id": pl.String})
    frame[:2].write_parquet(tmp_path / "part-0.parquet")
    frame[2:].write_parquet(tmp_path / "part-1.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert rows(read_interactions(tmp_path / "part-0.parquet")) == ROWS[:2]
    assert rows(read_interactions(tmp_path)) == ROWS
    assert rows(read_interactions(str(tmp_path / "part-*.parquet"))) == ROWS
    assert rows(read_interactions(tmp_path / "part-[1].parquet")) == ROWS[2:]


def test_parquet_in_folders_of_partitions(tmp_path, rows):
    for day, row in enumerate(ROWS):
        (tmp_path / f"day={day}").mkdir()
        frame = pl.DataFrame(
            [row], schema=["user_id", "item_id", "timestamp", "rating"], orient="row"
        )
        frame.write_parquet(tmp_path / f"day={day}" / "part-0.parquet")
    assert rows(read_interactions(tmp_path)) == ROWS


def test_a_folder_of_csv_files_is_read_in_the_order_of_names(tmp_path, rows):
    header, *lines = CSV.splitlines(keepends=True)
    write(tmp_path / "b.csv", header + lines[2])
    write(tmp_path / "a.csv", header + lines[0] + lines[1])
    log = read_interactions(tmp_path)
    assert rows(log) == ROWS
    assert log.notes == ("2 files",)


def test_a_file_name_with_wildcards_is_a_file_name(tmp_path, rows):
    for name in ("log[1].csv", "log[1].jsonl", "log[1].txt"):
        text = '{"user": "1", "item": "2"}\n' if name.endswith("l") else "1 2\n3 4\n"
        text = "user,item\n1,2\n" if name.endswith("csv") else text
        assert rows(read_interactions(write(tmp_path / name, text)))[0] == ("1", "2", 0)


def test_movielens_dat_with_its_titles(tmp_path, rows):
    text = "u1::0104257::8::1364690142\nu2::0903624::9::1377745112\nu1::0903624::2::1377745113\n"
    write(tmp_path / "ratings.dat", text)
    movies = "0104257::A Few :: Good Men (1992)::Crime|Drama\n0903624::Amélie (2001)::\n"
    write(tmp_path / "movies.dat", movies, "latin-1")
    for source in (tmp_path / "ratings.dat", tmp_path):
        log = read_interactions(source)
        assert rows(log) == ROWS
        assert log.items is not None
        assert log.items.rows() == [
            ("0104257", "A Few :: Good Men (1992)", ["Crime", "Drama"]),
            ("0903624", "Amélie (2001)", []),
        ]
        assert "movies.dat: text is not UTF-8" in log.notes[0]


def test_movielens_100k(tmp_path, rows):
    write(tmp_path / "u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    flags = ["0"] * 19
    flags[1] = flags[5] = "1"
    line = "|".join(["242", "Kolya, Ça (1996)", "24-Jan-1997", "", "http://x", *flags])
    write(tmp_path / "u.item", line + "\n", "latin-1")
    log = read_interactions(tmp_path)
    assert rows(log)[0] == ("196", "242", 881_250_949_000, 3.0)
    assert log.items is not None
    assert log.items.rows() == [("242", "Kolya, Ça (1996)", ["Action", "Comedy"])]


def test_movielens_csv_with_its_titles(tmp_path, rows):
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n")
    movies = (
        'movieId,title,genres\n31,"Dangerous, Minds (1995)",Drama|War\n32,X,(no genres listed)\n'
    )
    write(tmp_path / "movies.csv", movies)
    log = read_interactions(tmp_path)
    assert rows(log) == [("1", "31", 1_260_759_144_000, 2.5)]
    assert log.items is not None
    assert log.items.rows() == [
        ("31", "Dangerous, Minds (1995)", ["Drama", "War"]),
        ("32", "X", []),
    ]


def test_recbole_atomic_files(tmp_path, rows):
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    inter += "u1\t0104257\t8\t1364690142\nu2\t0903624\t9\t1377745112\nu1\t0903624\t2\t1377745113\n"
    write(tmp_path / "ml.inter", inter)
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    item += '0104257\tA "Few" Good Men\t1992\tCrime Drama\n'
    write(tmp_path / "ml.item", item)
    write(tmp_path / "ml.user", "user_id:token\tage:token\nu1\t7\n")
    for source in (tmp_path / "ml.inter", tmp_path):
        log = read_interactions(source)
        assert rows(log) == ROWS
        assert log.items is not None
        assert log.items.rows() == [("0104257", 'A "Few" Good Men', ["Crime", "Drama"])]


def test_one_user_per_line(tmp_path, rows):
    log = read_interactions(write(tmp_path / "Beauty.txt", "1 10 011  12\n\n2 10\t13\n3\n"))
    assert rows(log) == [
        ("1", "10", 0),
        ("1", "011", 1),
        ("1", "12", 2),
        ("2", "10", 0),
        ("2", "13", 1),
    ]
    assert not log.has_time
    assert str(log.columns) == "user=user_id, item=item_id, time=order of the rows"


def test_lines_of_items_only_take_the_line_as_user(tmp_path, rows):
    path = write(tmp_path / "input.txt", "10 11 12\n10 13\n11 14 15 16\n")
    log = read_interactions(path)
    assert rows(log)[2:4] == [("1", "12", 2), ("2", "10", 0)]
    assert "number of the line" in log.notes[0]
    assert rows(read_interactions(path, format="sequences"))[:2] == [
        ("10", "11", 0),
        ("10", "12", 1),
    ]


def test_blank_separated_pairs_are_rows(tmp_path, rows):
    log = read_interactions(write(tmp_path / "ml-1m.txt", "1 10\n1 11\n2 10\n"))
    assert rows(log) == [("1", "10", 0), ("1", "11", 1), ("2", "10", 0)]


def test_polars_frames(rows):
    frame = pl.read_csv(CSV.encode(), schema_overrides={"item_id": pl.String})
    assert rows(read_interactions(frame)) == ROWS
    assert rows(read_interactions(frame.lazy())) == ROWS
    assert read_interactions(frame).source == "frame"


def test_pandas_frames_and_ids_that_became_floats(rows):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "user_id": [1.0, 2.0],
            "item_id": ["0104257", "x"],
            "time": pd.to_datetime(["2013-04-01", "2013-04-02"]),
            "rating": [8.0, float("nan")],
        }
    )
    log = read_interactions(frame)
    assert rows(log) == [
        ("1", "0104257", 1_364_774_400_000, 8.0),
        ("2", "x", 1_364_860_800_000, None),
    ]
    assert log.notes == ("no rating in 1 row",)


def test_arrow_tables(rows):
    pa = pytest.importorskip("pyarrow")
    table = pl.read_csv(CSV.encode(), schema_overrides={"item_id": pl.String}).to_arrow()
    assert rows(read_interactions(table)) == ROWS
    assert (
        rows(read_interactions(pa.RecordBatchReader.from_batches(table.schema, table.to_batches())))
        == ROWS
    )


# Options and notes.


def test_every_filter_says_what_it_left_out(rows):
    frame = pl.DataFrame(
        {
            "user": ["a", "a", "b", "b", "c", "a"],
            "item": ["x", "y", "x", "y", "x", "x"],
            "time": [1, 2, 3, 4, 5, 6],
            "rating": [5, 5, 4, 4, 4, 3],
        }
    )
    log = read_interactions(frame, min_rating=4, k_core=2)
    assert rows(log) == [
        ("a", "x", 1000, 5),
        ("a", "y", 2000, 5),
        ("b", "x", 3000, 4),
        ("b", "y", 4000, 4),
    ]
    assert log.notes == (
        "1 row left out: rated below 4",
        "1 row left out: outside the 2-core (1 user gone)",
    )


def test_repeats_are_dropped_kept_or_the_last_counts(rows):
    frame = pl.DataFrame({"user": ["a"] * 3, "item": ["x"] * 3, "time": [5, 1, 5]})
    assert rows(read_interactions(frame)) == [("a", "x", 1000)]
    assert rows(read_interactions(frame, duplicates="last")) == [("a", "x", 5000)]
    kept = read_interactions(frame, duplicates="keep")
    assert rows(kept) == [("a", "x", 5000), ("a", "x", 1000)]
    assert kept.notes == ("1 row left out: equal in user, item and time",)


def test_positions_are_counted_after_the_filters(rows):
    frame = pl.DataFrame({"user": ["a", "a", "a"], "item": ["x", "x", "y"]})
    assert rows(read_interactions(frame)) == [("a", "x", 0), ("a", "y", 1)]
    assert rows(read_interactions(frame, duplicates="last")) == [("a", "x", 0), ("a", "y", 1)]
    assert len(rows(read_interactions(frame, duplicates="keep"))) == 3


def test_a_rating_of_words_is_left_alone_unless_asked_for():
    frame = pl.DataFrame({"user": ["a"], "item": ["x"], "rating": ["good"]})
    log = read_interactions(frame)
    assert log.columns.rating is None
    assert log.notes == ('column "rating" is not read as a rating: "good" is not a number',)
    with pytest.raises(InputError, match=r'rating "good" in column "rating" \(data row 1\)'):
        read_interactions(frame, rating_col="rating")


def test_no_time_can_be_said(rows):
    log = read_interactions(
        pl.DataFrame({"user": ["a"], "item": ["x"], "time": ["?"]}), time_col=""
    )
    assert rows(log) == [("a", "x", 0)]


# There and back.

IDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
LOGS = st.lists(
    st.tuples(
        IDS.filter(lambda text: text.lower() not in ("nan", "<na>", "null")),
        IDS.filter(lambda text: text.lower() not in ("nan", "<na>", "null")),
        st.integers(978_307_200_000, 4_102_444_799_999),
        st.sampled_from([0.5, 1.0, 4.5]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[:3],
)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(log=LOGS)
def test_what_is_written_is_read_back(tmp_path, kind, rows, log):
    frame = pl.DataFrame(log, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    path = tmp_path / f"log.{kind}"
    if kind in ("csv", "tsv"):
        frame.write_csv(path, separator="," if kind == "csv" else "\t")
    elif kind == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    back = read_interactions(path, duplicates="keep")
    assert rows(back) == log
