"""Indexes that were built are kept, so that workers, starts and reloads read what one has built."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from foretaste.errors import InputError, WriteError
from foretaste.nn.item_index import LINK_EFFORT, LINKS, VECTORS_PER_LIST, ItemIndex
from foretaste.recommenders.core.incremental import IncrementalRecommender
from foretaste.serving.indexing import IndexWish, MeasuredIndex, build_index
from foretaste.storage import cache_folder, read_arrays_about, write_arrays

FOLDER = "indexes"
VERSION = 1
"""Of how an index is built and measured; another one builds all anew."""
UNUSED_SECONDS = 30 * 86_400.0
"""After which an index that nobody read is deleted."""

logger = logging.getLogger(__name__)


def kept_index(model: IncrementalRecommender, wish: IndexWish) -> MeasuredIndex:
    """The index of a model from the cache folder (``FORETASTE_CACHE``), or built and put there.

    A file that is damaged, of another model, or that others may write is built anew: faiss trusts
    what it reads. Processes that want the same index wait for the one that builds it.

    Raises:
        MissingExtraError: without faiss.
    """
    try:
        folder = cache_folder()
    except RuntimeError:  # a user without a home
        folder = None
    if folder is None:
        return build_index(model, wish)
    path = folder / FOLDER / f"{_key(model.fingerprint, wish)}.safetensors"
    found = _read(path, model)
    if found is not None:
        return found
    with _one_builds(path.parent):
        found = _read(path, model)  # another has built it meanwhile
        if found is None:
            found = build_index(model, wish)
            _write(path, found)
    return found


def _key(fingerprint: str, wish: IndexWish) -> str:
    """Of all that decides what is built."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        faiss = version("faiss-cpu")
    except PackageNotFoundError:  # another build of it
        faiss = ""
    how = [VERSION, fingerprint, *wish, LINKS, LINK_EFFORT, VECTORS_PER_LIST, faiss]
    return hashlib.blake2b(json.dumps(how).encode(), digest_size=16).hexdigest()


def _read(path: Path, model: IncrementalRecommender) -> MeasuredIndex | None:
    """What a file holds; None when it is not there or cannot be taken."""
    if not path.is_file():
        return None
    try:
        if not _ours(path):
            raise InputError(f"{path}: others may write it.")
        arrays, about = read_arrays_about(path, again="It is built again.")
        index = ItemIndex.from_arrays(arrays, model.item_vectors())
        found = MeasuredIndex(index, float(about["recall"]))
        os.utime(path)
    except (InputError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("the index is built again: %s", " ".join(str(error).split()))
        return None
    return found


def _ours(path: Path) -> bool:
    """Whether this user wrote the file and nobody else can."""
    told = path.stat()
    owner = getattr(os, "getuid", lambda: told.st_uid)()
    return told.st_uid == owner and not told.st_mode & 0o022


def _write(path: Path, found: MeasuredIndex) -> None:
    try:
        _drop_unused(path.parent)
        write_arrays(path, found.index.arrays(), {"recall": found.recall}, secret=True)
    except (WriteError, OSError) as error:
        logger.warning("the index is not kept and will be built again: %s", error)


def _drop_unused(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):  # also what a killed process left
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > UNUSED_SECONDS:
                file.unlink()


@contextmanager
def _one_builds(folder: Path) -> Iterator[None]:
    """One process of this machine at a time, where files can be locked."""
    place = None
    with suppress(ImportError, OSError):
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        place = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(place, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if place is not None:
            os.close(place)
