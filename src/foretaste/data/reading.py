"""The door of the package: any log to Interactions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import polars as pl

from foretaste.data import filtering, item_files
from foretaste.data.columns import guess_columns
from foretaste.data.filtering import Duplicates
from foretaste.data.formats import open_source
from foretaste.data.frames import open_frame
from foretaste.data.interactions import ColumnGuess, Interactions
from foretaste.data.sources import (
    Table,
    counted,
    first_row,
    nearest,
    require_rows,
    rows_where,
    shown,
    whole_again,
)
from foretaste.data.timestamps import to_milliseconds
from foretaste.errors import EmptyLogError, InputError

# What pandas and databases write where a value is missing.
_MISSING_WORDS = ("", "nan", "NaN", "NAN", "<NA>", "null", "NULL")


def read_interactions(
    source: Any,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    time_col: str | None = None,
    rating_col: str | None = None,
    format: str | None = None,
    min_rating: float | None = None,
    k_core: int | None = None,
    duplicates: Duplicates = "first",
    items: str | Path | None = None,
) -> Interactions:
    """Read a log of who met which item, when.

    Ids stay text ("0104257" keeps its zero; blanks around them go). Rows keep the order of the
    source. Filters apply in the order of the arguments below, and each says in ``notes`` what it
    left out. Columns that play no role are not read.

    Args:
        source: a file, folder or glob (CSV, TSV, JSONL, Parquet, MovieLens ``.dat`` and
            ``u.data``, RecBole ``.inter``, one user per line; text also gzipped), or a Polars,
            pandas or Arrow frame.
        user_col: the column of users; None guesses it from names and values.
        item_col: the column of items, likewise.
        time_col: the column of times, likewise; ``""`` says that there is none, and the order of
            the rows is the time.
        rating_col: the column of ratings, likewise; ``""`` says that there is none.
        format: one of ``foretaste.data.formats.FORMATS``; None tells it from the file. A frame
            has none.
        min_rating: keep rows rated this or higher.
        duplicates: of a user's events with one item keep the ``"first"`` or ``"last"`` by time,
            or ``"keep"`` all. Rows equal in user, item and time are one event in any case.
        k_core: keep the part of the log where every user and item has at least this many events.
        items: a file of item titles, categories and text (CSV, TSV, JSONL, Parquet, ``.dat``,
            ``.item``); None looks beside the log for those of MovieLens and RecBole.

    Raises:
        InputError: the log cannot be read as asked; the message is one line that names the
            value, the place and the way out.
    """
    _check_options(min_rating, k_core, duplicates)
    named = tuple(name for name in (user_col, item_col, time_col, rating_col) if name)
    if format is not None and not _is_path(source):
        raise InputError(f'format = "{shown(format)}": a frame is of none. Leave it out.')
    table = open_source(source, format, named) if _is_path(source) else open_frame(source)
    guess = _roles(table, user_col, item_col, time_col, rating_col)
    raw, notes = _collect(table, guess)
    frame, left = _converted(raw, guess, table.place, rating_col or min_rating is not None)
    if "rating" not in frame.columns and guess.rating:
        guess = ColumnGuess(guess.user, guess.item, guess.time, None, _without_rating(guess))
    frame, filtered = _filtered(frame, table.place, min_rating, duplicates, k_core)
    if guess.time is None:
        position = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id")
        frame = frame.with_columns(timestamp=position)
    frame = frame.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    known, item_notes = item_files.find_items(items, table.path)
    if items is not None and known is not None:
        item_notes += _told(str(items), known["item_id"], frame["item_id"].unique())
    return Interactions(
        frame=frame,
        items=known,
        source=str(source) if _is_path(source) else table.place,
        columns=guess,
        has_time=guess.time is not None,
        notes=(*table.notes, *notes, *left, *filtered, *item_notes),
        k_core=k_core or 0,
    )


def _told(place: str, known: pl.Series, met: pl.Series) -> tuple[str, ...]:
    """How many of the log's items a file tells of, where it is not all."""
    told = int(met.is_in(known.implode()).sum())
    if not told:
        raise InputError(
            f'{place}: none of its items is in the log (its first is "{shown(known[0])}", one of '
            f'the log "{shown(met[0])}"). Call the column of ids item_id, or choose another file.'
        )
    items = counted(len(met), "item")
    return () if told == len(met) else (f"{place}: tells of {told:,} of the log's {items}",)


