"""Checks of what a tokenizer is given, with messages of one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl
from pydantic import BaseModel, ValidationError

from foretaste.errors import InputError
from foretaste.suggesting import nearest

ROWS_AT_ONCE = 16_384

LARGEST = 1e15
"""Of a vector's numbers: squared distances and their sums are float32, which ends at 3e38."""

Config = TypeVar("Config", bound=BaseModel)


def check_vectors(vectors: np.ndarray, place: str, *, width: int | None = None) -> None:
    """Raise InputError unless these are rows of numbers up to ``LARGEST``, of this width if any."""
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind != "f":
        raise InputError(
            f"{place}item vectors are {vectors.dtype} {list(vectors.shape)}, not float [items, D]."
        )
    if width is not None and vectors.shape[1] != width:
        raise InputError(
            f"{place}vectors of {vectors.shape[1]} numbers, learnt were {width}. Embed them in the "
            "same way."
        )
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        part = vectors[first : first + ROWS_AT_ONCE]
        wrong = ~np.isfinite(part).all(axis=1)
        if wrong.any():
            raise InputError(
                f"{place}the vector of item {first + int(wrong.argmax())} is not finite. Mend it "
                "or leave the item out."
            )
        largest = np.abs(part).max(axis=1, initial=0).astype(np.float64)
        if (largest > LARGEST).any():
            item = int(largest.argmax())
            raise InputError(
                f"{place}the vector of item {first + item} has a number of size "
                f"{largest[item]:.0e}, beyond {LARGEST:.0e}. Divide all vectors by a number."
            )


def checked_ids(item_ids: Sequence[str] | pl.Series | None, items: int) -> pl.Series:
    """The ids of a catalog as a column, numbers where none are given; each once.

    Raises:
        InputError: when their number is another, or one is there twice.
    """
    chosen: Any = map(str, range(items)) if item_ids is None else item_ids
    ids = pl.Series("item_id", list(chosen), dtype=pl.String)
    if len(ids) != items:
        raise InputError(f"{len(ids):,} item ids for {items:,} vectors. Give one for each.")
    if ids.n_unique() < items:
        twice = ids.filter(ids.is_duplicated())[0]
        raise InputError(f'item "{twice}" is there twice. Give every item once.')
    return ids


def build_config(config: type[Config], values: Mapping[str, Any], place: str) -> Config:
    """A configuration from values, with errors of one line that name ``place``."""
    try:
        return config.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = nearest(field, config.model_fields)
            raise InputError(f'{place}: unknown key "{field}"{known}') from None
        message = first["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        where = f"{field} = {first['input']!r}: " if field else ""
        raise InputError(f"{place}: {where}{message}") from None
