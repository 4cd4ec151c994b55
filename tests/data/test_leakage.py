"""Every leak is planted once and must be named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from foretaste.data.catalog import Catalog
from foretaste.data.dataset import Dataset
from foretaste.data.leakage import LeakageReport, check_codes, check_leakage
from foretaste.data.learnt_from import LearntFrom
from foretaste.data.reading import read_interactions
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


def test_a_k_core_that_was_read_is_known_without_being_said_again() -> None:
    rows = [(user, item, time) for user in "uvw" for time, item in enumerate("abcd")]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    for k, found in ((None, []), (1, []), (2, [("k-core before the cut", "warning", 2)])):
        data = Dataset.from_interactions(read_interactions(frame, k_core=k))
        assert names(check_leakage(split(data), dataset=data)) == found


def test_unknown_targets_are_in_no_history(clean: Split) -> None:
    targets = Sequences.from_lists([[-1]] * len(clean.test))
    assert check_leakage(replace(clean, test=replace(clean.test, targets=targets))).clean


def test_codes_of_the_same_train_know_no_answers(clean: Split) -> None:
    own = LearntFrom.of("co-occurrence", clean.catalog, clean.train)
    assert clean.train.times is not None
    assert (own.interactions, own.last_time_ms) == (clean.train.events, clean.train.times.max())
    report = check_leakage(clean, codes=[own])
    assert report.clean and "codes" in report.checks
    assert check_leakage(clean, codes=[]).clean


def test_the_record_of_interactions_is_that_of_their_ids(clean: Split) -> None:
    """Another numbering, and users without any, are the same interactions."""
    own = LearntFrom.of("x", clean.catalog, clean.train)
    turned = clean.catalog.take(np.arange(clean.items)[::-1])
    more = Sequences(
        clean.items - 1 - clean.train.items,
        np.append(clean.train.offsets, clean.train.events),
        clean.train.times,
    )
    assert LearntFrom.of("x", turned, more) == own
    assert LearntFrom.of("x", turned, clean.train).fingerprint != own.fingerprint
    assert LearntFrom.of("x", clean.catalog, clean.train.first(2)).fingerprint != own.fingerprint
    assert LearntFrom.from_json(json.loads(json.dumps(own.to_json()))) == own
    for wrong in (None, [], {}, {"fingerprint": "a"}, own.to_json() | {"interactions": "many"}):
        assert LearntFrom.from_json(wrong, "x") == LearntFrom("x")


def test_codes_of_the_whole_log_know_the_answers(clean: Split) -> None:
    log = [(f"u{user}", ITEMS[step], 10 * step + user) for step in range(8) for user in range(4)]
    whole = dataset(log)
    source = LearntFrom.of("co-occurrence", whole.catalog, whole.sequences)
    report = check_leakage(clean, codes=[source])
    assert names(report) == [("codes", "leak", 32)]
    assert "codes hold co-occurrence, learnt from interactions up to 1970-01-01 00:00:0" in str(
        report
    )
    assert "what is asked begins at" in str(report)


def test_codes_of_an_earlier_part_of_the_log_are_clean(clean: Split) -> None:
    earlier = clean.train.first(2)
    assert check_leakage(clean, codes=[LearntFrom.of("x", clean.catalog, earlier)]).clean
    valid = clean.valid.histories  # all before validation, but of fewer users
    assert check_leakage(clean, codes=[LearntFrom.of("x", clean.catalog, valid)]).clean
    refit = replace(clean, valid=replace(clean.valid, users=clean.valid.users[:0]))
    assert clean.cuts is not None
    between = LearntFrom("x", "other", 3, clean.cuts[0])
    assert names(check_leakage(clean, codes=[between])) == [("codes", "leak", 3)]
    assert check_leakage(refit, codes=[between]).clean  # train holds what was validation


def test_times_that_are_only_places_show_nothing(clean: Split) -> None:
    """Positions in place of times would all lie before any cut."""
    assert clean.train.times is not None
    later = Sequences(clean.train.items, clean.train.offsets, clean.train.times + 1_000)
    assert clean.cuts is not None
    real = replace(clean, train=later, cuts=(clean.cuts[0] + 1_000, clean.cuts[1] + 1_000))
    places = LearntFrom("x", "other", 3, 7)
    assert [found.severity for found in check_codes(real, [places])] == ["leak"]


def test_codes_of_other_interactions_without_a_cut_in_time() -> None:
    """Leave-last-out asks for answers of all times: nothing but the same train is surely safe."""
    data = dataset([(user, item, time) for user in "uvw" for time, item in enumerate("abcd")])
    papers = split(data, "leave-last-out")
    own = LearntFrom.of("x", papers.catalog, papers.train)
    assert not check_leakage(papers, codes=[own]).leaks
    other = LearntFrom.of("x", data.catalog, data.sequences)
    leaks = check_leakage(papers, codes=[other]).leaks
    assert [leak.count for leak in leaks] == [12]
    assert "12 interactions that are not the 6 of this split's train" in leaks[0].message


def test_codes_without_a_record_are_a_warning(clean: Split) -> None:
    report = check_leakage(clean, codes=[LearntFrom("item vectors")])
    assert names(report) == [("codes", "warning", 1)]
    assert "codes hold item vectors, and nothing is recorded" in str(report)
    assert not report.leaks
