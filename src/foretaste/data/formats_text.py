"""Text formats, one reader each: from a checked text file to a Table whose rows are lazy."""

from __future__ import annotations

import glob
import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl

from foretaste.data.columns import is_known_name, looks_like_data
from foretaste.data.sources import Table, listed, plainly, shown
from foretaste.data.text_files import TextFile
from foretaste.errors import EmptyLogError, InputError

DELIMITERS = (",", "\t", ";", "|")
MOVIELENS_NAMES = ("user_id", "item_id", "rating", "timestamp")
_OVERFLOW = "__overflow__"
_QUOTED = re.compile(r'"[^"]*"')
# Excel's own way to say how its file is delimited.
_SAID = re.compile(r'"?sep=([,;|:\t])"?\s*', re.IGNORECASE)
_HEADER_LINES = 20


def read_delimited(
    text: TextFile,
    *,
    delimiter: str | None = None,
    named: tuple[str, ...] = (),
) -> Table:
    """CSV and its kin, with or without a header.

    Args:
        text: the file.
        delimiter: the separator of fields; None takes it from a first line like Excel's ``sep=;``
            or finds it among comma, tab, semicolon and bar.
        named: columns that an option asks for; a first row that holds one of them is a header.

    Raises:
        InputError: no delimiter fits, or a name stands twice in the header.
    """
    delimiter = delimiter or sniff_delimiter(text.lines)
    if delimiter is None and blank_separated_table(text.lines):
        delimiter = " "
    if delimiter is None:
        raise InputError(
            f"{text.place}: no delimiter found (comma, tab, semicolon or |) in the first line "
            f'"{shown(_filled(text)[0])}". Name the kind of file with --format.'
        )
    return _delimited(_without_separator_line(text), delimiter, named, quote='"')


def _separator_line(lines: tuple[str, ...]) -> tuple[int, str] | None:
    """Where the first line says the delimiter, as in Excel's ``sep=;``, and which; or None."""
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    said = _SAID.fullmatch(lines[first]) if lines else None
    return None if said is None else (first, said[1])


def _without_separator_line(text: TextFile) -> TextFile:
    """The file with that line made blank, so that it is passed over."""
    said = _separator_line(text.lines)
    if said is None:
        return text
    return replace(text, lines=("",) * (said[0] + 1) + text.lines[said[0] + 1 :])


def _with_whole_header(text: TextFile, delimiter: str) -> TextFile:
    """The file with a header that quotes line ends on one line, and as many blank ones before."""
    first = next((n for n, line in enumerate(text.lines) if line.strip()), 0)
    # Quotes open at the beginning of a field alone: 5" is no quote.
    mark = re.escape(delimiter)
    opens = re.compile(
        rf'(?:(?:"[^"]*(?:""[^"]*)*"|[^"{mark}][^{mark}]*)?{mark})*"[^"]*(?:""[^"]*)*'
    )
    for last in range(first, min(first + _HEADER_LINES, len(text.lines))):
        line = "\n".join(text.lines[first : last + 1])
        if not opens.fullmatch(line):
            lines = ("",) * (last - first) + (line.replace("\n", " "),) + text.lines[last + 1 :]
            return replace(text, lines=text.lines[:first] + lines)
    return text


def _delimited(text: TextFile, delimiter: str, named: tuple[str, ...], quote: str | None) -> Table:
    whole = text if quote is None else _with_whole_header(text, delimiter)
    first = _fields(_filled(whole)[0], delimiter, quote)
    following = [_fields(line, delimiter, quote) for line in _filled(whole)[1:20]]
    headed = any(name in first for name in named) or not looks_like_data(first, following)
    names = _header(first, text.place) if headed else [f"column_{n + 1}" for n in range(len(first))]
    notes = text.notes
    if not headed:
        notes += (f'no header: the first row is data ("{shown(_filled(whole)[0])}")',)
    skipped = _lines_before_data(whole if headed else text, headed)
    if skipped is None:
        raise EmptyLogError(f"{text.place}: a header and no rows. Is it the right file?")
    overflow = _overflow(names)
    rows = _scan_delimited(text.source, delimiter, [*names, overflow], skipped, quote)
    return _table(text, rows, headed, notes, overflow)


