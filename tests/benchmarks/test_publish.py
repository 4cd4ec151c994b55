"""The page of benchmarks holds the tables that the scripts wrote, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_docs_hold_what_the_benchmarks_wrote():
    spec = importlib.util.spec_from_file_location("publish", ROOT / "benchmarks" / "publish.py")
    assert spec is not None and spec.loader is not None
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page.count("<!-- table:") == 9
    assert publish.published(page) == page, "run python benchmarks/publish.py"
