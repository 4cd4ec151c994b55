"""What a catalog knows about its items, and what it does without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foretaste.data.catalog import SCHEMA, Catalog
from foretaste.errors import InputError


@pytest.fixture
def catalog() -> Catalog:
    known = pl.DataFrame(
        {
            "item_id": ["c", "a", "a", "never seen"],
            "title": ["Casablanca", "Alien", "not this one", "Nobody"],
            "categories": [["Drama", "War"], None, ["x"], []],
            "year": [1942, 1979, 0, 0],
        }
    )
    return Catalog.from_items(pl.Series(["a", "b", "c"]), known)


def test_items_keep_their_order_and_the_first_description(catalog: Catalog) -> None:
    assert catalog.item_ids == ["a", "b", "c"]
    assert catalog.titles == ["Alien", "b", "Casablanca"]
    assert catalog.categories == [[], [], ["Drama", "War"]]
    assert catalog.frame.schema == pl.Schema(SCHEMA)
    assert catalog.has_titles


def test_numbers_and_back(catalog: Catalog) -> None:
    assert catalog.numbers(["c", "x", "a", ""]).tolist() == [2, -1, 0, -1]
    assert catalog.numbers([]).dtype == np.int64
    assert catalog.take(np.array([2, 0], np.int32)).titles == ["Casablanca", "Alien"]
    assert len(catalog.take(np.empty(0, np.int64))) == 0


@pytest.mark.parametrize(
    "known",
    [
        None,
        pl.DataFrame({"item_id": ["a"], "title": [None], "categories": [None]}),
        pl.DataFrame({"item_id": pl.Series([], dtype=pl.String)}),
    ],
)
def test_nothing_known_still_gives_every_column(known: pl.DataFrame | None) -> None:
    catalog = Catalog.from_items(pl.Series(["a", "b"]), known)
    assert catalog.frame.schema == pl.Schema(SCHEMA)
    assert catalog.titles == ["a", "b"]
    assert catalog.categories is None
    assert not catalog.has_titles


def test_no_items() -> None:
    catalog = Catalog.from_items(pl.Series([], dtype=pl.String), None)
    assert len(catalog) == 0
    assert not catalog.has_titles
    assert catalog.numbers(["a"]).tolist() == [-1]


def test_save_and_load(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "catalog.parquet").write_bytes(catalog.to_bytes())
    assert Catalog.load(tmp_path / "catalog.parquet").frame.equals(catalog.frame)


@pytest.mark.parametrize("size", [0, 3, 200])
def test_a_file_cut_short_is_an_input_error(catalog: Catalog, tmp_path: Path, size: int) -> None:
    path = tmp_path / "catalog.parquet"
    path.write_bytes(catalog.to_bytes())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="cannot read the catalog") as caught:
        Catalog.load(path)
    assert "\n" not in str(caught.value)


def test_another_table_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "catalog.parquet"
    with pytest.raises(InputError, match="cannot read the catalog"):
        Catalog.load(path)
    pl.DataFrame({"item_id": ["a"], "title": ["A"]}).write_parquet(path)
    with pytest.raises(InputError, match="needs a column categories"):
        Catalog.load(path)
    pl.DataFrame({"item_id": [1], "title": ["A"]}).write_parquet(path)
    with pytest.raises(InputError, match="needs a column item_id of type String"):
        Catalog.load(path)