def _is_path(source: object) -> bool:
    return isinstance(source, str | Path)


def _check_options(min_rating: float | None, k_core: int | None, duplicates: str) -> None:
    known = get_args(Duplicates)
    if duplicates not in known:
        raise InputError(
            f'duplicates="{shown(duplicates)}" is none of {", ".join(known)}.'
            f"{nearest(str(duplicates), known)}"
        )
    if k_core is not None and (isinstance(k_core, bool) or k_core < 1):
        raise InputError(f"k_core={k_core} must be a whole number from 1; 1 keeps everything.")
    if min_rating is not None and not math.isfinite(min_rating):
        raise InputError(f"min_rating={min_rating} must be a finite number, as in the log.")


def _roles(table: Table, *columns: str | None) -> ColumnGuess:
    user, item, time, rating = columns
    if table.roles is not None and user is None and item is None and not time and not rating:
        return ColumnGuess(*table.roles, None, None)
    sample = table.sample()
    require_rows(sample, table.place)
    return guess_columns(
        sample,
        table.place,
        user_col=user,
        item_col=item,
        time_col=time,
        rating_col=rating,
        headed=table.headed,
    )


def _collect(table: Table, guess: ColumnGuess) -> tuple[pl.DataFrame, list[str]]:
    """Read the columns that play a role, under the names of their roles."""
    roles = {"user_id": guess.user, "item_id": guess.item}
    roles |= {"timestamp": guess.time} if guess.time else {}
    roles |= {"rating": guess.rating} if guess.rating else {}
    raw = table.read(roles)
    if not table.overflow:
        return raw, []
    filled = raw.filter(pl.any_horizontal(pl.all().is_not_null()))
    require_rows(filled, table.place)
    blank = raw.height - filled.height
    return filled, [f"{counted(blank, 'blank row')} left out"] if blank else []


def _converted(
    raw: pl.DataFrame, guess: ColumnGuess, place: str, rating_wanted: object
) -> tuple[pl.DataFrame, list[str]]:
    columns = [
        _ids(raw["user_id"], guess.user, "user", place),
        _ids(raw["item_id"], guess.item, "item", place),
    ]
    notes: list[str] = []
    if guess.time is None:
        # Until the filters are through, the place in the log stands for the time.
        columns.append(pl.int_range(raw.height, dtype=pl.Int64, eager=True).alias("timestamp"))
    else:
        times = raw["timestamp"].alias(guess.time)
        columns.append(to_milliseconds(times, place).alias("timestamp"))
    if guess.rating is not None:
        rating, note = _ratings(raw["rating"], guess.rating, place, bool(rating_wanted))
        notes += [note] if note else []
        columns += [] if rating is None else [rating]
    return pl.DataFrame(columns), notes


def _ids(column: pl.Series, name: str, role: str, place: str) -> pl.Series:
    """Ids as text, numbered for the filters."""
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | ~column.is_finite()
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        raise InputError(
            f'{place}: column "{name}" holds {column.dtype} values, not {role} ids. Name another '
            f"column with --{role}-col."
        )
    text = whole_again(column).cast(pl.String).str.strip_chars()
    missing = missing | text.is_in(_MISSING_WORDS).fill_null(False)
    if missing.any():
        raise InputError(
            f'{place}: column "{name}" has no {role} id in {rows_where(missing)}. Leave those rows '
            f"out, or name another column with --{role}-col."
        )
    return filtering.numbered(text).alias(f"{role}_id")


