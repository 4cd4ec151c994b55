"""A source that has been opened but not read: its columns are known, its rows are lazy."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars.selectors as cs  # pl.col reads "*" and "^a$" as patterns

from foretaste.errors import EmptyLogError, InputError

SAMPLE_ROWS = 1_000
"""Rows looked at to tell formats, headers and roles apart."""

# PanicException is Rust's "cannot happen"; it derives from BaseException, so `except Exception`
# would let it through to the user.
_POLARS_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_FILE_FAILURES = (OSError, EOFError, zlib.error)
# pandas and Arrow raise nearly anything when a frame does not fit; ArrowInvalid is a ValueError.
_FRAME_FAILURES = (ValueError, TypeError, OverflowError, NotImplementedError, AttributeError)


@dataclass(frozen=True)
class Table:
    """One log, opened.

    Attributes:
        place: the name of the source in messages.
        rows: the source's columns under the source's names, not read yet.
        headed: False when the source gave no names and the columns were numbered or named by us.
        roles: ``(user, item)`` when the format itself fixes them and the rows carry no more.
        numbered: the users are numbers of lines, which mean something within one file only.
        path: the file (the first of several), to look for an item file beside it; None for frames.
        overflow: name of a column in ``rows`` that is null unless a row has too many fields.
        notes: what was decided while opening.
    """

    place: str
    rows: pl.LazyFrame
    headed: bool = True
    roles: tuple[str, str] | None = None
    numbered: bool = False
    path: Path | None = None
    overflow: str | None = None
    notes: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Columns of the source, in its order."""
        with plainly(self.place):
            names = self.rows.collect_schema().names()
        return [name for name in names if name != self.overflow]

    def sample(self) -> pl.DataFrame:
        """The first rows, at most ``SAMPLE_ROWS``."""
        with plainly(self.place):
            rows = self.rows.select(cs.by_name(self.names()))
            sample = rows.head(SAMPLE_ROWS).collect()
            # Polars stops a head at a quote that never closes, without a word; a full read tells.
            return sample if sample.height else rows.collect(engine="streaming").head(SAMPLE_ROWS)

    def read(self, columns: Mapping[str, str]) -> pl.DataFrame:
        """Columns of the source under other names, ``{"item_id": "sku"}``, at least one row.

        Raises:
            InputError: there is none, or one has more fields than the source has columns.
        """
        surplus = [pl.col(self.overflow).is_not_null()] if self.overflow else []
        chosen = [cs.by_name(column).as_expr().alias(name) for name, column in columns.items()]
        with plainly(self.place):
            rows = self.rows.select(*chosen, *surplus).collect(engine="streaming")
        require_rows(rows, self.place)
        if not self.overflow:
            return rows
        long = rows.get_column(self.overflow)
        if long.any():
            raise InputError(
                f"{self.place}: more than {len(self.names())} fields in {rows_where(long)}. Quote "
                "fields that hold the delimiter; of a log, --format names the kind of file."
            )
        return rows.drop(self.overflow)


@contextmanager
def plainly(place: str, *, frame: bool = False) -> Iterator[None]:
    """Turn whatever the readers below raise into one line that names the place.

    Args:
        place: the source in the message.
        frame: also take what pandas and Arrow raise when a frame cannot be converted.
    """
    failures = _POLARS_FAILURES + _FILE_FAILURES + (_FRAME_FAILURES if frame else ())
    try:
        yield
    except InputError:
        raise
    except failures as error:
        raise InputError(f"{place}: {_first_words(error)}") from error


def _first_words(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file."
    if isinstance(error, PermissionError):
        return "the file may not be read. Change its permissions."
    text = str(error).split("\n\n")[0]
    if "unexpected end of file" in text or isinstance(error, EOFError):
        return "the gzip file is cut short. Copy or download it again."
    if isinstance(error, zlib.error) or type(error).__name__ == "BadGzipFile":
        return f"the gzip file is damaged ({shown(text)}). Copy or download it again."
    if "CSV malformed" in text or text.startswith('could not parse `"'):
        return (
            'a quote (") opens and does not close, or stands inside a field that is not quoted. '
            'Double it ("") inside a quoted field, or take it out.'
        )
    if "error parsing line" in text or "NDJSON line" in text:
        return f"a line is not a JSON object ({shown(text, 80)}). Write one object per line."
    return f"could not be read: {shown(text, 160)}. Check the file, or name its kind with --format."


def shown(value: object, width: int = 40) -> str:
    """A value as it appears inside a message: one line, bounded."""
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def listed(values: Iterable[object], limit: int = 12) -> str:
    """Some values for a message, ``a, b, c``; a long list ends in how many more there are."""
    words = [shown(value) for value in values]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


def counted(count: int, word: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def rows_where(mask: pl.Series) -> str:
    """How many rows a mask marks and which is the first, ``2 rows (first: data row 5)``."""
    return f"{counted(int(mask.sum()), 'row')} (first: data row {first_row(mask)})"


def first_row(mask: pl.Series) -> int:
    """The number of the first marked row, from 1 and without the header."""
    return int(mask.arg_max() or 0) + 1


def nearest(value: str, known: Iterable[str]) -> str:
    """`` Did you mean X?`` with a leading space, or nothing when no known name is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(value.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]}?" if close else ""


def require_utf8(path: Path) -> None:
    """Raise for a name of other bytes: neither Polars nor a recipe or JSON file can hold it."""
    plain = str(path).encode(errors="backslashreplace").decode()
    if plain != str(path):
        raise InputError(f"{plain}: the name is not UTF-8. Rename it.")


def whole_again(ids: pl.Series) -> pl.Series:
    """Whole numbers that pandas made floats, because of a gap, as such; other ids as they are."""
    if not ids.dtype.is_float():
        return ids
    whole = ids.cast(pl.Int64, strict=False)
    present = ids.is_not_null() & ids.is_finite()
    # A number that no Int64 holds has become null, and is not the same.
    return whole if (whole == ids).fill_null(False).filter(present).all() else ids


def require_rows(frame: pl.DataFrame, place: str) -> None:
    """Raise when nothing was read."""
    if frame.is_empty():
        raise EmptyLogError(f"{place}: no rows (a header at most). Is it the right file?")
