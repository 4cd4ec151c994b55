"""A run as it is served: the model, its fingerprint, its titles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.experiments.run_folder import RunFolder
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.incremental import IncrementalRecommender
from foretaste.recommenders.core.ranker import Ranker
from foretaste.serving.index_cache import kept_index
from foretaste.serving.indexing import IndexWish, MeasuredIndex
from foretaste.serving.searching import TitleSearch
from foretaste.serving.stores import NAMELESS

Incremental = IncrementalRecommender | Ranker
"""A model that can be asked from what is kept of a user."""

FILES = ("model.json", "catalog.parquet", "weights.safetensors")
"""What a model is made of in a run folder."""

Stamp = tuple[tuple[int, int, int, int], ...]
"""Of each of ``FILES``: inode, times of the last change in ns, of the content and of all that is
known of it (its owner, who may read it), size in bytes."""


@dataclass(frozen=True)
class ServedRun:
    """A loaded run. It never changes: a newer one takes its place.

    Attributes:
        name: what requests call it.
        path: the run folder.
        recommender: the model.
        fingerprint: of the model; states of users are kept under it.
        stamp: of the files that it was read from.
        index: an approximate index of the items, when one was wished for.
        loaded: when.
    """

    name: str
    path: Path
    recommender: Recommender
    fingerprint: str
    stamp: Stamp
    index: MeasuredIndex | None = None
    loaded: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def catalog(self) -> Catalog:
        """The items that can be recommended."""
        assert self.recommender.catalog is not None
        return self.recommender.catalog

    @cached_property
    def incremental(self) -> Incremental | None:
        """The model, when it can be asked from what is kept of a user."""
        model = self.recommender
        return model if isinstance(model, Incremental) else None

    @cached_property
    def item_vectors(self) -> Tensor:
        """Of a model that makes a vector of a user, ``[N, D]``: made once, for it never changes."""
        assert isinstance(self.incremental, IncrementalRecommender)
        return self.incremental.item_vectors()

    @cached_property
    def titles(self) -> TitleSearch:
        """Items by title."""
        return TitleSearch(self.catalog, self.recommender.popularity)

    def make_ready(self) -> None:
        """Make now what would keep the first request waiting: seconds, on a large catalog."""
        _ = self.titles
        if isinstance(self.incremental, IncrementalRecommender):
            _ = self.item_vectors


def load_run(name: str, path: Path, wish: IndexWish | None = None) -> ServedRun:
    """Read a run and have it answer once, so that the first user does not wait for that.

    Args:
        name: what requests shall call it.
        path: the run folder.
        wish: for an approximate index; a model that keeps no states is asked exactly all the same.

    Raises:
        InputError: when the run is not finished, a file is missing, damaged or half written, or
            the files do not belong together.
    """
    stamp = stamp_of(path)
    model = RunFolder.open(path).recommender()
    fingerprint = model.fingerprint
    try:
        written = json.loads((path / "model.json").read_text()).get("fingerprint", fingerprint)
    except (OSError, ValueError):  # it changed since it was read a moment ago
        written = None
    if written != fingerprint or stamp is None or stamp != stamp_of(path):
        raise InputError(
            f"{path}: its files do not belong together; is it being written? "
            "If not, train it again: one of them was changed afterwards."
        )
    assert model.catalog is not None
    _warm(model)
    index = None
    if wish is not None and isinstance(model, IncrementalRecommender):
        index = kept_index(model, wish)
    run = ServedRun(name, path, model, fingerprint, stamp, index)
    run.make_ready()
    return run


def _warm(model: Recommender) -> None:
    """The first answer of a model is slower than all others."""
    assert model.catalog is not None
    model.recommend([model.catalog.item_ids[:1]], 1, exclude="none")
    one = Sequences(np.zeros(1, np.int32), np.array([0, 1]), np.zeros(1, np.int64))
    if isinstance(model, IncrementalRecommender):
        model.advance([np.empty((0, model.record_bytes), np.uint8)], one)
    elif isinstance(model, Ranker):
        model.score_records(model.pack(one), one.items)


def stamp_of(path: Path) -> Stamp | None:
    """What tells whether the files of a run have changed; None when one is missing."""
    try:
        found = [(path / name).stat() for name in FILES]
    except OSError:
        return None
    return tuple((one.st_ino, one.st_mtime_ns, one.st_ctime_ns, one.st_size) for one in found)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each run: the folder's, with as many folders above it as tell them apart.

    Raises:
        InputError: when a run is given twice.
    """
    places = [path.absolute() for path in paths]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"{place}: the run is given twice. Name every run once.")
    names = [place.name for place in places]
    depth = 1
    while len(set(names)) < len(names):
        depth += 1
        names = [
            "/".join(place.parts[-depth:]) if names.count(name) > 1 else name
            for place, name in zip(places, names, strict=True)
        ]
    return names


class CatalogNumbers:
    """From a store's own item numbers to those of a catalog, by a table that grows."""

    def __init__(self, catalog: Catalog, store: ItemDictionary) -> None:
        """The table is empty."""
        self._catalog, self._store = catalog, store
        self._table, self._known = np.empty(0, np.int32), 0  # the table has room for more

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Item numbers int32 of the store's ``numbers`` (uint32); -1 outside the catalog and for
        NAMELESS.

        Raises:
            StoreError: when the store has to be asked and does not answer.
        """
        if not len(numbers):
            return np.empty(0, np.int32)
        highest = int(numbers.max())
        if highest == NAMELESS:  # which is above all that have a name
            named = numbers != NAMELESS
            found = np.full(len(numbers), -1, np.int32)
            found[named] = self.of(numbers[named])
            return found
        if highest >= self._known:
            self._learn(highest + 1)
        return self._table.take(numbers)

    def _learn(self, needed: int) -> None:
        """Ask the store for the ids up to number ``needed - 1``."""
        texts = self._store.item_ids(np.arange(self._known, needed))
        if needed > len(self._table):  # by doubling: a new item may come with every event
            grown = np.empty(max(needed, 2 * len(self._table)), np.int32)
            grown[: self._known] = self._table[: self._known]
            self._table = grown
        self._table[self._known : needed] = self._catalog.numbers(texts)
        self._known = needed


class ItemDictionary(Protocol):
    """The part of a store that knows item ids by number."""

    def item_ids(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """The ids behind these numbers."""
        ...
