"""A generator of one stream: what it shares with others is tested there, with TIGER's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.recommenders.core.base import Recommender, RunContext
from foretaste.recommenders.core.code_stream import CodeStream
from foretaste.recommenders.core.ranking import rank_queries

from ..generators import SLOWLY, TRAIN, fitted, generator

ALONE: dict[str, Any] = {"architecture": "decoder-only"}


def test_a_batch_is_its_rows(ordinary: Split):
    model = fitted("tiger", ordinary, **ALONE)
    assert isinstance(model.network, CodeStream)
    lists = [[3], [0, 5, 3, 8, 1, 2], [], [7, 1, 2, 9], list(range(12))]
    together = model.recommend(Sequences.from_lists(lists), 10, exclude="seen")
    for row, history in enumerate(lists):
        one = model.recommend(Sequences.from_lists([history]), 10, exclude="seen")
        np.testing.assert_array_equal(one.items[0], together.items[row])
        np.testing.assert_allclose(one.scores[0], together.scores[row], atol=1e-4)


def test_it_learns_a_cycle(cyclic: Split):
    model = generator("tiger", size=8, train=TRAIN | SLOWLY, **ALONE)
    model.fit(cyclic, RunContext(seed=0))
    assert rank_queries(model, cyclic.test, ["hr@1"]).metrics["hr@1"].mean() > 0.97


def test_it_is_kept_and_loaded(ordinary: Split, tmp_path: Path):
    model = fitted("tiger", ordinary, **ALONE)
    model.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    assert loaded.config.architecture == "decoder-only"
    histories = ordinary.test.histories.take(np.arange(8))
    before, after = (one.recommend(histories, 5) for one in (model, loaded))
    np.testing.assert_array_equal(before.items, after.items)


def test_it_reads_what_it_writes():
    with pytest.raises(ValueError, match="reads codes"):
        generator("tiger", reads="items", **ALONE)
