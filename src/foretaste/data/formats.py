"""From a path or a frame to a Table: which files, which format, one schema."""

from __future__ import annotations

import glob
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import polars.selectors as cs

from foretaste.data import formats_text as text_formats
from foretaste.data.sources import Table, listed, nearest, plainly, require_utf8, shown
from foretaste.data.text_files import TextFile, first_bytes, open_text
from foretaste.errors import InputError

FORMATS = (
    "csv",
    "tsv",
    "jsonl",
    "parquet",
    "movielens",
    "recbole",
    "sequences",
    "item-sequences",
)
"""What ``--format`` takes. The last is one user per line without the user."""

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".inter": "recbole",
    ".dat": None,
    ".data": None,
    ".txt": None,
}
"""None: the first lines decide."""

# A folder as its publisher ships it holds one log among other tables.
_KNOWN_LOGS = ("ratings.dat", "u.data", "ratings.csv")


def open_source(source: str | Path, format: str | None, named: tuple[str, ...] = ()) -> Table:
    """Open a file, a folder of files or a glob.

    Args:
        source: the path.
        format: one of ``FORMATS``; None tells it by suffix and first lines.
        named: columns that options ask for (they tell a header from data).

    Raises:
        InputError: nothing to read, an unknown format, or files that do not fit together.
    """
    if format is not None and format not in FORMATS:
        raise InputError(
            f'no format "{format}" (known: {listed(FORMATS)}).{nearest(format, FORMATS)}'
        )
    paths = _files(source)
    for path in paths:
        require_utf8(path.absolute())
    place = Path(source).name or str(source)
    tables = [_open_file(path, format, named, len(paths) > 1) for path in paths]
    return tables[0] if len(tables) == 1 else _joined(tables, place)


