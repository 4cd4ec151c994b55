"""Every leak is planted once and must be named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from foretaste.data.catalog import Catalog
from foretaste.data.leakage import LeakageReport, check_leakage
from foretaste.data.sequences import Sequences
from foretaste.data.split import Queries, Split, split

from .logs import dataset

ITEMS = "abcdefgh"


@pytest.fixture(scope="module")
def clean() -> Split:
    """Four users who walk through eight items at their own pace; nothing is wrong."""
    log = [(f"u{user}", ITEMS[step], 10 * step + user) for step in range(8) for user in range(4)]
    return split(dataset(log), valid_share=0.25, test_share=0.25, min_item_count=1)


def names(report: LeakageReport) -> list[tuple[str, str, int]]:
    return [(found.name, found.severity, found.count) for found in report.findings]


def test_a_clean_split_is_clean(clean: Split) -> None:
    report = check_leakage(clean, popularity=clean.popularity, negatives=np.arange(clean.items))
    assert report.clean
    assert not report.leaks
    assert len(report.checks) == 8
    assert str(report) == "no leakage found (8 checks)"


def test_popularity_counted_on_test(clean: Split) -> None:
    counted = clean.popularity.copy()
    counted[1] += 3
    report = check_leakage(clean, popularity=counted)
    assert names(report) == [("popularity", "leak", 1)]
    assert '"b" 7 against 4' in str(report)


def test_popularity_of_another_vocabulary(clean: Split) -> None:
    report = check_leakage(clean, popularity=np.ones(clean.items + 2))
    assert names(report) == [("popularity", "leak", 2)]


def test_an_item_seen_only_after_the_cut_in_the_vocabulary(clean: Split) -> None:
    more = Catalog.from_items(pl.Series([*clean.catalog.item_ids, "later"]), None)
    report = check_leakage(replace(clean, catalog=more))
    assert names(report) == [("vocabulary", "leak", 1)]
    assert '"later"' in str(report)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_target_in_its_own_history(clean: Split, part: str) -> None:
    queries: Queries = getattr(clean, part)
    with_answer = [[*row, 2, 3] for row in queries.targets]
    planted = replace(queries, targets=Sequences.from_lists(with_answer))
    # Histories that the planted answers are in, and train rows that they are not in.
    empty = Sequences.from_lists([[]] * len(clean.users))
    untrained = replace(clean, **{part: planted, "train": empty})
    found = [f for f in check_leakage(untrained).findings if f.name != "vocabulary"]
    assert [(f.name, f.severity, f.count) for f in found] == [
        ("target in history", "leak", 2 * len(queries))
    ]


def test_duplicates_across_the_cut(clean: Split) -> None:
    # Histories forget what was trained on, so only the pair user and item tells.
    histories = Sequences.from_lists([[]] * len(clean.test))
    targets = Sequences.from_lists([[0, -1]] * len(clean.test))
    report = check_leakage(replace(clean, test=Queries(clean.test.users, histories, targets)))
    assert names(report) == [("duplicates across the cut", "leak", len(clean.test))]


def test_training_after_the_cut(clean: Split) -> None:
    assert clean.cuts is not None
    assert clean.train.times is not None
    times = clean.train.times.copy()
    times[[1, 3]] = clean.cuts[0]
    train = Sequences(clean.train.items, clean.train.offsets, times)
    assert names(check_leakage(replace(clean, train=train))) == [
        ("training after the cut", "leak", 2)
    ]


def test_history_after_the_cut(clean: Split) -> None:
    assert clean.cuts is not None
    old = clean.test.histories
    assert old.times is not None
    histories = Sequences(old.items, old.offsets, old.times + 1_000)
    planted = replace(clean, test=replace(clean.test, histories=histories))
    assert names(check_leakage(planted)) == [("history after the cut", "leak", old.events)]


def test_negatives_from_outside(clean: Split) -> None:
    report = check_leakage(clean, negatives=np.array([0, -1, clean.items, 1]))
    assert names(report) == [("negatives", "leak", 2)]


def test_leave_last_out_is_a_warning() -> None:
    data = dataset([(user, item, time) for user in "uvw" for time, item in enumerate("abc")])
    report = check_leakage(split(data, "leave-last-out"), dataset=data)
    assert names(report) == [("leave-last-out", "warning", 3)]
    assert not report.clean
    assert not report.leaks


def test_a_k_core_of_the_whole_log_is_a_warning(clean: Split) -> None:
    data = dataset([("u", "a", 0), ("u", "b", 1)], k_core=5)
    report = check_leakage(clean, dataset=data)
    assert names(report) == [("k-core before the cut", "warning", 5)]
    assert str(report).startswith("warning: k-core before the cut: the 5-core was computed on")


def test_unknown_targets_are_in_no_history(clean: Split) -> None:
    targets = Sequences.from_lists([[-1]] * len(clean.test))
    assert check_leakage(replace(clean, test=replace(clean.test, targets=targets))).clean
