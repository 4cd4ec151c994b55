"""What is known about items beside the log: titles, categories, text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from foretaste.data import formats
from foretaste.data.columns import ITEM_NAMES, words
from foretaste.data.formats_text import lines_of
from foretaste.data.sources import Table, counted, listed, plainly, require_rows, whole_again
from foretaste.data.text_files import TextFile, open_text
from foretaste.errors import InputError

_TITLES = words(
    "title itemtitle movietitle producttitle booktitle tracktitle name itemname productname"
)
_CATEGORIES = words(
    "categories category genres genre class classes categorynames tags maincategory"
)
_TEXTS = words("text description plot overview summary abstract body content")
# The order of u.item's last 19 columns, from the data set's own u.genre file.
_ML100K_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_NO_CATEGORIES = ("(no genres listed)", "unknown", "")


def find_items(
    items: str | Path | None, log: Path | None
) -> tuple[pl.DataFrame | None, tuple[str, ...]]:
    """Read the item file that was named, or the one that lies beside a MovieLens or RecBole log.

    Returns:
        ``item_id`` and, where known, ``title``, ``categories``, ``text`` (one row per item; None
        when there is no file), and notes.
    """
    path = Path(items).expanduser() if items is not None else _beside(log)
    if path is None:
        return None, ()
    if items is None:
        # Nobody asked for this file, so a broken one must not stop the log.
        try:
            return read_items(path)
        except InputError as error:
            return None, (f"items not read: {error}",)
    return read_items(path)


def _beside(log: Path | None) -> Path | None:
    if log is None:
        return None
    stem = log.name.removesuffix(".gz")
    names = {"ratings.dat": "movies.dat", "ratings.csv": "movies.csv", "u.data": "u.item"}
    name = names.get(stem)
    if name is None and stem.endswith(".inter"):
        # RecBole's own splits are called data.train.inter; the items stay data.item.
        name = f"{stem.split('.')[0]}.item"
    candidates = [log.with_name(name), log.with_name(f"{name}.gz")] if name else []
    return next((path for path in candidates if path.is_file()), None)


def read_items(path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read one item file.

    Raises:
        InputError: the file cannot be read, or no column looks like an item id.
    """
    suffix = formats.suffix_of(path)
    if path.name.removesuffix(".gz") == "u.item":
        text = open_text(path, path.name)
        frame, notes = _read_ml100k(text), text.notes
    elif suffix == ".dat":
        text = open_text(path, path.name)
        frame, notes = _read_movielens(text), text.notes
    else:
        table = formats.open_source(path, "recbole" if suffix == ".item" else None)
        frame, notes = _read_table(table, token_seq=suffix == ".item"), table.notes
    return _tidied(frame, path.name, tuple(f"{path.name}: {note}" for note in notes))


def _read_movielens(text: TextFile) -> pl.DataFrame:
    """``id::Title (1999)::Drama|War``; a title may itself hold ``::``."""
    groups = pl.col("line").str.extract_groups(r"^(.*?)::(.*)::(.*?)\s*$").struct
    with plainly(text.place):
        return (
            lines_of(text)
            .select(
                groups.field("1").alias("item_id"),
                groups.field("2").alias("title"),
                _split(groups.field("3"), "|").alias("categories"),
            )
            .collect()
        )


def _read_ml100k(text: TextFile) -> pl.DataFrame:
    names = ["item_id", "title", "released", "video", "url", *_ML100K_GENRES]
    with plainly(text.place):
        frame = pl.read_csv(
            text.source,
            has_header=False,
            separator="|",
            quote_char=None,
            schema=dict.fromkeys(names, pl.String),
            missing_columns="insert",
        )
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _ML100K_GENRES[1:]]
    categories = pl.concat_list(flags).list.drop_nulls().alias("categories")
    return frame.select("item_id", "title", categories)


def _read_table(table: Table, *, token_seq: bool) -> pl.DataFrame:
    names = table.names()
    item = _first_named(names, ITEM_NAMES)
    if item is None and not table.headed and names:
        item = names[0]
    if item is None:
        raise InputError(
            f"{table.place}: no column looks like an item id (columns: {listed(names)}). Call it "
            "item_id."
        )
    free = [name for name in names if name != item]
    title = _first_named(free, _TITLES)
    if title is None and not table.headed:
        title = next(iter(free), None)
    categories = _first_named(free, _CATEGORIES)
    text = _first_named([n for n in free if n != title], _TEXTS)
    chosen = {"item_id": item, "title": title, "categories": categories, "text": text}
    frame = table.read({role: name for role, name in chosen.items() if name})
    if categories:
        frame = frame.with_columns(_as_list(frame["categories"], token_seq))
    return frame


def _first_named(names: list[str], table: Sequence[str]) -> str | None:
    plain = {re.sub(r"[\W_]+", "", name).lower(): name for name in reversed(names)}
    return next((plain[known] for known in table if known in plain), None)


def _as_list(column: pl.Series, token_seq: bool) -> pl.Series:
    """Categories as lists: real lists, ``["A", "B"]`` written out, or words with a separator."""
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String), strict=False)
    text = pl.lit(column.cast(pl.String, strict=False).str.strip_chars())
    quoted = text.str.extract_all(r""""[^"]*"|'[^']*'""")
    quoted = quoted.list.eval(pl.element().str.slice(1, pl.element().str.len_chars() - 2))
    # One such text in a column says nothing of the others: "[none]" beside "Action|Drama".
    written = text.str.contains(r"^\[.*\]$") & ((quoted.list.len() > 0) | (text == "[]"))
    words = pl.select(text.filter(~written)).to_series()
    marks = ["|", ";", ","] + ([" "] if token_seq else [])
    mark = next((m for m in marks if words.str.contains(m, literal=True).any()), "|")
    lists = pl.when(written).then(quoted).otherwise(_split(text, mark))
    return pl.select(lists).to_series().alias(column.name)


def _split(expression: pl.Expr, mark: str) -> pl.Expr:
    parts = expression.str.split(mark).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(~pl.element().is_in(_NO_CATEGORIES)))


def _tidied(
    frame: pl.DataFrame, place: str, notes: tuple[str, ...]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    frame = frame.with_columns(whole_again(frame["item_id"]))
    plain = [
        pl.col(name).cast(pl.String, strict=False).str.strip_chars().replace("", None)
        for name in ("item_id", "title", "text")
        if name in frame.columns
    ]
    named = frame.with_columns(plain).filter(pl.col("item_id").is_not_null())
    require_rows(named, place)
    one = named.unique("item_id", keep="first", maintain_order=True)
    if named.height < frame.height:
        notes += (
            f"{place}: {counted(frame.height - named.height, 'row')} without an item id left out",
        )
    if one.height < named.height:
        notes += (f"{place}: {counted(named.height - one.height, 'repeated item')} left out",)
    return one, notes
