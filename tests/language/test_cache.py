"""Vectors on disk: found by content, there after a crash, honest about damage."""

from __future__ import annotations

import sqlite3
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.errors import InputError, WriteError
from foretaste.language.cache import VectorCache, key_of


def test_what_was_put_is_there_for_the_next_program(tmp_path) -> None:
    path = tmp_path / "deep" / "vectors.sqlite"
    keys = [key_of("model", str(n)) for n in range(1_200)]
    vectors = np.random.default_rng(0).standard_normal((1_200, 5)).astype(np.float32)
    VectorCache(path).put(keys, vectors)
    found = VectorCache(path).get([*keys, key_of("model", "unknown")])
    assert len(found) == 1_200
    assert all(np.array_equal(found[key], row) for key, row in zip(keys, vectors, strict=True))


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), unique=True, max_size=20))
def test_keys_differ_when_model_or_text_differ(pairs: list[tuple[str, str]]) -> None:
    assert len({key_of(model, text) for model, text in pairs}) == len(pairs)


def test_a_put_that_fails_puts_nothing(tmp_path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    with pytest.raises(ValueError):
        cache.put([b"a", b"b", b"c"], np.zeros((2, 3), np.float32))
    assert cache.get([b"a", b"b"]) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        np.array([1, np.nan], "<f4").tobytes(),
        np.array([np.inf, 0], "<f4").tobytes(),
        "text",
        7,
    ],
)
def test_a_damaged_vector_is_not_there_and_can_be_put_again(tmp_path, content) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    cache.put([b"a", b"b"], np.ones((2, 2), np.float32))
    with sqlite3.connect(cache.path) as database:
        database.execute("UPDATE vectors SET vector = ? WHERE key = ?", (content, b"a"))
    database.close()
    assert list(cache.get([b"a", b"b"])) == [b"b"]
    cache.put([b"a"], np.ones((1, 2), np.float32))
    assert list(cache.get([b"a", b"b"])) == [b"a", b"b"]


def test_several_threads_may_write(tmp_path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")

    def write(number: int) -> None:
        for part in range(10):
            cache.put([f"{number} {part}".encode()], np.full((1, 2), number, np.float32))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.get([f"{n} {part}".encode() for n in range(4) for part in range(10)])) == 40


def test_a_file_that_is_no_cache_is_refused(tmp_path) -> None:
    path = tmp_path / "vectors.sqlite"
    path.write_bytes(b"this is not a database, whatever its name says, and it is long enough")
    with pytest.raises(InputError, match="not a cache of vectors .* Delete it"):
        VectorCache(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        VectorCache(tmp_path / "file" / "vectors.sqlite")
    with pytest.raises(WriteError, match="cannot be used"):
        VectorCache(tmp_path)
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE vectors (something TEXT)")
    with pytest.raises(WriteError, match="cannot be used"):
        VectorCache(path).get([b"x"])