def _ratings(
    column: pl.Series, name: str, place: str, wanted: bool
) -> tuple[pl.Series | None, str | None]:
    """Ratings as Float64, null where there is none; a column of words is no rating.

    Args:
        column: the values.
        name: the column of the source.
        place: the source in messages.
        wanted: an option relies on the column, so words in it are an error.
    """
    if column.dtype == pl.String:
        column = column.str.strip_chars().replace(["", "nan", "NaN", "NULL", "null"], None)
    ratings = None
    if column.dtype == pl.String or column.dtype.is_numeric() or column.dtype == pl.Boolean:
        ratings = column.cast(pl.Float64, strict=False).fill_nan(None).alias("rating")
        odd = (ratings.is_null() & column.is_not_null()) | ratings.is_infinite().fill_null(False)
        if column.dtype.is_float():
            odd = odd & ~column.is_nan().fill_null(False)
    else:
        odd = column.is_not_null()
    if ratings is None or odd.any():
        row = first_row(odd)
        value = shown(column[row - 1])
        if wanted:
            raise InputError(
                f'{place}: rating "{value}" in column "{name}" (data row {row}) is not a '
                'number. Name another column with --rating-col, or none with --rating-col "".'
            )
        return None, f'column "{name}" is not read as a rating: "{value}" is not a number'
    gaps = ratings.null_count()
    return ratings, f"no rating in {counted(gaps, 'row')}" if gaps else None


def _without_rating(guess: ColumnGuess) -> tuple[str, ...]:
    return tuple(role for role in guess.guessed if role != "rating")


def _filtered(
    frame: pl.DataFrame,
    place: str,
    min_rating: float | None,
    duplicates: Duplicates,
    k_core: int | None,
) -> tuple[pl.DataFrame, list[str]]:
    notes: list[str] = []
    if min_rating is not None:
        before = frame
        frame = _positives(frame, min_rating, place)
        notes += _noted(before, frame, f"rated below {min_rating:g}")
    before = frame
    frame = filtering.drop_duplicates(frame, duplicates)
    kind = {"first": "an item the user met before", "last": "an item the user met again later"}
    notes += _noted(before, frame, kind.get(duplicates, "equal in user, item and time"))
    if k_core is not None:
        before = frame
        frame = filtering.k_core(frame, k_core)
        if frame.is_empty():
            raise InputError(
                f"{place}: the {k_core}-core is empty: no part of the log gives every user and "
                f"item {k_core} events. Lower --k-core."
            )
        notes += _noted(before, frame, f"outside the {k_core}-core")
    return frame, notes


def _positives(frame: pl.DataFrame, min_rating: float, place: str) -> pl.DataFrame:
    if "rating" not in frame.columns:
        raise InputError(
            f"{place}: min_rating={min_rating:g} needs ratings, and no column looks like one. "
            "Name it with --rating-col."
        )
    missing = frame["rating"].is_null()
    if missing.any():
        raise InputError(
            f"{place}: no rating in {rows_where(missing)}, so min_rating={min_rating:g} cannot "
            "judge them. Leave those rows out, or read without --min-rating."
        )
    kept = filtering.positives(frame, min_rating)
    if kept.is_empty():
        raise EmptyLogError(
            f"{place}: no rating reaches min_rating={min_rating:g}; the highest is "
            f"{frame['rating'].max():g}. Lower --min-rating."
        )
    return kept


def _noted(before: pl.DataFrame, after: pl.DataFrame, reason: str) -> list[str]:
    gone = before.height - after.height
    if not gone:
        return []
    lost = [
        counted(count, name)
        for name, column in (("user", "user_id"), ("item", "item_id"))
        if (count := before[column].n_unique() - after[column].n_unique())
    ]
    return [
        f"{counted(gone, 'row')} left out: {reason}"
        + (f" ({', '.join(lost)} gone)" if lost else "")
    ]
