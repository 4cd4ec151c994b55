"""The page of benchmarks holds the tables that the scripts wrote, and nothing else."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_SHOWN = {"quality_search.md"}  # what validation said of each configuration that was tried


def test_the_docs_hold_what_the_benchmarks_wrote():
    spec = importlib.util.spec_from_file_location("publish", ROOT / "benchmarks" / "publish.py")
    assert spec is not None and spec.loader is not None
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    shown = re.findall(r"<!-- table: ([\w.]+) -->", page)
    assert len(shown) == len(set(shown))
    written = {path.name for path in (ROOT / "benchmarks").glob("*.md")}
    assert set(shown) == written - NOT_SHOWN
    assert publish.published(page) == page, "run python benchmarks/publish.py"
