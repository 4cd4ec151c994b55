"""Files that appear whole or not at all, and that notice when they were changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from foretaste.errors import InputError
from foretaste.storage import (
    checked,
    read_arrays,
    read_arrays_about,
    write_arrays,
    write_whole,
)

ARRAYS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "none": np.zeros((0, 5), np.int64),
    "scalar": np.array(3.5),
    "flags": np.array([True, False]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "arrays.safetensors"
    write_arrays(file, ARRAYS, {"step": 3, "best": None, "rate": 0.1})
    return file


def test_what_was_written_is_read(path: Path):
    arrays, about = read_arrays_about(path)
    assert about == {"step": 3, "best": None, "rate": 0.1}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_a_file_that_is_cut_short_while_it_is_read_ends_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is mapped is gone then, and a look at it is a SIGBUS, which no handler sees."""

    def meanwhile(content: bytes):
        os.truncate(path, 0)
        return load(content)

    monkeypatch.setattr("safetensors.numpy.load", meanwhile)
    np.testing.assert_array_equal(read_arrays(path)["matrix"], ARRAYS["matrix"])
    with pytest.raises(InputError, match="not a safetensors file"):
        read_arrays(path)


def test_arrays_that_do_not_lie_in_a_row_are_written_as_they_look(tmp_path: Path):
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_arrays(tmp_path / "a", {"turned": matrix.T, "every": matrix[:, ::2]})
    found = read_arrays(tmp_path / "a")
    np.testing.assert_array_equal(found["turned"], matrix.T)
    np.testing.assert_array_equal(found["every"], matrix[:, ::2])


def test_every_cut_and_every_changed_byte_is_noticed(path: Path):
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(InputError, match="damaged"):
            read_arrays(path)
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(InputError, match="damaged"):
            read_arrays(path)


def test_files_of_others_are_said(tmp_path: Path):
    save_file({"a": np.zeros(3)}, tmp_path / "foreign")
    (tmp_path / "text").write_text("hello")
    for name in ("foreign", "text"):
        with pytest.raises(InputError, match=name):
            read_arrays(tmp_path / name)
    for name in ("nothing", "."):
        with pytest.raises(InputError, match="no such file"):
            read_arrays(tmp_path / name)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("full")])
def test_a_failing_write_leaves_the_old_file(path: Path, error: Exception, monkeypatch):
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="what was there is untouched"):
        write_arrays(path, {"other": np.ones(5)})
    with pytest.raises(InputError, match="cannot write 5 bytes"):
        write_whole(path, b"other")
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_leaves_the_old_file(path: Path, monkeypatch):
    old = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_arrays(path, {"other": np.ones(5)})
    assert path.read_bytes() == old
    monkeypatch.undo()
    write_arrays(path, {"other": np.ones(5)})  # what the interrupted write left is no hindrance
    assert list(read_arrays(path)) == ["other"]


def test_what_is_secret_only_its_owner_may_read(tmp_path: Path, monkeypatch):
    seen = []

    def looking(arrays, partial, metadata):
        seen.append(stat.S_IMODE(partial.stat().st_mode))
        save_file(arrays, partial, metadata)

    monkeypatch.setattr("safetensors.numpy.save_file", looking)
    path = tmp_path / "keys"
    (tmp_path / "keys.partial").touch(0o644)  # of a crash
    write_arrays(path, ARRAYS, secret=True)
    assert seen == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_arrays(path, ARRAYS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_nobody_may_read_what_the_umask_of_the_user_forbids(tmp_path: Path):
    """Run folders hold who met what."""
    before = os.umask(0o077)
    try:
        write_arrays(tmp_path / "arrays", ARRAYS)
        write_whole(tmp_path / "bytes", b"")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_arrays(tmp_path / "file" / "a", ARRAYS)


def test_checked_says_what_does_not_fit():
    assert checked(ARRAYS, "matrix", (3, 4), np.float32) is ARRAYS["matrix"]
    with pytest.raises(KeyError):
        checked(ARRAYS, "nobody", (3, 4), np.float32)
    with pytest.raises(ValueError, match=r"matrix is float32 \[3, 4\], not float32 \[4, 3\]"):
        checked(ARRAYS, "matrix", (4, 3), np.float32)
    with pytest.raises(ValueError, match="not int64"):
        checked(ARRAYS, "matrix", (3, 4), np.int64)


def test_only_a_plain_file_is_written_over(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="no plain file"):
        write_whole(pipe, b"x")
    assert pipe.is_fifo()
    with pytest.raises(InputError, match="no plain file"):
        write_whole(tmp_path, b"x")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_two_writers_of_one_file_both_succeed(tmp_path):
    """Each writes beside it under a name of its own; the last one stays, whole."""
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "arrays.safetensors"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write_arrays(path, {"x": np.full(10_000, n)}), range(40)))
    (found,) = read_arrays(path).values()
    assert len(set(found.tolist())) == 1
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
