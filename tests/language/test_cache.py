"""Vectors on disk: found by content, there after a crash, honest about damage."""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.errors import InputError, WriteError
from foretaste.language import embed
from foretaste.language.cache import UsualCache, VectorCache, cache_of, key_of
from foretaste.language.endpoint import EndpointConfig
from foretaste.language.sentence_model import SentenceConfig
from foretaste.language.tfidf import TfidfConfig
from foretaste.storage import cache_folder


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


class Counting:
    """A model of texts that keeps what it was asked."""

    asked: list[str] = []  # noqa: RUF012 - emptied by the fixture
    identity, batch_texts, max_characters = "counting", 2, 100

    def __init__(self, config: SentenceConfig | EndpointConfig) -> None:
        del config

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.extend(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)


SENTENCE = SentenceConfig()
ADDRESS = EndpointConfig(url="http://127.0.0.1:9/v1", model="small")


@pytest.fixture
def usual(tmp_path, monkeypatch) -> Path:
    """The file that is used when none is named, and models that count."""
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(embed, "SentenceModel", Counting)
    monkeypatch.setattr(embed, "EmbeddingEndpoint", Counting)
    monkeypatch.setattr(Counting, "asked", [])
    return tmp_path / "kept" / "vectors.sqlite"


@pytest.mark.parametrize("config", [SENTENCE, ADDRESS])
def test_vectors_of_models_are_kept_by_default(config, usual: Path) -> None:
    first = embed.embed(["a", "bb"], config)
    assert Counting.asked == ["a", "bb"]
    assert len(VectorCache(usual).get([key_of("counting", "a"), key_of("counting", "bb")])) == 2
    np.testing.assert_array_equal(embed.embed(["bb", "a"], config), first[::-1])
    embed.embed(["bb", "new"], config)
    assert Counting.asked == ["a", "bb", "new"]


def test_tfidf_keeps_nothing(usual: Path) -> None:
    embed.embed(["red shoe", "red hat"], TfidfConfig(dim=1))
    assert not usual.parent.exists()


def test_nothing_is_made_before_a_text_is_read(usual: Path) -> None:
    embed.encoder_for(SENTENCE, (), width=2).encode(["", " "])
    assert not usual.parent.exists()


def test_the_usual_cache_can_be_moved_and_turned_off(usual: Path, tmp_path, monkeypatch) -> None:
    embed.embed(["a"], SENTENCE, cache="off")
    assert not usual.exists()
    embed.embed(["a"], SENTENCE, cache=tmp_path / "own.sqlite")
    assert not usual.exists() and (tmp_path / "own.sqlite").exists()
    monkeypatch.setenv("FORETASTE_CACHE", "off")
    embed.embed(["a"], SENTENCE)
    assert cache_of(None) is None and cache_folder() is None
    assert Counting.asked == ["a", "a", "a"]
    monkeypatch.setenv("FORETASTE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    embed.embed(["a"], SENTENCE)
    assert (tmp_path / "xdg" / "foretaste" / "vectors.sqlite").exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "foretaste"
    monkeypatch.setenv("FORETASTE_CACHE", "~/fast")
    assert cache_folder() == tmp_path / "home" / "fast"


def spoil_place(path: Path) -> None:
    """A folder in the place of the file."""
    path.mkdir(parents=True)


def spoil_all(path: Path) -> None:
    """Something else under that name."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is not a database, whatever its name says, and it is long enough")


def spoil_end(path: Path) -> None:
    """A cache that was cut short."""
    cache = VectorCache(path)
    cache.put([f"{n}".encode() for n in range(2_000)], np.ones((2_000, 8), np.float32))
    path.write_bytes(path.read_bytes()[:5_000])


def spoil_folder(path: Path) -> None:
    """A file in the place of the folder."""
    path.parent.write_text("")


@pytest.mark.parametrize("spoil", [spoil_place, spoil_all, spoil_end, spoil_folder])
def test_the_usual_cache_never_stops_the_work(spoil, usual: Path, caplog) -> None:
    spoil(usual)
    with caplog.at_level(logging.WARNING):
        vectors = embed.embed([f"text {n}" for n in range(40)], SENTENCE)
    assert vectors.shape == (40, 2) and len(Counting.asked) == 40
    assert len(caplog.messages) == 1  # once, though it is asked for and put to several times
    assert str(usual.parent) in caplog.messages[0]
    assert "FORETASTE_CACHE=off" in caplog.messages[0]
    with pytest.raises((InputError, WriteError)):  # what a user names must work
        embed.embed(["a"], SENTENCE, cache=usual).sum()


def test_a_disk_that_fills_up_stops_the_keeping_alone(usual: Path, monkeypatch, caplog) -> None:
    embed.embed(["a"], SENTENCE)

    def full(self, keys, vectors) -> None:
        raise WriteError(f"{self.path}: the cache of vectors cannot be used (disk is full).")

    monkeypatch.setattr(VectorCache, "put", full)
    assert embed.embed(["a", "b", "c" * 9], SENTENCE)[:, 0].tolist() == [1, 1, 9]
    assert Counting.asked == ["a", "b", "c" * 9]  # what is there was read
    assert len(caplog.messages) == 1


def write_some(path: Path, number: int, begin) -> None:
    begin.wait()
    for part in range(20):
        keys = [f"{number} {part} {row}".encode() for row in range(5)]
        UsualCache(path).put([*keys, b"all"], np.full((6, 3), number, np.float32))


def test_two_processes_may_write_at_once(usual: Path) -> None:
    """From the making of the file on, and the same key too."""
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(2)
    writers = [context.Process(target=write_some, args=(usual, n, begin)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    keys = [f"{n} {part} {row}".encode() for n in (1, 2) for part in range(20) for row in range(5)]
    found = VectorCache(usual).get([*keys, b"all"])
    assert len(found) == 201
    assert all((found[key] == int(key[:1])).all() for key in keys)
    assert found[b"all"].tolist() in ([1, 1, 1], [2, 2, 2])
