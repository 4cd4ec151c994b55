"""Finding a class by its name. Nobody edits a list: a file of the name holds the class."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection
from typing import Generic, TypeVar

from foretaste.errors import InputError
from foretaste.suggesting import nearest

Kind = TypeVar("Kind")


class Registry(Generic[Kind]):
    """The classes of a package, each imported when it is first asked for.

    Attributes:
        classes: those that were imported, by name; a class enters when it is defined.
    """

    def __init__(self, package: str, kind: str, *, others: Collection[str] = ()) -> None:
        """A registry.

        Args:
            package: where the files lie.
            kind: what a class is called in messages.
            others: files of the package that hold no such class.
        """
        self.package, self.kind, self.others = package, kind, frozenset(others)
        self.classes: dict[str, type[Kind]] = {}

    def register(self, name: str, found: type[Kind]) -> None:
        """Called for every class that declares a ``name``; also for those of other packages."""
        self.classes[name] = found

    def names(self) -> list[str]:
        """Those of the files of the package, and of classes that were imported."""
        files = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        held = {file.name for file in files if not file.ispkg} - self.others
        return sorted(held | set(self.classes))

    def find(self, name: str) -> type[Kind]:
        """The class of this name.

        Raises:
            InputError: when there is none, with the nearest name.
        """
        if name not in self.classes and name in self.names():
            importlib.import_module(f"{self.package}.{name}")
        if name not in self.classes:
            raise InputError(f'no {self.kind} is called "{name}"{nearest(name, self.names())}')
        return self.classes[name]
