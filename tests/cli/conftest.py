"""Calling the command line in this process, as a user would."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from foretaste.cli.main import main


class Ended(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON object and nothing more."""
        return json.loads(self.out)


Call = Callable[..., Ended]


@pytest.fixture
def foretaste(monkeypatch, capsys, tmp_path) -> Call:
    """``foretaste("train", "--data", ...)`` in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["foretaste", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


def write_log(path: Path, *, users: int = 60, items: int = 12, seed: int = 0) -> Path:
    """A CSV in which everybody walks through a ring of items; the next item is the next one."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        first, length = int(rng.integers(items)), int(rng.integers(4, 9))
        for step in range(length):
            time = 1_600_000_000 + int(rng.integers(10_000)) + 20_000 * step
            rows.append((f"u{user}", f"i{(first + step) % items}", time))
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.sort("timestamp").write_csv(path)
    return path


@pytest.fixture
def log(tmp_path) -> Path:
    """The ring as a CSV."""
    return write_log(tmp_path / "log.csv")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A finished SASRec run on the ring, not to be written on."""
    from foretaste.experiments.recipe import Recipe
    from foretaste.experiments.running import train

    folder = tmp_path_factory.mktemp("trained")
    source = write_log(folder / "log.csv")
    values = {
        "data": {"source": str(source)},
        "model": {"name": "sasrec", "dim": 16, "max_length": 10},
        "train": {"epochs": 3},
    }
    return train(Recipe.build(values), folder / "run").path
