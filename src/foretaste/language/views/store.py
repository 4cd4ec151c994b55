"""Views kept on the device, found by the content of the history, and tables of them to repeat runs.

What made them is part of the key, and so is the catalog, since views hold its item numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError, WriteError
from foretaste.language.database import transaction
from foretaste.language.views.views import KINDS, View, Views

KEYS_AT_ONCE = 500
"""Keys of one question; SQLite allows 999 in its oldest versions."""
_COLUMNS = "future BLOB, rephrasing BLOB, counterfactual BLOB, asked INTEGER, unmatched INTEGER"


class ViewStore:
    """Views in one SQLite file, or in memory. What was put is there after a crash, whole."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or make the file; None keeps all in memory.

        Raises:
            InputError: when it is there and is no store, or the folder cannot be made.
        """
        self.path = path
        self._memory: dict[bytes, Views] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot make the folder ({error.strerror})."
            ) from error
        with transaction(path, "store of views") as database:
            database.execute(
                f"CREATE TABLE IF NOT EXISTS views (key BLOB PRIMARY KEY, {_COLUMNS}) WITHOUT ROWID"
            )

    def get(self, keys: Sequence[bytes], items: int) -> dict[bytes, Views]:
        """What is there, by key: views of one history each.

        A damaged row counts as not there: its views are made anew, and put in its place.

        Args:
            keys: as of ``key_of``.
            items: size of the catalog.
        """
        if self.path is None:
            return {key: self._memory[key] for key in keys if key in self._memory}
        found: dict[bytes, Views] = {}
        with transaction(self.path, "store of views") as database:
            for first in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[first : first + KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                question = f"SELECT * FROM views WHERE key IN ({marks})"
                for key, *blobs, asked, unmatched in database.execute(question, some):
                    rows = [_row(blob, items) for blob in blobs]
                    three = [row for row in rows if row is not None]
                    if len(three) == len(rows) and _is_count(asked) and _is_count(unmatched):
                        found[key] = Views([View(*three)], asked, unmatched)
        return found

    def put(self, views: Mapping[bytes, Views]) -> None:
        """Keep views of one history each, all of them or, when it fails, none.

        Raises:
            WriteError: when the disk is full or the file cannot be written.
        """
        if self.path is None:
            self._memory |= views
            return
        rows = [
            (
                key,
                *(np.asarray(one, "<i4").tobytes() for one in found.rows[0]),
                found.asked,
                found.unmatched,
            )
            for key, found in views.items()
        ]
        with transaction(self.path, "store of views") as database:
            database.executemany("INSERT OR REPLACE INTO views VALUES (?, ?, ?, ?, ?, ?)", rows)


def _row(blob: Any, items: int) -> np.ndarray | None:
    """Items of one view; None if the bytes are none of this catalog."""
    if not isinstance(blob, bytes) or len(blob) % 4:
        return None
    row = np.frombuffer(blob, "<i4")
    return row if not len(row) or (row.min() >= 0 and row.max() < items) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def print_of(catalog: Catalog) -> str:
    """A fingerprint of ids and titles, in the order of item numbers."""
    digest = hashlib.blake2b(digest_size=12)
    for text in (*catalog.item_ids, *catalog.titles):
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(4, "little") + content)
    return digest.hexdigest()


def key_of(history: np.ndarray, *made_by: str) -> bytes:
    """The key of a history (item numbers, oldest first) under what its views depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for text in made_by:
        digest.update(f"{len(text)} {text} ".encode())
    digest.update(np.ascontiguousarray(history, "<i4").tobytes())
    return digest.digest()


def write_table(path: Path, catalog: Catalog, views: Mapping[bytes, View]) -> None:
    """Views as a small Parquet file; keys are ``key_of(history, print_of(catalog))``.

    Raises:
        WriteError: when it cannot be written.
    """
    ordered = sorted(views)
    columns = {
        kind: pl.Series(kind, [views[key][place].tolist() for key in ordered], pl.List(pl.Int32))
        for place, kind in enumerate(KINDS)
    }
    keys = pl.Series("history", ordered, pl.Binary)
    prints = pl.Series("catalog", [print_of(catalog)] * len(ordered), pl.String)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"history": keys, "catalog": prints, **columns}).write_parquet(
            path, compression="zstd", compression_level=19
        )
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error}). Choose another place.") from error


def read_table(path: Path, catalog: Catalog) -> dict[bytes, View]:
    """The views of ``write_table``.

    Raises:
        InputError: when the file is missing, is no such table, or is of another catalog.
    """
    try:
        frame = pl.read_parquet(path, columns=["history", "catalog", *KINDS])
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: no table of views ({reason}). Make it anew.") from error
    lists = all(frame.schema[kind] == pl.List(pl.Int32) for kind in KINDS)
    if not lists or frame.schema["history"] != pl.Binary:
        raise InputError(f"{path}: no table of views (columns of other types). Make it anew.")
    if frame.height and (frame["catalog"] != print_of(catalog)).any():
        raise InputError(
            f"{path}: views of another catalog. Read the data as it was read for the table "
            "(k_core, split), or make the table anew."
        )
    found = {}
    for key, _, *lists_of in frame.iter_rows():
        rows = [np.array(one or [], np.int32) for one in lists_of]
        if any(len(row) and (row.min() < 0 or row.max() >= len(catalog)) for row in rows):
            raise InputError(f"{path}: an item that the catalog does not have. Make it anew.")
        found[key] = View(*rows)
    return found
