"""Vectors of texts kept on disk: one SQLite file, found by content, safe to stop at any moment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foretaste.errors import InputError
from foretaste.language.database import transaction

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


def key_of(identity: str, text: str) -> bytes:
    """The key of a text under a model and its settings, which ``identity`` tells apart."""
    digest = hashlib.blake2b(digest_size=16)
    # The length keeps ("ab", "c") apart from ("a", "bc").
    digest.update(f"{len(identity)} {identity} ".encode())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()
