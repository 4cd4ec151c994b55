"""What can be recommended: item ids and, where known, titles, categories and text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from foretaste.errors import InputError
from foretaste.storage import AGAIN

SCHEMA = {
    "item_id": pl.String,
    "title": pl.String,
    "categories": pl.List(pl.String),
    "text": pl.String,
}


@dataclass(frozen=True)
class Catalog:
    """The items of a data set or of a trained model; row ``i`` of the frame is item number ``i``.

    Attributes:
        frame: ``item_id`` String (unique), ``title`` String or null, ``categories``
            List(String) or null, ``text`` String or null.
    """

    frame: pl.DataFrame

    @classmethod
    def from_items(cls, item_ids: pl.Series, known: pl.DataFrame | None) -> Catalog:
        """The catalog of these ids (in this order) with what ``known`` says about them."""
        frame = pl.DataFrame({"item_id": item_ids})
        if known is not None:
            described = known.unique("item_id", keep="first", maintain_order=True)
            frame = frame.join(described, on="item_id", how="left", maintain_order="left")
        columns = [
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in SCHEMA.items()
        ]
        return cls(frame.select(columns))

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def item_ids(self) -> list[str]:
        """The id of every item number."""
        return self.frame["item_id"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        """A name a person can read for every item number: the title, or else the id."""
        return self.frame.select(pl.coalesce("title", "item_id")).to_series().to_list()

    @cached_property
    def categories(self) -> list[list[str]] | None:
        """The categories of every item number, or None when no item has any."""
        column = self.frame["categories"]
        if column.null_count() == len(column):
            return None
        return [value or [] for value in column.to_list()]

    @property
    def has_titles(self) -> bool:
        """Whether any item has a title."""
        return self.frame["title"].null_count() < len(self)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {item_id: number for number, item_id in enumerate(self.item_ids)}

    def numbers(self, item_ids: list[str]) -> np.ndarray:
        """Item numbers int64 ``[ids]`` of these ids; -1 for an id the catalog does not hold."""
        return np.array([self._numbers.get(item_id, -1) for item_id in item_ids], np.int64)

    def take(self, numbers: np.ndarray) -> Catalog:
        """The catalog of these items, in this order."""
        return Catalog(self.frame[numbers.astype(np.int64)])

    def to_bytes(self) -> bytes:
        """The catalog as one Parquet file."""
        buffer = BytesIO()
        self.frame.write_parquet(buffer)
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path, *, again: str = AGAIN) -> Catalog:
        """Read a catalog from a Parquet file (``to_bytes``); ``again`` says how to get another.

        Raises:
            InputError: when the file is missing, damaged or lacks a column of the right type.
        """
        try:
            # Not mapped: a file that is cut short meanwhile would end the process.
            frame = pl.read_parquet(BytesIO(path.read_bytes()))
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: cannot read the catalog ({reason}). {again}") from error
        for name, dtype in SCHEMA.items():
            if frame.schema.get(name) != dtype:
                raise InputError(
                    f"{path}: the catalog needs a column {name} of type {dtype}. {again}"
                )
        return cls(frame.select(*SCHEMA))
