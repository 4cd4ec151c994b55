"""Named arrays in one safetensors file that appears whole or not at all. Nothing is unpickled."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.errors import InputError, WriteError

FORMAT = 1


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays and a small JSON-able ``about`` in one step.

    Raises:
        WriteError: when the disk is full or the folder cannot be written; what was there stays.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, **about})
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(whole, partial, {"about": text, "crc32": _checksum(whole, text)})
        partial.chmod(0o644)  # safetensors would let nobody else read it
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"{path}: cannot write the codes ({reason}). Free some space or choose another place; "
            "what was there is untouched."
        ) from error


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the ``about`` of a file that ``write_arrays`` wrote.

    Raises:
        InputError: when it is missing, damaged, or of a later version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such file. Make one with: foretaste codes fit")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        if metadata.get("crc32") != _checksum(arrays, metadata.get("about", "")):
            raise ValueError("it is not as it was written")
        about = json.loads(metadata["about"])
        if about["format"] > FORMAT:
            raise ValueError(f"format {about['format']} of a later version")
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: damaged or not a file of codes ({reason}). Fit the codes again."
        ) from error
    return arrays, about


def _checksum(arrays: Mapping[str, np.ndarray], about: str) -> str:
    """Of all that a file says; safetensors itself does not notice a changed byte."""
    checksum = zlib.crc32(about.encode())
    for name, array in sorted(arrays.items()):
        head = f"{name} {array.dtype.str} {array.shape}"
        checksum = zlib.crc32(head.encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return f"{checksum:08x}"
