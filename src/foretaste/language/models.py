"""Models on disk: what tells one from others of its name, and how they are read in silence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def fingerprint(place: Path, size: int = 16) -> str:
    """Of the content of a file, or of all files of a folder with their names; ``size`` bytes."""
    digest, folder = hashlib.blake2b(digest_size=size), place.is_dir()
    for file in sorted(place.rglob("*")) if folder else [place]:
        if not file.is_file():
            continue
        if folder:
            digest.update(f"{file.relative_to(place)} {file.stat().st_size} ".encode())
        with file.open("rb") as content:
            while part := content.read(1 << 22):
                digest.update(part)
    return digest.hexdigest()


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers, which must be installed, draws bars of its own, whoever asked for silence."""
    from transformers.utils import logging  # pyright: ignore[reportMissingImports]

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
