"""From the data section of a recipe to a data set."""

from __future__ import annotations

from dataclasses import replace

from foretaste.data.dataset import Dataset
from foretaste.data.embedded_sets import EMBEDDED_SETS, read_embedded
from foretaste.data.interactions import Interactions
from foretaste.data.reading import read_interactions
from foretaste.experiments.recipe import DataSection


def load_dataset(section: DataSection) -> Dataset:
    """Read, filter and number the log that a recipe names.

    Raises:
        InputError: when it cannot be read as asked.
    """
    interactions = _read(section)
    return Dataset.from_interactions(interactions, name=section.source, k_core=section.k_core)


def _read(section: DataSection) -> Interactions:
    options = section.model_dump(exclude={"source", "k_core"})
    options["k_core"] = section.k_core or None
    if section.source not in {known.name for known in EMBEDDED_SETS}:
        return read_interactions(section.source, **options)
    embedded = read_embedded(section.source)
    filtered = read_interactions(embedded.frame, **{**options, "items": None})
    return replace(filtered, items=embedded.items, source=embedded.source)
