"""Finding a recommender by its name. Nobody edits a list: a file of the name holds the class."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from foretaste.errors import InputError
from foretaste.suggesting import nearest

if TYPE_CHECKING:
    from foretaste.recommenders.core.base import Recommender

MODELS = "foretaste.recommenders"
_classes: dict[str, type[Recommender]] = {}


def register(name: str, recommender: type[Recommender]) -> None:
    """Called for every class that declares a ``name``; also for those of other packages."""
    _classes[name] = recommender


def names() -> list[str]:
    """Names of all recommenders: the files of the package, and classes that were imported."""
    files = pkgutil.iter_modules(importlib.import_module(MODELS).__path__)
    return sorted({file.name for file in files if not file.ispkg} | set(_classes))


def find(name: str) -> type[Recommender]:
    """The class of this name, imported when it is first asked for.

    Raises:
        InputError: when there is none, with the nearest name.
    """
    if name not in _classes and name in names():
        importlib.import_module(f"{MODELS}.{name}")
    if name not in _classes:
        raise InputError(f'no recommender is called "{name}"{nearest(name, names())}')
    return _classes[name]
