"""Sequences do what plain lists of lists do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

ROWS = st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=8)


def timed(rows: list[list[int]]) -> Sequences:
    """Rows whose event number ``n`` over all rows has time ``n``."""
    sequences = Sequences.from_lists(rows)
    return Sequences(sequences.items, sequences.offsets, np.arange(sequences.events))


def lists(sequences: Sequences) -> list[list[int]]:
    return [row.tolist() for row in sequences]


def times(sequences: Sequences) -> list[list[int]]:
    assert sequences.times is not None
    return lists(Sequences(sequences.times, sequences.offsets))


def event_numbers(rows: list[list[int]]) -> list[list[int]]:
    """What ``times`` of ``timed(rows)`` must be."""
    number = iter(range(sum(map(len, rows))))
    return [[next(number) for _ in row] for row in rows]


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_from_lists_and_back(rows: list[list[int]]) -> None:
    sequences = Sequences.from_lists(rows)
    assert lists(sequences) == rows
    assert len(sequences) == len(rows)
    assert sequences.events == sum(map(len, rows))
    assert sequences.lengths.tolist() == [len(row) for row in rows]
    assert sequences.rows.tolist() == [n for n, row in enumerate(rows) for _ in row]
    assert sequences.items.dtype == np.int32
    assert sequences.offsets.dtype == np.int64


@given(ROWS.filter(len), st.data())
@settings(max_examples=50, deadline=None)
def test_take(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    taken = timed(rows).take(np.array(chosen, np.int64))
    assert lists(taken) == [rows[row] for row in chosen]
    assert times(taken) == [event_numbers(rows)[row] for row in chosen]


@given(ROWS, st.integers(0, 7))
@settings(max_examples=50, deadline=None)
def test_first_and_last(rows: list[list[int]], length: int) -> None:
    first, last = timed(rows).first(length), timed(rows).last(length)
    assert lists(first) == [row[:length] for row in rows]
    assert lists(last) == [row[max(len(row) - length, 0) :] for row in rows]
    assert times(first) == [row[:length] for row in event_numbers(rows)]
    assert times(last) == [row[max(len(row) - length, 0) :] for row in event_numbers(rows)]


@given(ROWS, st.data())
@settings(max_examples=50, deadline=None)
def test_where(rows: list[list[int]], data: st.DataObject) -> None:
    events = sum(map(len, rows))
    keep = data.draw(st.lists(st.booleans(), min_size=events, max_size=events))
    kept = timed(rows).where(np.array(keep, bool))
    numbers = event_numbers(rows)
    assert times(kept) == [[n for n in row if keep[n]] for row in numbers]
    flat = [item for row in rows for item in row]
    assert lists(kept) == [[flat[n] for n in row if keep[n]] for row in numbers]
    assert kept.offsets.dtype == np.int64


@given(st.lists(st.lists(st.integers(-1, 5), max_size=6), max_size=8), st.permutations(range(6)))
@settings(max_examples=50, deadline=None)
def test_renumbered_leaves_minus_one(rows: list[list[int]], numbers: list[int]) -> None:
    called = Sequences.from_lists(rows).renumbered(np.array(numbers))
    assert lists(called) == [[-1 if i < 0 else numbers[i] for i in row] for row in rows]
    assert called.items.dtype == np.int32


@given(st.lists(st.lists(st.integers(-1, 4), max_size=8), max_size=6))
@settings(max_examples=100, deadline=None)
def test_repeats(rows: list[list[int]]) -> None:
    expected = [item in row[:place] for row in rows for place, item in enumerate(row)]
    assert Sequences.from_lists(rows).repeats.tolist() == expected


def test_rows_are_found_from_both_ends_and_not_beyond() -> None:
    sequences = Sequences.from_lists([[1, 2], [], [3]])
    assert sequences[-1].tolist() == [3]
    assert sequences[1].tolist() == []
    for row in (3, -4):
        with pytest.raises(IndexError):
            sequences[row]


@given(rows=ROWS, with_times=st.booleans())
@settings(max_examples=20, deadline=None)
def test_save_and_load(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], with_times: bool
) -> None:
    folder = tmp_path_factory.mktemp("sequences")
    sequences = timed(rows) if with_times else Sequences.from_lists(rows)
    sequences.save(folder)
    loaded = Sequences.load(folder)
    assert lists(loaded) == rows
    assert (loaded.times is not None) == with_times
    assert not with_times or times(loaded) == event_numbers(rows)


def test_loaded_arrays_are_mapped_and_read_only(tmp_path: Path) -> None:
    timed([[1, 2], [3]]).save(tmp_path)
    loaded = Sequences.load(tmp_path)
    assert isinstance(loaded.items, np.memmap)
    assert isinstance(loaded.times, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded.items[0] = 9


def test_saving_without_times_forgets_those_of_an_earlier_save(tmp_path: Path) -> None:
    timed([[1, 2], [3]]).save(tmp_path)
    Sequences.from_lists([[4, 5], [6]]).save(tmp_path)
    assert Sequences.load(tmp_path).times is None


@pytest.mark.parametrize("name", ["items", "offsets", "times"])
@pytest.mark.parametrize("size", [0, 5, 40, 130])
def test_a_file_cut_short_is_an_input_error(tmp_path: Path, name: str, size: int) -> None:
    timed([[1, 2], [3]]).save(tmp_path)
    path = tmp_path / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=tmp_path.name):
        Sequences.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("offsets", np.array([0, 2, 4])),  # beyond the items
        ("offsets", np.array([1, 2, 3])),  # not from the beginning
        ("offsets", np.array([0, 4, 3])),  # backwards
        ("offsets", np.empty(0, np.int64)),
        ("offsets", np.array([0.0, 3.0])),
        ("items", np.zeros((3, 1), np.int32)),
        ("times", np.array([1, 2])),
    ],
)
def test_arrays_that_do_not_fit_are_an_input_error(
    tmp_path: Path, name: str, array: np.ndarray
) -> None:
    timed([[1, 2], [3]]).save(tmp_path)
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError):
        Sequences.load(tmp_path)


def test_other_files_under_our_names_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a saved Sequences folder"):
        Sequences.load(tmp_path / "nowhere")
    timed([[1]]).save(tmp_path)
    np.savez(tmp_path / "archive.npz", a=np.arange(3))
    for content in ((tmp_path / "archive.npz").read_bytes(), b"PK\x03\x04 torn", b"hello" * 100):
        (tmp_path / "items.npy").write_bytes(content)
        with pytest.raises(InputError):
            Sequences.load(tmp_path)
