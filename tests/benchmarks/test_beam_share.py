"""The table of what a beam misses counts results that are not what was written."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from foretaste.codes.beam import share_found
from foretaste.codes.opq import OPQConfig
from foretaste.codes.rqkmeans import RQKMeansConfig
from foretaste.codes.table import Codes
from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.recommenders.core.coding import CodingConfig, TokenizerConfig
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.mdgr import MDGR
from foretaste.recommenders.tiger import TIGER

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def beam_share(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "beam_share", raising=False)
    return importlib.import_module("beam_share")


TABLE = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), 1).astype(np.int32)
ASKED = Sequences.from_lists([[0, 4], [7], [9, 3, 1]])


def untrained(kind: type[Generator], tokenizer: TokenizerConfig) -> Generator:
    """A model of 27 items, each with three of three codes."""
    ids = pl.Series("item_id", [f"i{number}" for number in range(27)])
    books = tuple(np.eye(3, dtype=np.float32) for _ in range(3))
    torch.manual_seed(0)
    stages: dict[str, Any] = {"warm_up": 1} if kind is MDGR else {}
    model = kind(dim=8, heads=1, beams=12, codes=CodingConfig(tokenizer=tokenizer), **stages)
    model.codes = Codes(ids, TABLE, (3,) * 3, TABLE, books, kind is not MDGR)
    model.catalog = Catalog.from_items(ids, None)
    model.popularity = np.ones(27, np.int64)
    model.network = model._network(model.codes).eval()
    return model


def test_illegal_results_are_of_the_codes_that_were_written(beam_share: Any):
    model = untrained(TIGER, RQKMeansConfig(levels=3, size=3))
    assert beam_share.illegal_results(model, ASKED) == (0, 30)
    model._indexed = model._index(np.roll(TABLE, 1, axis=0))
    assert beam_share.illegal_results(model, ASKED) == (30, 30)


def test_all_codes_of_the_first_slot_are_the_exact_ranking_of_mdgr(beam_share: Any):
    model = untrained(MDGR, OPQConfig(levels=3, size=3))
    truth = beam_share.exact(model, ASKED)
    assert truth.shape == (3, 27)
    assert truth.exp().sum(1).numpy() == pytest.approx(1, abs=1e-4)
    found = beam_share.asked_for(model, ASKED, 3)
    assert share_found(found, truth, 10).tolist() == [1, 1, 1]
    torch.testing.assert_close(truth.gather(1, found.items), found.log_probs)
    assert beam_share.illegal_results(model, ASKED) == (0, 30)
