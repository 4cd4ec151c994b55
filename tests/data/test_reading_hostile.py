"""Broken input ends in one clear line, or in a valid log; never in another library's exception."""

from __future__ import annotations

import gzip

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from foretaste.data.formats import FORMATS
from foretaste.data.reading import read_interactions
from foretaste.errors import InputError

CSV = """user_id,item_id,rating,timestamp
u1,0104257,8,1364690142
u2,0903624,9,1377745112
u1,0903624,2,1377745113
"""
CUT_GZIP = gzip.compress(b"".join(b"u%d,i%d,%d\n" % (n, n * 7 % 13, n) for n in range(5000)))[:-900]


def refusal(source, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_interactions(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# What the file holds, and the words that must be in the message: value, place, way out.
FILES = {
    "empty": ("log.csv", b"", ["log.csv", "empty"]),
    "blank lines only": ("log.csv", b"\n \n\n", ["log.csv", "empty"]),
    "byte order mark only": ("log.csv", b"\xef\xbb\xbf", ["log.csv", "empty"]),
    "header only": ("log.csv", b"user_id,item_id\n", ["log.csv", "header and no rows"]),
    "header without end": ("log.csv", b"user_id,item_id", ["log.csv", "header and no rows"]),
    "blank rows only": ("log.csv", b"user_id,item_id\n,\n,\n", ["log.csv", "no rows"]),
    "no user": ("log.csv", b"a,b,c\nx,y,z\n", ["user id", "columns: a, b, c", "--user-col"]),
    "no item": ("log.csv", b"user,b,c\nx,y,z\n", ["item id", "columns: user, b, c", "--item-col"]),
    "empty user": (
        "log.csv",
        b"user,item\na,x\n,y\n ,z\n",
        ["no user id in 2 rows", '"user"', "data row 2", "--user-col"],
    ),
    "NaN item": ("log.csv", b"user,item\na,NaN\n", ["no item id in 1 row", "data row 1"]),
    "short row": ("log.csv", b"user,item\na,x\nb\n", ["no item id", "data row 2"]),
    "short row of time": (
        "log.csv",
        b"user,item,ts\na,x,1\nb,y\n",
        ["no time", "data row 2", "--time-col"],
    ),
    "long row": (
        "log.csv",
        b"user,item,ts\na,x,1\nb,The Good, the Bad,2\nc,z,3\n",
        ["more than 3 fields in 1 row ", "data row 2", "Quote", "--format"],
    ),
    "long row of a .dat": (
        "ratings.dat",
        b"1::2::3::4\n1::2::3::4::5\n",
        ["more than 4 fields", "data row 2"],
    ),
    "text as time": (
        "log.csv",
        b"user,item,timestamp\na,x,1364690142\nb,y,soon\n",
        ['"soon"', '"timestamp"', "data row 2", "--time-col"],
    ),
    "infinite time": ("log.csv", b"user,item,ts\na,x,inf\n", ['"inf"', "data row 1"]),
    "duplicate header": (
        "log.csv",
        b"user,item,user\na,x,b\n",
        ["named twice: user", "header: user, item, user", "Rename"],
    ),
    "zip archive": ("log.csv", b"PK\x03\x04rest", ["zip archive", "Unpack"]),
    "binary": ("log.csv", bytes(range(256)) * 8, ["log.csv", "not a text file", "UTF-8"]),
    "zeros": ("log.csv", b"user,item\n\0\0,1\n", ["not a text file"]),
    "UTF-16 without a mark": ("log.csv", CSV.encode("utf-16-le"), ["not a text file", "UTF-8"]),
    "UTF-16 cut": ("log.csv", CSV.encode("utf-16")[:-1], ["damaged UTF-16", "UTF-8"]),
    "gzip cut short": ("log.csv.gz", CUT_GZIP, ["log.csv.gz", "cut short", "again"]),
    "gzip damaged": ("log.csv.gz", CUT_GZIP[:200] + b"\0" * 50 + CUT_GZIP[250:], ["gzip file is"]),
    "gzip of nothing": ("log.csv.gz", gzip.compress(b""), ["empty"]),
    "one column": ("log.csv", b"hello\nworld\n", ["no delimiter", '"hello"', "--format"]),
    "prose": ("log.txt", b"To be or not to be\nthat is the question\n", ["format", "--format"]),
    "quote that does not close": ("log.csv", b'user,item\na,"x\nb,y\n', ["quote", "Double"]),
    "quote inside a field": (
        "log.csv",
        b'user,item,title\na,x,The 6" Nail\nb,y,z\n',
        ["quote", "Double"],
    ),
    "JSON array": ("log.json", b'[{"user": 1, "item": 2}]', ["JSON array", "one object per line"]),
    "JSON cut short": (
        "log.jsonl",
        b'{"user": 1, "item": 2}\n{"user": 1, "it',
        ["line 2", "not a JSON object"],
    ),
    "JSON of other things": ("log.jsonl", b'{"user": 1, "item": 2}\n[1]\n', ["line 2", '"[1]"']),
    "JSON without fields": ("log.jsonl", b"{}\n{}\n", ["no fields"]),
    "JSON without ids": ("log.jsonl", b'{"user": null, "item": 2}\n', ["no user id", "data row 1"]),
    "not Parquet": ("log.parquet", b"user,item\n", ["not a Parquet file", "--format"]),
    "Parquet cut short": ("log.parquet", b"PAR1\x00\x01\x02", ["log.parquet", "could not be read"]),
    "titles as a log": (
        "movies.dat",
        b"1::Toy Story (1995)::Animation\n",
        ["user::item::rating", "Toy Story", "items="],
    ),
    "RecBole without types": ("log.inter", b"user\titem\na\tx\n", ["RecBole header", "--format"]),
}


@pytest.mark.parametrize("case", FILES, ids=str)
def test_broken_files(tmp_path, case):
    name, data, words = FILES[case]
    (tmp_path / name).write_bytes(data)
    message = refusal(tmp_path / name)
    assert message.startswith(name)
    for word in words:
        assert word in message, message


def test_a_failure_deep_in_a_long_file_is_found(tmp_path):
    head = CSV + "".join(f"u{n},i{n},5,1377745113\n" for n in range(20_000))
    path = tmp_path / "log.csv"
    path.write_text(head + "u,i,5,never\n")
    assert '"never"' in refusal(path) and "data row 20004" in refusal(path)
    path.write_text(head + "u,i,5,1377745113,6\n")
    assert "data row 20004" in refusal(path)
    path.write_text(head + 'u,"i,5,1377745113\n')
    assert "quote" in refusal(path)
    path.write_bytes(head.encode() + "é,i,5,1377745113\n".encode("latin-1"))
    log = read_interactions(path)
    assert log.frame["user_id"][-1] == "é"
    assert "not UTF-8" in log.notes[0]


def test_a_bad_line_deep_in_json_is_found(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": 1, "item": 2}\n' * 3000 + "[1]\n")
    assert "a line is not a JSON object" in refusal(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "latin-1", "cp1252"])
def test_other_encodings_are_decoded_and_said(tmp_path, encoding, check_contract):
    path = tmp_path / "log.csv"
    path.write_bytes(CSV.replace("u2", "Zoë").encode(encoding))
    log = read_interactions(path)
    assert log.frame["user_id"].to_list() == ["u1", "Zoë", "u1"]
    assert bool(log.notes) == (encoding != "utf-8-sig")
    check_contract(log)


def test_a_field_of_a_million_characters_is_read(tmp_path, check_contract):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,review\na,x,{'long ' * 200_000}\nb,{'y' * 1_000_000},short\n")
    log = read_interactions(path)
    assert log.frame["item_id"].str.len_chars().to_list() == [1, 1_000_000]
    check_contract(log)


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "ratings2.csv").write_text(CSV)
    assert refusal(tmp_path / "rating2.csv").endswith("no such file. Did you mean ratings2.csv?")
    assert "no file matches" in refusal(str(tmp_path / "*.parquet"))
    assert "no such file" in refusal(tmp_path / "ratings2.csv" / "x")
    assert "Download" in refusal("https://example.org/ratings.csv")
    assert "the path is empty" in refusal("")
    refusal("nul\0byte.csv")
    refusal("x" * 5000)
    assert "no such file" in refusal(tmp_path / "ratings2.csv", items=tmp_path / "none.csv")


def test_folders_that_hold_no_single_log(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    assert "holds no file that can be read" in refusal(folder)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    assert "holds no file that can be read" in refusal(folder)
    (folder / "a.csv").write_text(CSV)
    (folder / "b.csv").write_text("user,product\nu,p\n")
    message = refusal(folder)
    assert "a.csv and b.csv have different columns" in message and "user, product" in message
    (folder / "c.jsonl").write_text("{}")
    assert "several kinds of files" in refusal(folder)
    assert "folders only" in refusal(str(tmp_path / "lo*"))


def test_several_files_of_numbered_lines_would_mix_their_users(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("10 11 12\n10 13\n11 14 15 16\n")
    assert "mix their users" in refusal(tmp_path)
    assert len(read_interactions(tmp_path, format="sequences").frame) == 6


def test_parquet_files_of_mixed_types_end_well(tmp_path, check_contract):
    pl.DataFrame({"user": ["a"], "item": ["x"]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"user": [1], "item": ["y"]}).write_parquet(tmp_path / "b.parquet")
    try:
        check_contract(read_interactions(tmp_path))
    except InputError as error:
        assert "\n" not in str(error)


def test_options_that_do_not_fit(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(CSV)
    assert "Did you mean user_id?" in refusal(path, user_col="userid")
    assert "--item-col" in refusal(path, item_col="nothing")
    assert "Did you mean parquet?" in refusal(path, format="parkett")
    assert "not a Parquet file" in refusal(path, format="parquet")
    assert "not a JSON object" in refusal(path, format="jsonl")
    assert 'format = "csv"' in refusal(pl.DataFrame({"user": [1], "item": [2]}), format="csv")
    assert "none of first, last, keep" in refusal(path, duplicates="none")
    assert "k_core=0" in refusal(path, k_core=0)
    assert "min_rating=nan" in refusal(path, min_rating=float("nan"))
    assert "the highest is 9. Lower" in refusal(path, min_rating=10)
    assert "3-core is empty" in refusal(path, k_core=3)
    assert "needs ratings" in refusal(path, rating_col="", min_rating=1)


def test_missing_ratings_cannot_be_judged():
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [4.0, float("nan")]})
    message = refusal(frame, min_rating=3)
    assert "no rating in 1 row" in message and "data row 2" in message


def test_polars_frames_that_do_not_fit():
    assert "no column looks like an item" in refusal(pl.DataFrame({"user": ["a"]}))
    assert "no rows" in refusal(pl.DataFrame({"user": [], "item": []}))
    assert "no rows" in refusal(pl.DataFrame())
    message = refusal(pl.DataFrame({"user": [1.0, None, float("nan")], "item": ["x"] * 3}))
    assert "no user id in 2 rows" in message and "data row 2" in message
    assert "not item ids" in refusal(pl.DataFrame({"user": ["a"], "item": [["x"]]}))
    refusal(pl.DataFrame({"user": [1]}).lazy().select(pl.col("user") / pl.col("none")))
    assert "no log" in refusal([("a", "x")])
    assert "no log" in refusal(None)


def test_pandas_and_arrow_frames_that_do_not_fit():
    pd = pytest.importorskip("pandas")
    pa = pytest.importorskip("pyarrow")
    double = pd.DataFrame([[1, 2, 3]], columns=["user", "item", "item"])
    assert "named twice: item" in refusal(double)
    assert "named twice: item" in refusal(pa.table([[1], [2], [3]], names=["user", "item", "item"]))
    mixed = pd.DataFrame({"user": [1, "b"], "item": ["x", "y"]})
    assert refusal(mixed).startswith("frame: ")
    assert "Series is no log" in refusal(pd.Series([1]))
    assert "no rows" in refusal(pd.DataFrame({"user": [], "item": []}))
    assert "no user id" in refusal(pd.DataFrame({"user": [None, "b"], "item": ["x", "y"]}))
    endless = pd.DataFrame({"user": ["a"], "item": ["x"], "time": [float("inf")]})
    assert 'time "inf" in column "time" (data row 1)' in refusal(endless)


# Fuzz: a valid log or one line.

NAMES = [
    "log.csv",
    "log.tsv",
    "log.jsonl",
    "log.dat",
    "u.data",
    "log.inter",
    "log.txt",
    "log.parquet",
]
CELLS = st.sampled_from(
    [
        "user",
        "item",
        "rating",
        "time",
        "user_id:token",
        "item_id:token",
        "a",
        "b",
        "1",
        "5",
        "0.5",
        "",
        " ",
        '"',
        '"x"',
        '"a',
        "1364690142",
        "2013-04-01",
        "nan",
        "inf",
        "é",
        "::",
        "{}",
        "\r",
    ]
)
TABLES = st.builds(
    lambda rows, mark, end: end.join(mark.join(row) for row in rows).encode(),
    st.lists(st.lists(CELLS, max_size=5), max_size=6),
    st.sampled_from([",", "\t", ";", "|", "::", " "]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
JSON = st.lists(
    st.sampled_from(
        [
            '{"user": 1, "item": "x"}',
            '{"user": "a", "item": 2, "ts": 5}',
            '{"user": [1]}',
            "",
            "null",
            '{"item": {"a": 1}, "user": true}',
            '{"user": "a", "item": "b", "rating": "c"}',
            "{",
            "1",
            '{"user": 1e999, "item": 1}',
            '{"user": "\\ud800", "item": NaN}',
            '{"": 1, "user": 2}',
        ]
    ),
    max_size=5,
).map(lambda lines: "\n".join(lines).encode())
BYTES = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    TABLES,
    JSON,
    TABLES.map(gzip.compress),
    st.binary(max_size=40).map(lambda data: b"PAR1" + data + b"PAR1"),
    st.binary(max_size=40).map(lambda data: b"\x1f\x8b" + data),
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=BYTES,
    name=st.sampled_from(NAMES),
    format=st.one_of(st.none(), st.sampled_from(FORMATS)),
)
@example(data=b'user,item\n"a\n', name="log.csv", format=None)
def test_any_bytes_are_a_log_or_one_line(tmp_path, check_contract, data, name, format):
    path = tmp_path / name
    path.write_bytes(data)
    try:
        log = read_interactions(path, format=format)
    except InputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 600
    else:
        check_contract(log)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=BYTES, name=st.sampled_from(["i.csv", "i.dat", "i.item", "u.item", "i.jsonl"]))
def test_any_item_file_is_read_or_one_line(tmp_path, check_contract, data, name):
    path = tmp_path / name
    path.write_bytes(data)
    frame = pl.DataFrame({"user": ["a"], "item": ["x"]})
    try:
        log = read_interactions(frame, items=path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        check_contract(log)