def _scan_delimited(
    source: Path | bytes, delimiter: str, names: list[str], skipped: int, quote: str | None
) -> pl.LazyFrame:
    """Every field as text, so that ``0104257`` keeps its zero.

    The last name is one column more than the header has: Polars drops or refuses surplus fields
    depending on what is selected, and a comma too many must be seen every time.
    """
    return pl.scan_csv(
        source,
        has_header=False,
        schema=dict.fromkeys(names, pl.String),
        separator=delimiter,
        quote_char=quote,
        skip_lines=skipped,
        glob=False,
        missing_columns="insert",
        extra_columns="ignore",
    )


def sniff_delimiter(lines: tuple[str, ...]) -> str | None:
    """The delimiter that is said, or that cuts the most lines into the same number of fields."""
    said = _separator_line(lines)
    if said is not None:
        return said[1]
    filled = [line for line in lines if line.strip()][:100]
    if not filled:
        return None
    # A quoted line end may hide the delimiters of the header from its first line.
    parted = _QUOTED.sub("", "\n".join(filled)).split("\n")
    return _fittest([_QUOTED.sub("", line) for line in filled]) or _fittest(parted)


def _fittest(bare: list[str]) -> str | None:
    def fitness(delimiter: str) -> tuple[float, int]:
        counts = [line.count(delimiter) for line in bare]
        same = sum(count == counts[0] for count in counts) / len(counts)
        return (same if counts[0] else 0.0, counts[0])

    # max keeps the first of equals, so the order of DELIMITERS settles ties.
    best = max(DELIMITERS, key=fitness)
    return best if fitness(best)[0] > 0 else None


def read_jsonl(text: TextFile) -> Table:
    """One JSON object per line. Values become text; nested ones stay JSON.

    Columns are the keys of the first lines; a key that first appears later is not seen.
    """
    if _filled(text)[0].lstrip().startswith("["):
        raise InputError(
            f"{text.place}: a JSON array. Write one object per line (JSONL), as `jq -c '.[]'` does."
        )
    names: dict[str, None] = {}
    for number, line in enumerate(text.lines, start=1):
        if line.strip():
            names |= dict.fromkeys(_json_object(line, number, text.place))
    if not names:
        raise InputError(f"{text.place}: the objects have no fields. Is it the right file?")
    schema = dict.fromkeys(names, pl.String)
    with plainly(text.place):
        return Table(
            text.place,
            pl.scan_ndjson(_escaped(text.source), schema=schema),
            path=text.path,
            notes=text.notes,
        )


