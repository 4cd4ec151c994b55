"""What a catalog says about its items, as one text each."""

from __future__ import annotations

from typing import Literal, get_args

import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError

Field = Literal["title", "categories", "text"]
FIELDS: tuple[Field, ...] = get_args(Field)


def item_texts(catalog: Catalog, fields: tuple[Field, ...] = FIELDS) -> list[str]:
    """One text per item number: its fields, each ended by a full stop and a space.

    An item of which nothing is known has the empty text; its id is not a description.

    Raises:
        InputError: when ``fields`` is empty or names something else.
    """
    unknown = [name for name in fields if name not in FIELDS]
    if unknown or not fields:
        wrong = f'"{unknown[0]}"' if unknown else "none"
        raise InputError(f"text fields: {wrong} given. Choose from {', '.join(FIELDS)}.")
    frame = catalog.frame.with_columns(pl.col("categories").list.drop_nulls().list.join(", "))
    columns = [
        pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name).str.strip_chars())
        for name in fields
    ]
    joined = pl.concat_str(columns, separator=". ", ignore_nulls=True).fill_null("")
    return frame.select(joined.alias("text"))["text"].to_list()
