"""The table of what a beam misses counts results that are not what was written."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foretaste.codes.rqkmeans import RQKMeansConfig
from foretaste.codes.table import Codes
from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.tiger import TIGER

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_illegal_results_are_of_the_codes_that_were_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "beam_share", raising=False)
    beam_share = importlib.import_module("beam_share")
    ids = pl.Series("item_id", [f"i{number}" for number in range(27)])
    table = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), 1).astype(np.int32)
    books = tuple(np.eye(3, dtype=np.float32) for _ in range(3))
    model = TIGER(dim=8, heads=1, codes=CodingConfig(tokenizer=RQKMeansConfig(levels=3, size=3)))
    model.codes = Codes(ids, table, (3,) * 3, table, books, True)
    model.catalog = Catalog.from_items(ids, None)
    model.popularity = np.ones(27, np.int64)
    model.network = model._network(model.codes).eval()
    asked = Sequences.from_lists([[0, 4], [7], [9, 3, 1]])
    assert beam_share.illegal_results(model, asked, 12) == (0, 30)
    model._indexed = model._index(np.roll(table, 1, axis=0))
    assert beam_share.illegal_results(model, asked, 12) == (30, 30)