def _json_object(line: str, number: int, place: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    raise InputError(
        f'{place}: line {number} is not a JSON object ("{shown(line)}"). '
        "Write one object per line, or name the kind of file with --format."
    )


def read_movielens(text: TextFile) -> Table:
    """MovieLens ``ratings.dat``: ``user::item::rating::seconds``, no header."""
    first = _filled(text)[0]
    width = len(first.split("::"))
    if not 2 <= width <= 4 or (width > 2 and not _number(first.split("::")[2])):
        raise InputError(
            f'{text.place}: not user::item::rating::time ("{shown(first)}"). '
            "Give ratings.dat; a file of titles goes to items=."
        )
    # One field more than needed, so that a surplus one is seen.
    fields = pl.col("line").str.splitn("::", width + 1).struct
    names = [*MOVIELENS_NAMES[:width], _OVERFLOW]
    rows = lines_of(text).select(
        *(fields.field(f"field_{n}").alias(name) for n, name in enumerate(names))
    )
    return _table(text, rows, False, text.notes)


def read_ml100k(text: TextFile) -> Table:
    """MovieLens-100K ``u.data``: tab-separated, no header."""
    names = [*MOVIELENS_NAMES, _OVERFLOW]
    rows = _scan_delimited(text.source, "\t", names, 0, None)
    return _table(text, rows, False, text.notes)


def read_recbole(text: TextFile, named: tuple[str, ...] = ()) -> Table:
    """RecBole atomic files: a header of ``name:type`` fields, tab-separated, never quoted."""
    header = _filled(text)[0]
    delimiter = "\t" if "\t" in header else sniff_delimiter(text.lines)
    if delimiter is None or ":" not in header:
        raise InputError(
            f'{text.place}: no RecBole header like user_id:token ("{shown(header)}"). '
            "Name the kind of file with --format."
        )
    fields = header.split(delimiter)
    names = _header([field.rpartition(":")[0] or field for field in fields], text.place)
    skipped = _lines_before_data(text, headed=True)
    if skipped is None:
        raise EmptyLogError(f"{text.place}: a header and no rows. Is it the right file?")
    overflow = _overflow(names)
    rows = _scan_delimited(text.source, delimiter, [*names, overflow], skipped, None)
    return _table(text, rows, True, text.notes, overflow)


def read_sequences(text: TextFile, *, users: bool | None = None) -> Table:
    """One user per line, items in the order of time, separated by blanks.

    Args:
        text: the file.
        users: whether a line starts with its user. None decides: first words that are all
            different are users; otherwise a line holds items only and its number is the user.
    """
    notes = text.notes
    words = pl.col("line").str.strip_chars().str.replace_all(r"\s+", " ").str.split(" ")
    lines = (
        lines_of(text)
        .with_row_index("number", offset=1)
        .filter(pl.col("line").str.strip_chars() != "")
        .select("number", words.alias("item_id"))
    )
    if users is None:
        first = pl.col("item_id").list.first()
        with plainly(text.place):
            users = not lines.select(first.is_duplicated().any()).collect(engine="streaming").item()
        if not users:
            notes += (
                "first words of the lines repeat, so lines hold items only: "
                "user_id is the number of the line (format='sequences' reads users)",
            )
    user = pl.col("item_id").list.first() if users else pl.col("number").cast(pl.String)
    items = pl.col("item_id").list.slice(1) if users else pl.col("item_id")
    rows = (
        lines.select(user.alias("user_id"), items.alias("item_id"))
        .filter(pl.col("item_id").list.len() > 0)
        .explode("item_id")
    )
    return Table(
        text.place,
        rows,
        headed=False,
        roles=("user_id", "item_id"),
        numbered=not users,
        path=text.path,
        notes=notes,
    )


def _table(
    text: TextFile,
    rows: pl.LazyFrame,
    headed: bool,
    notes: tuple[str, ...],
    overflow: str = _OVERFLOW,
) -> Table:
    return Table(text.place, rows, headed, path=text.path, overflow=overflow, notes=notes)


def _overflow(names: list[str]) -> str:
    """A name for what is too much in a row that no column of the file has."""
    name = _OVERFLOW
    while name in names:
        name += "_"
    return name


def lines_of(text: TextFile) -> pl.LazyFrame:
    """The lines of a file as one column, ``line``, without their ends."""
    with plainly(text.place):
        return pl.scan_lines(_escaped(text.source)).select(
            pl.nth(0).str.strip_chars_end("\r").alias("line")
        )


def _escaped(source: Path | bytes) -> str | bytes:
    # These two scans expand wildcards whether asked or not; a file may be called "log[1].txt".
    return source if isinstance(source, bytes) else glob.escape(str(source))


def _filled(text: TextFile) -> list[str]:
    return [line for line in text.lines if line.strip()] or [""]


def _lines_before_data(text: TextFile, headed: bool) -> int | None:
    """How many raw lines come before the first row; None when there is no row."""
    filled = [number for number, line in enumerate(text.lines) if line.strip()]
    return filled[int(headed)] if len(filled) > int(headed) else None


def _fields(line: str, delimiter: str, quote: str | None) -> list[str]:
    """The fields of one line. Quotes that do not close take the rest of the line."""
    if quote is None or quote not in line:
        return [field.strip() for field in line.split(delimiter)]
    pattern = rf'(?:"((?:[^"]|"")*)"?|([^{re.escape(delimiter)}]*))(?:{re.escape(delimiter)}|$)'
    found = re.finditer(pattern, line)
    fields = [
        (match[1].replace('""', '"') if match[1] is not None else match[2]).strip()
        for match in found
        if match.start() < len(line) or line.endswith(delimiter)
    ]
    return fields


def _header(fields: list[str], place: str) -> list[str]:
    names = [field.strip() or f"column_{n + 1}" for n, field in enumerate(fields)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InputError(
            f"{place}: columns named twice: {listed(double)} (header: {listed(names)}). "
            "Rename one of them."
        )
    return names


def _number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def blank_separated_table(lines: tuple[str, ...]) -> bool:
    """Whether blank-separated lines are rows (user item ...), not one user each.

    Rows all have the same 2 to 4 fields, and a user or a column name stands on several of them.
    """
    words = [line.split() for line in lines if line.strip()]
    widths = {len(row) for row in words}
    if len(words) < 2 or len(widths) > 1 or not 2 <= min(widths) <= 4:
        return False
    named = any(is_known_name(word) for word in words[0])
    return named or len({row[0] for row in words}) < len(words)
