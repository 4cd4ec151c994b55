"""One text for each item."""

from __future__ import annotations

import polars as pl
import pytest

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError
from foretaste.language.texts import item_texts


@pytest.fixture
def catalog() -> Catalog:
    known = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": [" Alien ", None, ""],
            "categories": [["Horror", None, "Sci-Fi"], [], None],
            "text": ["A ship.", "Only a text", None],
        }
    )
    return Catalog.from_items(pl.Series("item_id", ["a", "b", "c", "d"]), known)


def test_fields_are_joined_and_missing_ones_left_out(catalog: Catalog) -> None:
    assert item_texts(catalog) == ["Alien. Horror, Sci-Fi. A ship.", "Only a text", "", ""]
    assert item_texts(catalog, ("title",)) == ["Alien", "", "", ""]


def test_a_catalog_of_ids_alone_has_empty_texts() -> None:
    assert item_texts(Catalog.from_items(pl.Series("item_id", ["x", "y"]), None)) == ["", ""]


@pytest.mark.parametrize(("fields", "wrong"), [((), "none"), (("name",), '"name"')])
def test_unknown_fields_are_refused(catalog: Catalog, fields, wrong: str) -> None:
    with pytest.raises(InputError, match=f"{wrong} given. Choose from title, categories, text"):
        item_texts(catalog, fields)
