"""A code table belongs to a catalog and says when it does not."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from foretaste.codes.table import Codes, catalog_fingerprint
from foretaste.errors import InputError, WriteError
from foretaste.storage import read_arrays, write_arrays


@pytest.fixture
def codes() -> Codes:
    table = np.array([[0, 1], [0, 2], [300, 0]], np.int32)
    ids = pl.Series("item_id", ["a", "bc", "日本"])
    books = (np.ones((301, 2), np.float32), np.zeros((3, 2), np.float32))
    return Codes(ids, table, (301, 3), np.array([[0, 1], [0, 1], [300, 0]], np.int32), books, True)


def test_saved_and_read_again(codes: Codes, tmp_path) -> None:
    path = tmp_path / "deep" / "codes.safetensors"
    codes.save(path)
    again = Codes.load(path)
    assert again.item_ids.to_list() == ["a", "bc", "日本"]
    assert again.table.dtype == np.int32
    for name in ("table", "nearest"):
        assert np.array_equal(getattr(again, name), getattr(codes, name))
    assert all(map(np.array_equal, again.codebooks, codes.codebooks))
    assert (again.sizes, again.ordered) == ((301, 3), True)
    assert again.fingerprint == codes.fingerprint
    assert again.moved.tolist() == [False, True, False]


def test_fingerprints_tell_catalogs_apart() -> None:
    prints = [["a", "b"], ["b", "a"], ["ab", ""], ["a", "b", ""], []]
    assert len({catalog_fingerprint(ids) for ids in prints}) == 5
    assert catalog_fingerprint(["a"]) == catalog_fingerprint(pl.Series("other", ["a"]))


def test_codes_of_another_catalog_are_refused(codes: Codes) -> None:
    codes.require(["a", "bc", "日本"])
    with pytest.raises(InputError, match=r'codes of another catalog \(3 items, here 2; item "x"'):
        codes.require(["a", "x"])
    with pytest.raises(InputError, match="in another order"):
        codes.require(["bc", "a", "日本"])


def test_codes_of_a_part_of_the_catalog(codes: Codes) -> None:
    part = codes.for_items(["日本", "a"])
    assert part.table.tolist() == [[300, 0], [0, 1]]
    assert part.item_ids.to_list() == ["日本", "a"]
    with pytest.raises(InputError, match='2 items have no codes, "x" among them'):
        codes.for_items(["a", "x", "y"])


def test_new_items_come_after(codes: Codes) -> None:
    longer = codes.with_items(["new"], np.array([[7, 2]], np.int32))
    assert longer.for_items(["new"]).table.tolist() == [[7, 2]]
    assert len(longer) == 4
    with pytest.raises(InputError, match=r'items "a" and "new" have the same codes \[0, 1\]'):
        codes.with_items(["new"], np.array([[0, 1]], np.int32))
    with pytest.raises(InputError, match='item "a" is there twice'):
        codes.with_items(["a"], np.array([[7, 2]], np.int32))


def test_codes_that_do_not_fit_are_refused(codes: Codes) -> None:
    with pytest.raises(InputError, match="outside 0..size-1"):
        replace(codes, sizes=(300, 3))
    with pytest.raises(InputError, match="do not fit 3 item ids and 1 sizes"):
        replace(codes, sizes=(301,))


def test_a_damaged_file_is_refused(codes: Codes, tmp_path) -> None:
    path = tmp_path / "codes.safetensors"
    with pytest.raises(InputError, match="no such file"):
        Codes.load(path)
    codes.save(path)
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match="damaged or not a safetensors file"):
            Codes.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        Codes.load(path)
    write_arrays(path, {"x": np.zeros(1)}, {"sizes": [], "ordered": True})
    with pytest.raises(InputError, match="not a whole file of codes"):
        Codes.load(path)


def test_a_file_of_a_later_version_is_refused(tmp_path) -> None:
    path = tmp_path / "codes.safetensors"
    write_arrays(path, {"x": np.zeros(1)}, {"format": 99})
    with pytest.raises(InputError, match="format 99 of a later version"):
        read_arrays(path)


def test_what_was_there_stays_when_writing_fails(codes: Codes, tmp_path, monkeypatch) -> None:
    path = tmp_path / "codes.safetensors"
    codes.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        codes.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
