"""The figure of MDGR's dial says what the committed tables say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def script(monkeypatch) -> Any:
    """The script that draws."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("warm_up")


def test_the_figure_of_the_docs_is_that_of_the_tables(script, tmp_path: Path) -> None:
    script.draw(ROOT / "benchmarks", tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    assert script.FIGURE.read_text() == drawn, "run: python benchmarks/warm_up.py"
    assert "](images/warm_up.svg)" in (ROOT / "docs" / "generators.md").read_text()


def tables(folder: Path, rows: list[tuple[str, str]]) -> None:
    """The two tables, with these models and NDCG of one set, and one catalog."""
    lines = ["| data | model | seeds | NDCG@10 | ms/question |", "|" + " --- |" * 5]
    lines += [f"| one | {model} | 2 | {ndcg} | {10**n} |" for n, (model, ndcg) in enumerate(rows)]
    lines += ["| one | MDGR, 8 warm-up | 1 | 0.14 (0.1-0.15) | 3 |"]  # of another seed
    lines += ["| lone | MDGR, 0 warm-up | 2 | 0.1 (0.1-0.1) | 3 |"]
    (folder / "generative_quality.md").write_text("\n".join(lines))
    lines = ["| items | levels | beams | reads | way | one user, ms |", "|" + " --- |" * 6]
    lines += ["| 10 | 4 | 30 | codes | TIGER, beam | 10 |"]
    lines += [f"| 10 | 4 | 30 | codes | MDGR, {n} warm-up | {10**n} |" for n in range(3)]
    lines += ["| 10 | 8 | 30 | codes | MDGR, 5 warm-up | 7 |"]
    (folder / "decoding.md").write_text("\n".join(lines))


def test_points_lie_where_the_tables_say(script, tmp_path: Path) -> None:
    rows = [("MDGR, 0 warm-up", "0.0500 (0.0000-0.1500)"), ("MDGR, 4 warm-up", "0.1 (0.1-0.1)")]
    tables(tmp_path, [*rows, ("MDGR", "0.12 (0.1-0.14)"), ("TIGER", "0.12 (0.1-0.14)")])
    quality = script.qualities(tmp_path / "generative_quality.md")
    assert quality == {
        "one": {
            0: (0.05, 0.0, 0.15, 1.0),
            4: (0.1, 0.1, 0.1, 10.0),
            "TIGER": (0.12, 0.1, 0.14, 1000.0),
        }
    }
    assert script.times(tmp_path / "decoding.md") == {"10": {"TIGER": 10, 0: 1, 1: 10, 2: 100}}
    script.draw(tmp_path, tmp_path / "figure.svg")
    root = ElementTree.parse(tmp_path / "figure.svg").getroot()
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"one", "10", "0", "4"} <= {*words} and "lone" not in words
    dots = [
        (float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter(f"{SVG}circle")
    ]
    # 1 and 10 ms are one and two thirds of a width of 284; 0.05 and 0.1 of a height of 214.
    assert dots == [(150.7, 182.7), (245.3, 111.3)]
    curves = [line.get("points", "") for line in root.iter(f"{SVG}polyline")]
    speed = [[*map(float, point.split(","))] for point in curves[-2].split()]
    assert [round(y, 1) for _, y in speed] == [254.0, 182.7, 111.3]
    assert re.search("stroke-dasharray", (tmp_path / "figure.svg").read_text())
