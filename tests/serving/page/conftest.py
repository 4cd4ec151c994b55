"""Two trained runs of a catalog that nobody has checked, a service, and a browser before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser, sync_playwright

from foretaste.data.dataset import Dataset
from foretaste.data.interactions import ColumnGuess, Interactions
from foretaste.data.split import split
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.run_folder import RunFolder
from foretaste.recommenders.core.base import RunContext

from ...recommenders.test_conformance import tiny
from ..conftest import BEGIN, HOUR
from ..server_process import Server
from .browser import Visit, launch

HOSTILE = {
    "<b>id</b>": '<img src=x onerror="window.pwned = 1">',
    "a'b\"c": "</script><script>window.pwned = 2</script> 'quoted' $(rm x) \\",
    "rtl": "\u202e\u0645\u0631\u062d\u0628\u0627 (1999)",
    "long": "Unbroken" * 24,
    "empty": "   ",
}
SPACE = "The Matrix|Inception|Looper|District 9|Alien|Arrival|Gravity|Moon|Solaris|Interstellar"
FOOD = "Amelie|Chocolat|Ratatouille|Julie and Julia|Tampopo|Big Night|Chef|Delicatessen|Pig|Toast"
FILMS = {
    f"f{n:02}": f"{title} ({1980 + n})" for n, title in enumerate(f"{SPACE}|{FOOD}".split("|"))
}
TITLES = FILMS | HOSTILE

Visiting = Callable[..., Visit]


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> list[Path]:
    """SASRec and popularity, from people who like films of space or of food."""
    rng = np.random.default_rng(0)
    ids, hostile = list(FILMS), list(HOSTILE)
    chosen = [
        [*rng.permutation(hostile)[:4], *rng.permutation(ids[:10] if user % 2 else ids[10:])[:6]]
        for user in range(60)
    ]
    rows = [
        (f"u{user}", item, at) for user, row in enumerate(chosen) for at, item in enumerate(row)
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame = frame.with_columns(BEGIN + HOUR * pl.col("timestamp"))
    items = pl.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values())})
    log = Interactions(frame, items, "test log", ColumnGuess("user_id", "item_id", "t", None))
    learnt = split(Dataset.from_interactions(log), "leave-last-out")
    folders = []
    for name in ("sasrec", "popularity"):
        folders.append(tmp_path_factory.mktemp("runs") / name)
        model = tiny(name, epochs=4)
        model.fit(learnt, RunContext(seed=3))
        model.save(folders[-1])
        recipe = Recipe.build({"model": {"name": name}})
        RunFolder(folders[-1]).write("recipe.toml", recipe.to_toml())
    return folders


@pytest.fixture(scope="session")
def server(runs, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    with Server(runs, "--store", f"lmdb:{folder / 'store'}", log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one module: while it is open, this thread cannot run another event loop."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visiting]:
    """``visit(viewport=..., color_scheme=...)``: the page, opened and ready."""
    visits: list[Visit] = []

    def begin(**options) -> Visit:
        visits.append(Visit(browser, server.url, **options))
        return visits[-1].settled()

    yield begin
    for one in visits:
        one.close()
