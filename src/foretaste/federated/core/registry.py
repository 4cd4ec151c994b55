"""Finding a federated method by its name. A file of the name holds the class."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from foretaste.errors import InputError
from foretaste.suggesting import nearest

if TYPE_CHECKING:
    from foretaste.federated.core.base import FederatedMethod

METHODS = "foretaste.federated"
OTHER_FILES = ("explaining", "gathering", "plan", "running")
"""Files of the package that hold no method."""
_classes: dict[str, type[FederatedMethod]] = {}


def register(name: str, method: type[FederatedMethod]) -> None:
    """Called for every class that declares a ``name``; also for those of other packages."""
    _classes[name] = method


def names() -> list[str]:
    """Names of all methods: the files of the package, and classes that were imported."""
    files = pkgutil.iter_modules(importlib.import_module(METHODS).__path__)
    found = {file.name for file in files if not file.ispkg}
    return sorted((found - set(OTHER_FILES)) | set(_classes))


def find_method(name: str) -> type[FederatedMethod]:
    """The class of this name, imported when it is first asked for.

    Raises:
        InputError: when there is none, with the nearest name.
    """
    if name not in _classes and name in names():
        importlib.import_module(f"{METHODS}.{name}")
    if name not in _classes:
        raise InputError(f'no federated method is called "{name}"{nearest(name, names())}')
    return _classes[name]