def suffix_of(path: Path) -> str:
    """The suffix that tells the format: ``.csv`` of ``log.csv.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".gzip"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _files(source: str | Path) -> list[Path]:
    text = str(source)
    if re.match(r"[a-z][a-z0-9+]+://", text):
        raise InputError(f"{text}: this is an address. Download the file and give its path.")
    try:
        path = Path(text).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f'"{shown(text)}" is not a path ({shown(error)}).') from error
    if is_file:
        return [path]
    # Path("") is the working folder, which nobody means by an empty name.
    if is_folder and text:
        return _folder(path)
    files = [name for name in found if name.is_file()]
    if not files:
        raise _nothing_there(text, path, found)
    return files


def _nothing_there(text: str, path: Path, found: list[Path]) -> InputError:
    if not text:
        return InputError("the path is empty. Give a file, a folder or a glob.")
    if path in found:
        return InputError(f"{text}: neither a file nor a folder. Give a file, a folder or a glob.")
    if found:
        return InputError(f"{text}: matches folders only. Add the files: {text}/*.parquet")
    if any(mark in text for mark in "*?["):
        return InputError(f"{text}: no file matches. The pattern is taken from {Path.cwd()}.")
    beside = [name.name for name in path.parent.iterdir()] if path.parent.is_dir() else []
    return InputError(f"{text}: no such file.{nearest(path.name, beside)}")


def _folder(folder: Path) -> list[Path]:
    for name in _KNOWN_LOGS:
        if (folder / name).is_file():
            return [folder / name]
    # Files of partitions (date=2020-01-01/part-0.parquet) lie deeper; Spark hides its own with _.
    for pattern in ("*", "**/*"):
        files = sorted(
            path
            for path in folder.glob(pattern)
            if path.is_file()
            and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
            and suffix_of(path) in _SUFFIXES
        )
        logs = [path for path in files if suffix_of(path) == ".inter"]
        if logs or files:
            return _one_kind(logs or files, folder)
    raise InputError(
        f"{folder.name}: the folder holds no file that can be read "
        f"({listed(_SUFFIXES)}, each also as .gz). Give the file itself."
    )


def _one_kind(files: list[Path], folder: Path) -> list[Path]:
    kinds = {suffix_of(path) for path in files}
    if len(kinds) > 1:
        raise InputError(
            f"{folder.name}: the folder holds several kinds of files "
            f"({listed([path.name for path in files])}). Name one, or a glob like "
            f"{folder.name}/*{min(kinds)}."
        )
    return files


def _open_file(path: Path, format: str | None, named: tuple[str, ...], many: bool) -> Table:
    place = path.name
    with plainly(place):
        parquet = first_bytes(path, 4) == b"PAR1"
    if parquet or (format or _SUFFIXES.get(suffix_of(path))) == "parquet":
        if not parquet:
            raise InputError(
                f"{place}: not a Parquet file (it does not begin with PAR1). Name its kind with "
                "--format."
            )
        with plainly(place):
            rows = pl.scan_parquet(path, glob=False, hive_partitioning=many)
            rows.collect_schema()
        return Table(place, rows, path=path)
    text = open_text(path, place)
    return _open_text(text, format or _told_by_lines(text), named)


def _open_text(text: TextFile, format: str, named: tuple[str, ...]) -> Table:
    match format:
        case "tsv":
            return text_formats.read_delimited(text, delimiter="\t", named=named)
        case "jsonl":
            return text_formats.read_jsonl(text)
        case "movielens":
            if text.path.name.startswith("u.data") or "::" not in "".join(text.lines[:5]):
                return text_formats.read_ml100k(text)
            return text_formats.read_movielens(text)
        case "recbole":
            return text_formats.read_recbole(text)
        case "sequences":
            return text_formats.read_sequences(text, users=True)
        case "item-sequences":
            return text_formats.read_sequences(text, users=False)
        case "blank-separated":
            return text_formats.read_delimited(text, delimiter=" ", named=named)
        case "lines":
            return text_formats.read_sequences(text)
    return text_formats.read_delimited(text, named=named)


def _told_by_lines(text: TextFile) -> str:
    """The format of a text file by its suffix, and where that is silent by its first lines."""
    filled = [line for line in text.lines if line.strip()] or [""]
    by_suffix = _SUFFIXES.get(suffix_of(text.path))
    if by_suffix == "tsv" and "\t" not in filled[0]:
        return "csv"
    if by_suffix:
        return by_suffix
    if text.path.name.startswith("u.data") and filled[0].count("\t") == 3:
        return "movielens"
    if filled[0].lstrip().startswith(("{", "[{")):
        return "jsonl"
    if filled[0].count("::"):
        return "movielens"
    if re.match(r"\w+:(token|float|token_seq|float_seq)\b", filled[0]):
        return "recbole"
    if text_formats.sniff_delimiter(text.lines) is not None:
        return "csv"
    if text_formats.blank_separated_table(text.lines):
        return "blank-separated"
    words = " ".join(filled[:100]).split()
    # Sentences are blank-separated too; ids nearly always hold a digit.
    if words and sum(any(c.isdigit() for c in word) for word in words) >= 0.8 * len(words):
        return "lines"
    raise InputError(
        f'{text.place}: the format cannot be told from "{listed([filled[0]])}". '
        f"Name it with --format ({listed(FORMATS)})."
    )


def _joined(tables: list[Table], place: str) -> Table:
    """Several files as one log, in the order of their names; all must have the same columns."""
    first = tables[0]
    names = first.names()
    if any(table.numbered for table in tables):
        raise InputError(
            f"{place}: lines of items only are numbered per file, so {len(tables)} files would mix "
            "their users. Give one file, or lines that start with their user."
        )
    for table in tables[1:]:
        if sorted(table.names()) != sorted(names) or table.headed != first.headed:
            raise InputError(
                f"{place}: {first.place} and {table.place} have different columns "
                f"({listed(names)}; {listed(table.names())}). Give files of one kind, or a glob."
            )
    columns = [*names, first.overflow] if first.overflow else names
    with plainly(place):
        parts = [table.rows.select(cs.by_name(columns)) for table in tables]
        rows = pl.concat(parts, how="vertical_relaxed")
        rows.collect_schema()
    notes = tuple(f"{table.place}: {note}" for table in tables for note in table.notes)
    return replace(first, place=place, rows=rows, notes=(f"{len(tables)} files", *notes))
