"""What tells a model on disk from others of its name: what its files hold."""

from __future__ import annotations

import hashlib
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
