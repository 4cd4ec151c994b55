"""Vectors of texts kept on disk: one SQLite file, found by content, safe to stop at any moment."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from foretaste.errors import InputError, WriteError
from foretaste.language.database import transaction
from foretaste.storage import CACHE, OFF, cache_folder

logger = logging.getLogger(__name__)
Found = TypeVar("Found")

FILE = "vectors.sqlite"
"""The cache of every program that names none, in ``cache_folder``."""

KEYS_AT_ONCE = 500
"""Keys of one question; SQLite allows 999 in its oldest versions."""


class VectorCache:
    """Vectors by the hash of what made them: the model with its settings, and the text.

    Several processes may use one file. What was put is there after a crash, whole or not at all.
    """

    def __init__(self, path: Path | str) -> None:
        """Open or make the file.

        Raises:
            InputError: when it is there and is no cache, or the folder cannot be written.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path.parent}: cannot make the folder ({error.strerror})."
            ) from error
        with transaction(self.path, "cache of vectors") as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) "
                "WITHOUT ROWID"
            )

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors float32 ``[D]`` that are there, by key; damaged ones are not there."""
        found: dict[bytes, np.ndarray] = {}
        with transaction(self.path, "cache of vectors") as database:
            for first in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[first : first + KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                question = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
                for key, blob in database.execute(question, some):
                    if isinstance(blob, bytes) and blob and len(blob) % 4 == 0:
                        vector = np.frombuffer(blob, "<f4")
                        if np.isfinite(vector).all():
                            found[key] = vector
        return found

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep vectors float32 ``[keys, D]``, all of them or, when it fails, none.

        Raises:
            WriteError: when the disk is full or the file cannot be written.
        """
        blobs = [row.tobytes() for row in np.asarray(vectors, "<f4")]
        with transaction(self.path, "cache of vectors") as database:
            database.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)", zip(keys, blobs, strict=True)
            )


class UsualCache(VectorCache):
    """The cache that nobody asked for: what is wrong with it costs time, never the work.

    The file is made when it is first used. When it cannot be used, one line says so and how to mend
    it, and from then on nothing is kept.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self.path = path
        self._opened = self._failed = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """As ``VectorCache``; nothing where it cannot be used."""
        return self._tried(lambda: super(UsualCache, self).get(keys), {})

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """As ``VectorCache``; nothing is kept where it cannot be used."""
        self._tried(lambda: super(UsualCache, self).put(keys, vectors), None)

    def _tried(self, use: Callable[[], Found], otherwise: Found) -> Found:
        if self._failed:
            return otherwise
        try:
            if not self._opened:
                super().__init__(self.path)
                self._opened = True
            return use()
        except (InputError, WriteError) as error:
            self._failed = True
            logger.warning(
                "%s Until then vectors of texts are not kept for the next time; %s=%s asks for "
                "that, %s=FOLDER for another place.",
                *(error, CACHE, OFF, CACHE),
            )
            return otherwise


def cache_of(given: Path | str | None) -> VectorCache | None:
    """The cache that is meant.

    Args:
        given: a file; None for the usual one, which ``FORETASTE_CACHE`` moves or turns off; ``off``
            for none.

    Raises:
        InputError: as ``VectorCache``, for a file.
    """
    if given is not None:
        return None if str(given) == OFF else VectorCache(given)
    try:
        folder = cache_folder()
    except RuntimeError:  # a user without a home
        return None
    return None if folder is None else UsualCache(folder / FILE)


def key_of(identity: str, text: str) -> bytes:
    """The key of a text under a model and its settings, which ``identity`` tells apart."""
    digest = hashlib.blake2b(digest_size=16)
    # The length keeps ("ab", "c") apart from ("a", "bc").
    digest.update(f"{len(identity)} {identity} ".encode())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()
