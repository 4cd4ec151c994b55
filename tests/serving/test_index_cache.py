"""An index is built once: what was kept is the same, and what is not sound is built again."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from foretaste.serving import index_cache
from foretaste.serving.index_cache import UNUSED_SECONDS, kept_index
from foretaste.serving.indexing import IndexWish, build_index
from foretaste.serving.models import load_run

WISH = IndexWish("hnsw", 0.5)


@pytest.fixture
def built(monkeypatch, tmp_path) -> list[str]:
    """The fingerprints of models whose index was built, in order; the cache is the test's own."""
    pytest.importorskip("faiss")
    told: list[str] = []

    def build(model, wish):
        told.append(model.fingerprint)
        time.sleep(0.2)  # as if it took long
        return build_index(model, wish)

    monkeypatch.setattr(index_cache, "build_index", build)
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    return told


@pytest.fixture
def model(run_folder):
    run = load_run("me", run_folder("sasrec"))
    assert run.incremental is not None
    return run.recommender


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "indexes").glob("*.safetensors"))


def test_an_index_is_built_once_for_all_that_load_the_run(built, run_folder, tmp_path):
    first = load_run("me", run_folder("sasrec"), WISH)
    moved = shutil.copytree(run_folder("sasrec"), tmp_path / "elsewhere")
    again = load_run("other", moved, WISH)
    assert built == [first.fingerprint]
    assert first.index is not None and again.index is not None
    assert again.index.recall == first.index.recall
    one, two = first.index.index, again.index.index
    assert (one.kind, one.effort) == (two.kind, two.effort)
    asked = torch.randn(5, first.item_vectors.shape[1])
    assert torch.equal(one.top_k(asked, 7).indices, two.top_k(asked, 7).indices)


def test_other_models_and_other_wishes_have_indexes_of_their_own(built, model, write_run, tmp_path):
    kept_index(model, WISH)
    kept_index(model, IndexWish("hnsw", 0.9))
    kept_index(model, IndexWish("ivf", 0.5))
    newer = load_run("me", write_run(tmp_path / "newer", "sasrec", seed=4), WISH)
    assert built == [model.fingerprint] * 3 + [newer.fingerprint]
    assert len(files(tmp_path)) == 4


def test_what_is_damaged_or_may_be_of_others_is_built_again(built, model, tmp_path, caplog):
    kept_index(model, WISH)
    [file] = files(tmp_path)
    assert file.stat().st_mode & 0o077 == 0
    whole = file.read_bytes()
    for times, content in enumerate((whole[:-9], b"", whole[:-9] + b"otherwise"), 2):
        file.write_bytes(content)
        for _ in range(2):
            assert kept_index(model, WISH).recall >= 0.5
            assert len(built) == times and file.stat().st_size > len(whole) // 2
    file.chmod(0o666)
    kept_index(model, WISH)
    assert len(built) == 5 and "others may write it" in caplog.text
    kept_index(model, WISH)
    assert len(built) == 5


def test_those_who_come_at_once_wait_for_the_one_that_builds(built, model):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: kept_index(model, WISH).recall, range(4)))
    assert len(built) == 1 and len(set(found)) == 1


def test_without_a_cache_it_is_built_and_answers(built, model, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    for place in ("off", str(tmp_path / "file")):
        monkeypatch.setenv("FORETASTE_CACHE", place)
        assert kept_index(model, WISH).recall >= 0.5
    assert len(built) == 2 and "not kept" in caplog.text


def test_what_nobody_read_for_long_goes(built, model, tmp_path):
    kept_index(model, WISH)
    [old] = files(tmp_path)
    long_ago = time.time() - UNUSED_SECONDS - 9
    os.utime(old, (long_ago, long_ago))
    kept_index(model, WISH)  # read, and so of use
    os.utime(old)
    kept_index(model, IndexWish("ivf", 0.5))
    assert old in files(tmp_path)
    os.utime(old, (long_ago, long_ago))
    kept_index(model, IndexWish("ivf", 0.9))
    assert old not in files(tmp_path) and len(files(tmp_path)) == 2
