"""Named arrays in safetensors files that appear whole or not at all. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.errors import InputError, WriteError

FORMAT = 1
AGAIN = "Restore it, or train again into another folder."
CACHE = "FORETASTE_CACHE"
"""Variable that names the folder of what can be made again, or is ``off``."""
OFF = "off"


def cache_folder() -> Path | None:
    """Where what can be made again is kept from one program to the next; None for ``off``.

    ``FORETASTE_CACHE``, or else ``foretaste`` in the user's own folder for such things.
    """
    if (named := os.environ.get(CACHE, "")) == OFF:
        return None
    return Path(named).expanduser() if named else users_cache()


def users_cache() -> Path:
    """The folder that ``cache_folder`` takes when nothing is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foretaste"


def write_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    about: dict[str, Any] | None = None,
    *,
    secret: bool = False,
) -> None:
    """Write arrays, and a small JSON-able ``about``, to ``path`` in one step.

    Folders on the way are made. A crash or a full disk leaves the old file as it was. What is
    ``secret`` nobody but the owner of the file may read, from its first byte on.

    Raises:
        WriteError: when the disk is full or the folder cannot be written.
    """
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, **(about or {})})
    metadata = {"about": text, "crc32": _checksum(whole, text)}
    size = sum(array.nbytes for array in whole.values())
    mode = 0o600 if secret else 0o644
    _replace(path, lambda partial: save_file(whole, partial, metadata), size, mode)


def write_whole(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file in one step: beside it first, then in its place.

    ``mode`` is who may read it, less what the umask of the process forbids.

    Raises:
        WriteError: when the disk is full or the folder cannot be written.
    """
    _replace(path, lambda partial: partial.write_bytes(content), len(content), mode)


def _replace(path: Path, write: Callable[[Path], object], size: int, mode: int = 0o644) -> None:
    from safetensors import SafetensorError

    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise WriteError(f"{path}: is no plain file, so nothing was written. Choose another name.")
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(mode)  # before anything is in it; less what the user's umask forbids
        mode = partial.stat().st_mode & 0o777
        write(partial)
        partial.chmod(mode)  # safetensors would let nobody else read it
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"{path}: cannot write {size:,} bytes ({reason}). "
            "Free some space or choose another folder; what was there is untouched."
        ) from error


def _checksum(arrays: dict[str, np.ndarray], about: str) -> str:
    """Of all that a file says; safetensors itself does not notice a changed byte."""
    checksum = zlib.crc32(about.encode())
    for name, array in sorted(arrays.items()):
        head = f"{name} {array.dtype.str} {array.shape}"
        checksum = zlib.crc32(head.encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return f"{checksum:08x}"


def read_arrays(path: Path, *, again: str = AGAIN) -> dict[str, np.ndarray]:
    """The arrays of a file that ``write_arrays`` wrote; ``again`` says how to get another.

    Raises:
        InputError: when it is missing, cut short, not a safetensors file, or of a later version.
    """
    return read_arrays_about(path, again=again)[0]


def read_arrays_about(
    path: Path, *, again: str = AGAIN
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the ``about`` of a file that ``write_arrays`` wrote; see ``read_arrays``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.is_file():
        raise InputError(f"{path}: no such file. {again}")
    try:
        content = path.read_bytes()  # not mapped: cut short meanwhile, that would end the process
        arrays = load(content)
        head = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + head]).get("__metadata__", {})
        if metadata.get("crc32") != _checksum(arrays, metadata.get("about", "")):
            raise ValueError("it is not as it was written")
        about = json.loads(metadata["about"])
        version = about.pop("format", FORMAT)
        if version > FORMAT:
            raise ValueError(f"format {version} of a later version")
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: damaged or not a safetensors file ({reason}). {again}"
        ) from error
    return arrays, about


def checked(
    arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: type
) -> np.ndarray:
    """The array of this name, which must have this shape and type: for ``_set_arrays``.

    Raises:
        KeyError: when there is no such array.
        ValueError: when it is of another shape or type.
    """
    array = arrays[name]
    if array.shape != shape or array.dtype != dtype:
        wanted = f"{np.dtype(dtype).name} {list(shape)}"
        raise ValueError(f"{name} is {array.dtype.name} {list(array.shape)}, not {wanted}")
    return array
