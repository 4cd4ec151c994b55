"""Reasons that a generator gives: codes in words, events that count, thoughts."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from foretaste.codes.table import Codes
from foretaste.data.catalog import Catalog
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.explaining import Describer
from foretaste.recommenders.s2gr import S2GRNetwork

from ..generators import fitted, generator


@pytest.fixture(scope="module")
def told(cyclic: Split) -> Split:
    """Items of even number are odd in name: categories "left" and "right"."""
    frame = cyclic.catalog.frame.with_row_index("number").with_columns(
        pl.when(pl.col("number") % 2 == 0)
        .then(pl.lit(["left"]))
        .otherwise(pl.lit(["right"]))
        .alias("categories"),
        ("Film " + pl.col("item_id")).alias("title"),
    )
    catalog = dataclasses.replace(cyclic.catalog, frame=frame.drop("number"))
    return dataclasses.replace(cyclic, catalog=catalog)


@pytest.mark.parametrize("name", ["tiger", "mdgr", "s2gr"])
def test_reasons_name_codes_and_events(name: str, told: Split):
    model = fitted(name, told, source="collaborative")
    (reason,) = model.explain(["i0002", "i0003", "nonsense", "i0004"], ["i0005"])
    assert (reason.item_id, reason.title) == ("i0005", "Film i0005")
    assert [code.code for code in reason.codes] == model.codes.table[5].tolist()
    assert all(code.items >= 1 and code.words for code in reason.codes)
    assert sorted(event.item_id for event in reason.events) == ["i0002", "i0003", "i0004"]
    falls = [event.fall for event in reason.events]
    assert falls == sorted(falls, reverse=True) and np.isfinite(falls).all()
    assert all((code.thought is not None) is (name == "s2gr") for code in reason.codes)


def test_a_thought_is_told_as_the_whole_cluster_it_points_at(told: Split):
    """Not as the part of it that the codes before leave, in which there may be no item."""
    model = fitted("s2gr", told, source="collaborative", clusters=2)
    network = model.network
    assert isinstance(network, S2GRNetwork)
    describer = Describer(told.catalog, model.codes, told.popularity)
    of_level = [
        {
            describer.words(np.flatnonzero(network.clusters(level).numpy()[codes] == cluster))
            for cluster in range(2)
        }
        for level, codes in enumerate(model.codes.table.T)
    ]
    reasons = model.explain(["i0002", "i0003"], told.catalog.item_ids)
    for reason in reasons:
        for code in reason.codes:
            assert code.thought in of_level[code.level]
    # Before the first code nothing of an item is written, so the thought is the same for all.
    assert len({reason.codes[0].thought for reason in reasons}) == 1


def test_the_event_that_counts_is_found(told: Split):
    train = {"epochs": 40, "batch_tokens": 256, "learning_rate": 1e-2, "validate_every": 40}
    model = generator("tiger", source="collaborative", train=train)
    model.fit(told, RunContext(seed=0))
    (reason,) = model.explain(["i0002", "i0003", "i0004"], ["i0005"])
    assert reason.events[0].item_id == "i0004"  # the cycle's last step says what comes next
    assert reason.events[0].fall > 1


def test_words_are_categories_that_are_common_here_and_not_everywhere(told: Split):
    model = fitted("tiger", told, source="collaborative")
    describer = Describer(told.catalog, model.codes, told.popularity)
    assert describer.words(np.array([0, 2, 4])) == "left"
    assert describer.words(np.array([1, 3, 4])) == "right"
    popular = max([0, 1], key=lambda item: told.popularity[item])
    assert describer.words(np.array([0, 1])).startswith(f"Film i{popular:04}")
    assert describer.words(np.arange(12)).endswith(" and 10 more")
    assert describer.words(np.array([], np.int64)) == "nothing"


def test_a_category_that_an_item_has_twice_counts_once(told: Split):
    frame = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "categories": [["x"] * 4, [], [], []]})
    table = np.arange(4, dtype=np.int32)[:, None]
    codes = Codes(frame["item_id"], table, (4,), table, (np.zeros((4, 2), np.float32),), True)
    describer = Describer(Catalog.from_items(frame["item_id"], frame), codes, np.arange(4))
    assert describer.words(np.arange(3)) == "c / b and 1 more"


def test_a_code_stands_for_the_items_that_share_it(told: Split):
    for name, first in (("tiger", 0), ("mdgr", 2)):
        model = fitted(name, told, source="collaborative")
        describer = Describer(told.catalog, model.codes, told.popularity)
        table = model.codes.table
        same = (table[:, first:3] == table[7, first:3]).all(1)
        assert describer.code(7, 2).items == same.sum()


def test_wrong_questions_are_said(told: Split):
    model = fitted("tiger", told, source="collaborative")
    with pytest.raises(InputError, match='item "nonsense" is not in the catalog'):
        model.explain(["i0002"], ["nonsense"])
    with pytest.raises(InputError, match="nothing of this history"):
        model.explain(["nonsense"], ["i0002"])
    (reason,) = model.explain(["i0002"], ["i0003"])
    assert reason.events == ()  # without its only event nothing could be said
