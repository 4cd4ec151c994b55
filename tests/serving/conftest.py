"""Trained runs to serve, and a log that the tests of serving share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from foretaste.data.dataset import Dataset
from foretaste.data.interactions import ColumnGuess, Interactions
from foretaste.data.split import Split, split
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.run_folder import RunFolder
from foretaste.nn.collective import CollectiveConfig
from foretaste.recommenders.core.base import Recommender, RunContext

from ..recommenders.test_conformance import tiny
from .server_process import Server

BEGIN, HOUR = 1_600_000_000_000, 3_600_000
ITEMS = 30
TOKEN = "a töken of 24 letters"
BODY_LIMIT = 200_000

MakeRun = Callable[..., Path]

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "collective": (
        "sasrec",
        {
            "attention": "collective",
            "collective": CollectiveConfig(user_dim=4, pool_size=8, user_type="int8"),
            "layers": 2,  # the first is looked up by the item, the second kept
        },
    ),
}
"""Runs besides one of each recommender: its name, and parameters."""


@pytest.fixture(scope="session")
def learnt() -> Split:
    """80 users and 30 items with titles, some much more popular than others."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, ITEMS + 1)
    rows = [
        rng.choice(ITEMS, rng.integers(4, 14), replace=False, p=share / share.sum()).tolist()
        for _ in range(80)
    ]
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user, row in enumerate(rows) for _ in row],
            "item_id": [f"i{item:02}" for row in rows for item in row],
            "timestamp": [BEGIN + HOUR * place for row in rows for place in range(len(row))],
        }
    )
    titles = [f"Film number {item} ({1990 + item})" for item in range(ITEMS)]
    items = pl.DataFrame({"item_id": [f"i{item:02}" for item in range(ITEMS)], "title": titles})
    log = Interactions(frame, items, "test log", ColumnGuess("user_id", "item_id", "t", None))
    return split(Dataset.from_interactions(log), "leave-last-out")


@pytest.fixture(scope="session")
def write_run(learnt: Split) -> MakeRun:
    """``write_run(folder, name, seed=3, **parameters)``: a tiny trained model as a run folder."""
    models: dict[tuple, Recommender] = {}

    def make(folder: Path, name: str, *, seed: int = 3, **parameters) -> Path:
        key = (name, seed, *sorted(parameters.items()))
        if key not in models:
            models[key] = tiny(name, **parameters)
            models[key].fit(learnt, RunContext(seed=seed))
        models[key].save(folder)
        RunFolder(folder).write("recipe.toml", Recipe.build({"model": {"name": name}}).to_toml())
        return folder

    return make


@pytest.fixture(scope="session")
def run_folder(write_run: MakeRun, tmp_path_factory) -> Callable[[str], Path]:
    """``run_folder("ease")``: a run, made once and not to be written on; also of ``VARIANTS``."""
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            model, parameters = VARIANTS.get(name, (name, {}))
            folder = tmp_path_factory.mktemp("runs") / name
            folders[name] = write_run(folder, model, **parameters)
        return folders[name]

    return get


@pytest.fixture(scope="session")
def guarded(run_folder, tmp_path_factory) -> Iterator[Server]:
    """A server that asks for a token and takes bodies up to 200 KB."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN + "\n", encoding="utf-8")
    options = ["--token-file", str(folder / "token"), "--set", f"serve.body_bytes={BODY_LIMIT}"]
    runs = [run_folder("sasrec"), run_folder("ease")]
    store = f"lmdb:{folder / 'store'}"
    with Server(runs, "--store", store, *options, log=folder / "log") as server:
        server.client.headers = httpx.Headers([(b"authorization", f"Bearer {TOKEN}".encode())])
        yield server


@pytest.fixture
def lives(guarded: Server) -> Iterator[None]:
    """After every test the server answers as before, and nothing was our fault."""
    yield
    answer = guarded.recommend(history=["i01", "i02"], k=3)
    assert len(answer["items"]) == 3
    assert guarded.process.poll() is None
    assert "Traceback" not in guarded.log.read_text()
