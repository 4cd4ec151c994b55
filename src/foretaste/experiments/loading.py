"""From the data section of a recipe to a data set."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from foretaste.data.dataset import Dataset
from foretaste.data.embedded_sets import EMBEDDED_SETS, read_embedded
from foretaste.data.interactions import Interactions
from foretaste.data.reading import read_interactions
from foretaste.errors import InputError
from foretaste.experiments.recipe import DataSection, Recipe

BEGINS_FROM = ("start_from", "codes_from")
"""Fields of models that name a folder."""


def load_dataset(section: DataSection) -> Dataset:
    """Read, filter and number the log that a recipe names.

    Raises:
        InputError: when it cannot be read as asked.
    """
    return Dataset.from_interactions(_read(section), name=section.source)


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with the paths of its data and model absolute: it may be resumed from anywhere."""
    model = {
        name: _absolute(str(value)) if name in BEGINS_FROM and value else value
        for name, value in recipe.model.items()
    }
    return recipe.model_copy(update={"data": located(recipe.data), "model": model})


def located(section: DataSection) -> DataSection:
    """The section with its paths made absolute, so that a run can be opened from anywhere.

    ``~`` is the home folder, as where a log is read; an empty path stays, for that to refuse.
    """
    changed = {
        name: _absolute(value)
        for name in ("source", "items")
        if (value := getattr(section, name)) and not (name == "source" and _is_embedded(value))
    }
    return section.model_copy(update=changed)


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).absolute())


def _is_embedded(source: str) -> bool:
    return source in {known.name for known in EMBEDDED_SETS}


def _read(section: DataSection) -> Interactions:
    options = section.model_dump(exclude={"source", "k_core"})
    options["k_core"] = section.k_core or None
    if not _is_embedded(section.source):
        return read_interactions(section.source, **options)
    for field, own in (("items", "titles"), ("format", "format")):
        if (value := getattr(section, field)) is not None:
            raise InputError(
                f"--{field} {value}: {section.source} comes with its own {own}. Leave it out."
            )
    embedded = read_embedded(section.source)
    filtered = read_interactions(embedded.frame, **options)
    return replace(filtered, items=embedded.items, source=embedded.source)
