"""A newer run that comes at a bad moment, or cannot be loaded for now."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.recommenders.core.base import Recommender
from foretaste.serving import reloading
from foretaste.serving.engine import Engine
from foretaste.serving.models import FILES, load_run
from foretaste.serving.reloading import Watcher
from foretaste.serving.service import Service
from foretaste.serving.settings import Settings
from foretaste.serving.stores import open_store

from .in_process import ask


def test_a_title_search_keeps_to_the_run_it_began_with(run_folder, monkeypatch):
    old = load_run("ease", run_folder("ease"))
    model = Recommender.load(run_folder("ease"))
    model.catalog = old.catalog.take(old.catalog.numbers([f"i{n:02}" for n in range(9, 3, -1)]))
    model.popularity = model.popularity[:6]
    new = replace(old, recommender=model)
    service = Service(
        Settings.build({"runs": ["x"], "store": "memory"}), [old], open_store("memory")
    )
    find = service.engine.run

    def swapped_meanwhile(name: str | None = None):
        found = find(name)
        service.engine.swap(new if found is old else old)
        return found

    monkeypatch.setattr(service.engine, "run", swapped_meanwhile)

    async def talk(client: httpx.AsyncClient) -> list[dict]:
        asked = [client.get("/v1/items", params={"q": f"film number {n}"}) for n in (7, 8, 29, 5)]
        return [(await one).json() for one in asked]

    for answer in ask(service, talk):
        assert answer["items"]
        for item in answer["items"]:
            assert item["title"].startswith(f"Film number {int(item['item_id'][1:])} (")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no memory"), OSError("no disk")])
def test_what_may_pass_is_tried_again_and_ends_nothing(
    error, write_run, tmp_path, monkeypatch, caplog
):
    served: Path = write_run(tmp_path / "served", "ease")
    newer: Path = write_run(tmp_path / "newer", "ease", l2=2.0)
    engine = Engine([load_run("served", served)], open_store("memory"))
    tries: list[str] = []
    swapped = threading.Event()

    def load(name: str, path: Path, wish):
        tries.append(name)
        if len(tries) < 3:
            raise error
        return load_run(name, path, wish)

    monkeypatch.setattr(reloading, "load_run", load)
    monkeypatch.setattr(reloading, "AGAIN_SECONDS", 0.3)
    watcher = Watcher(engine, 0.01, None, lambda *_: swapped.set())
    begin = time.monotonic()
    watcher.start()
    for name in FILES:
        shutil.copy(newer / name, served / name)
    assert swapped.wait(30)
    watcher.close()
    assert len(tries) == 3
    assert time.monotonic() - begin > 0.6  # not again at once: a load takes time and memory
    assert caplog.text.count("not loaded again") == 2
    assert engine.run().fingerprint == load_run("x", newer).fingerprint


@pytest.mark.parametrize("what", ["time", "files"])
def test_files_that_could_not_be_read_are_tried_again_when_they_may_be(
    write_run, tmp_path, monkeypatch, what
):
    served: Path = write_run(tmp_path / "served", "ease")
    newer: Path = write_run(tmp_path / "newer", "ease", l2=2.0)
    engine = Engine([load_run("served", served)], open_store("memory"))
    watcher = Watcher(engine, 1.0, None, lambda *_: None)
    now, tries = [0.0], []
    monkeypatch.setattr(reloading.time, "monotonic", lambda: now[0])
    for name in FILES:
        shutil.copy(newer / name, served / name)

    def locked(name: str, path: Path, wish):
        tries.append(now[0])
        raise InputError(f"{path}: too many open files")

    def look_twice() -> str:
        watcher.look()
        watcher.look()
        return engine.run().fingerprint

    with monkeypatch.context() as patched:
        patched.setattr(reloading, "load_run", locked)
        before = look_twice()
        for _ in range(20_000):
            now[0] += 1.0
            watcher.look()
    assert tries[:5] == [0, 30, 90, 210, 450]  # ever more rarely
    assert max(np.diff(tries)) == reloading.MOST_SECONDS
    now[0] = tries[-1] + 1.0
    assert look_twice() == before  # nothing has changed, and it is not time
    if what == "files":
        (served / "weights.safetensors").chmod(0o640)
    else:
        now[0] += reloading.MOST_SECONDS
    assert look_twice() == load_run("newer", newer).fingerprint
