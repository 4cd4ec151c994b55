"""Tuned settings: what was made with others is measured again, and never averaged in."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foretaste.codes.table import Codes

FOLDER = Path(__file__).parents[2] / "benchmarks"
QUESTIONS = 12


@pytest.fixture
def script(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("generative_quality")


@pytest.fixture
def ask(script, monkeypatch, tmp_path):
    """Call ``measured`` with a fit that takes no time; which fits were made comes back."""
    likes: dict[tuple[float, float], float] = {}
    made: list[tuple[str, int, float, float]] = []

    def measure(arm, data, seed, settings, args, folder) -> None:
        made.append((arm.name, seed, *settings))
        facts = script.made_with(arm, data, settings, args)._asdict()
        facts |= {"valid": likes.get(tuple(settings), 0.0), "fit_seconds": 1.0, "ask_seconds": 1.0}
        value = settings.rate + settings.dropout
        facts |= {metric: np.full(QUESTIONS, value) for metric in script.METRICS}
        script.Kept(folder, arm.name).save(seed, facts)

    monkeypatch.setattr(script, "measure", measure)
    data = script.Data("set", None, "none")
    (tmp_path / "set").mkdir()
    everyone = np.arange(QUESTIONS)
    np.savez(tmp_path / "set" / script.QUESTIONS, users=everyone // 2, lengths=everyone)

    def asked(names: list[str], seeds: list[int], best: tuple[float, float], **options: Any):
        likes.clear()
        likes[best] = 1.0
        made.clear()
        chosen = {"rates": [0.001, 0.002], "dropouts": [0.3, 0.1], "sources": ["text"]} | options
        args = argparse.Namespace(runs=tmp_path, **chosen)
        for seed in seeds:
            for name in names:
                script.measured(script.NAMED[name], data, seed, args)
        return list(made)

    return asked


def test_rates_are_tried_and_then_dropouts_and_seeds_take_the_best(ask) -> None:
    tried = ask(["TIGER"], [0, 1], (0.002, 0.3))
    assert tried == [
        ("TIGER", 0, 0.001, 0.3),
        ("TIGER", 0, 0.002, 0.3),
        ("TIGER", 0, 0.002, 0.1),
        ("TIGER", 1, 0.002, 0.3),
    ]
    assert ask(["TIGER"], [0, 1], (0.002, 0.3)) == []  # all of it is kept


def test_figures_of_other_settings_are_made_anew(ask, script, tmp_path) -> None:
    names = ["MDGR", "MDGR, random masks"]
    ask(names, [0, 1], (0.001, 0.3), dropouts=[0.3])
    trials = tmp_path / "rates" / "set-0.001" / "MDGR-0.npz"
    again = ask(names[:1], [0], (0.001, 0.1), dropouts=[0.3])
    assert again == []
    trials.unlink()  # validation likes another rate now
    (tmp_path / "rates" / "set-0.002" / "MDGR-0.npz").unlink()
    again = ask(names[:1], [1], (0.002, 0.3), dropouts=[0.3])
    assert again[-1] == ("MDGR", 1, 0.002, 0.3)
    assert script.Kept(tmp_path / "set", "MDGR").numbers == [1]  # the first is stale, and gone
    ask(names[:1], [0], (0.002, 0.3), dropouts=[0.3])
    rows = {row["model"]: row for row in script.rows_of("set", tmp_path)}
    assert set(rows) == {"MDGR"}  # the ablation is of another rate
    assert (rows["MDGR"]["seeds"], rows["MDGR"]["rate"]) == (2, "0.002")
    other = ask(["MDGR"], [0, 1], (0.002, 0.3), dropouts=[0.3], sources=["both"])
    assert ("MDGR", 1, 0.002, 0.3) in other  # codes of something else, too


def test_seeds_that_came_back_from_an_archive_are_left_out(ask, script, tmp_path) -> None:
    ask(["MDGR"], [0, 1, 2], (0.001, 0.3))
    stale = (tmp_path / "set" / "MDGR-2.npz").read_bytes()
    for kept in (tmp_path / "rates").rglob("MDGR-0.npz"):
        kept.unlink()
    ask(["MDGR"], [0, 1], (0.001, 0.1))
    (tmp_path / "set" / "MDGR-2.npz").write_bytes(stale)
    [row] = script.rows_of("set", tmp_path)
    assert (row["seeds"], row["dropout"]) == (2, "0.1")
    assert row["NDCG@10"].startswith("0.1010 ")


def test_reversed_slots_are_the_same_codes_with_the_last_first(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    arms = importlib.import_module("generative_arms")
    ids = pl.Series("item_id", ["a", "b"])
    table = np.array([[0, 1, 2], [1, 1, 0]], np.int32)
    books = tuple(np.full((size, 1), size, np.float32) for size in (2, 3, 4))
    codes = arms.turned(Codes(ids, table, (2, 3, 4), table, books, False))
    assert codes.table.tolist() == [[2, 1, 0], [0, 1, 1]]
    assert codes.sizes == (4, 3, 2) and codes.codebooks[0][0, 0] == 4
    assert {arm.codes.removesuffix(arms.REVERSED) for arm in arms.ARMS} <= {"", *arms.TOKENIZERS}
