"""Splits with known answers, and what must hold of every split."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foretaste.data.dataset import Dataset
from foretaste.data.leakage import check_leakage
from foretaste.data.sequences import Sequences
from foretaste.data.split import Queries, Split, SplitKind, split
from foretaste.errors import InputError

from .logs import Event, dataset

# Ten events at times 0 to 9: with shares of 0.2, valid begins at 6 and test at 8.
LOG: list[Event] = [
    ("u", "a", 0),
    ("v", "b", 1),
    ("u", "b", 2),
    ("w", "a", 3),
    ("v", "c", 4),
    ("u", "c", 5),
    ("v", "a", 6),
    ("w", "a", 7),  # w had it at 3
    ("u", "d", 8),  # d is unknown before
    ("x", "b", 9),  # x is unknown before
]


def named(sequences: Sequences, vocabulary: list[str]) -> list[str]:
    """Rows as words: "abc" is items a, b, c; "?" stands for -1."""
    return ["".join("?" if i < 0 else vocabulary[i] for i in row) for row in sequences]


def asked(result: Split, queries: Queries) -> dict[str, tuple[str, str]]:
    """History and targets of every user asked."""
    vocabulary = result.catalog.item_ids
    users = result.users[queries.users].to_list()
    histories, targets = (named(s, vocabulary) for s in (queries.histories, queries.targets))
    return dict(zip(users, zip(histories, targets, strict=True), strict=True))


def test_global_time() -> None:
    result = split(dataset(LOG), valid_share=0.2, test_share=0.2)
    assert result.cuts == (6, 8)
    assert result.catalog.item_ids == ["a", "b", "c"]
    assert result.users.to_list() == ["u", "v", "w", "x"]
    assert named(result.train, result.catalog.item_ids) == ["abc", "bc", "a", ""]
    assert asked(result, result.valid) == {"v": ("bc", "a")}
    assert asked(result, result.test) == {"u": ("abc", "?"), "x": ("", "b")}
    assert result.popularity.tolist() == [2, 2, 2]
    assert result.items == 3
    assert result.notes == ()
    assert result.fingerprint == dataset(LOG).fingerprint
    assert result.test.users.dtype == np.int32
    assert result.test.targets.items.dtype == np.int32


def test_global_time_refit_learns_the_validation_window() -> None:
    result = split(dataset(LOG), valid_share=0.2, test_share=0.2, refit=True)
    assert named(result.train, result.catalog.item_ids) == ["abc", "bca", "aa", ""]
    assert len(result.valid) == len(result.valid.histories) == len(result.valid.targets) == 0
    assert asked(result, result.test) == {"u": ("abc", "?"), "x": ("", "b")}
    assert check_leakage(result).clean


def test_the_history_of_a_test_query_reaches_to_the_test_cut() -> None:
    log = [("u", "a", 0), ("v", "b", 1), ("v", "c", 2), ("u", "b", 3), ("u", "c", 4)]
    result = split(dataset(log), valid_share=0.2, test_share=0.2)
    assert asked(result, result.valid) == {"u": ("a", "b")}
    assert asked(result, result.test) == {"u": ("ab", "c")}


def test_leave_last_out() -> None:
    result = split(dataset(LOG, has_time=False), "leave-last-out")
    # u: a b c d    v: b c a    w: a a    x: b
    assert result.cuts is None
    assert result.catalog.item_ids == ["a", "b"]
    assert named(result.train, ["a", "b"]) == ["ab", "b", "a", "b"]
    assert asked(result, result.valid) == {"u": ("ab", "?"), "v": ("b", "?")}
    assert asked(result, result.test) == {"u": ("ab", "?"), "v": ("b", "a")}
    assert "leave-last-out leaks" in result.notes[0]


def test_leave_last_out_refit() -> None:
    result = split(dataset(LOG), "leave-last-out", refit=True)
    assert named(result.train, result.catalog.item_ids) == ["abc", "bc", "a", "b"]
    assert len(result.valid) == 0
    assert asked(result, result.test) == {"u": ("abc", "?"), "v": ("bc", "a")}


WINDOW: list[Event] = [
    *(("u", item, time) for time, item in enumerate("abcd")),
    *(("v", item, 10 + time) for time, item in enumerate("ab")),  # valid
    *(("u", item, 20 + time) for time, item in enumerate("bzefe")),  # test
]


@pytest.mark.parametrize(("targets", "expected"), [("all", "???"), ("next", "?")])
def test_targets_are_new_and_asked_once(targets: Literal["all", "next"], expected: str) -> None:
    result = split(dataset(WINDOW), valid_share=2 / 11, test_share=5 / 11, targets=targets)
    assert result.cuts == (10, 20)
    assert asked(result, result.test) == {"u": ("abcd", expected)}


def test_next_takes_the_first_new_item() -> None:
    log = [("u", "a", 0), ("v", "b", 1), ("v", "c", 2), ("v", "d", 3), ("w", "d", 4)]
    log += [("u", item, 5 + time) for time, item in enumerate("acb")]
    both = split(dataset(log), valid_share=1 / 8, test_share=3 / 8)
    first = split(dataset(log), valid_share=1 / 8, test_share=3 / 8, targets="next")
    assert asked(both, both.test) == {"u": ("a", "cb")}
    assert asked(first, first.test) == {"u": ("a", "c")}


def test_rare_items_leave_the_vocabulary_but_not_the_targets() -> None:
    log = [("u", "a", 0), ("v", "a", 1), ("u", "r", 2), ("v", "b", 3), ("u", "b", 4),
           ("w", "b", 5), ("v", "r", 6), ("w", "a", 7)]  # fmt: skip
    result = split(dataset(log), valid_share=1 / 8, test_share=1 / 8, min_item_count=2)
    assert result.catalog.item_ids == ["a", "b"]
    assert named(result.train, ["a", "b"]) == ["ab", "ab", "b"]
    assert asked(result, result.valid) == {"v": ("ab", "?")}
    assert asked(result, result.test) == {"w": ("b", "a")}


def test_a_coarse_clock_moves_the_validation_window_to_the_moment_before() -> None:
    log = [("u", "a", 0), ("v", "b", 1), ("u", "b", 1), *(("w", item, 2) for item in "abcdefg")]
    result = split(dataset(log))
    assert result.cuts == (1, 2)
    assert "coarse" in result.notes[0]
    assert named(result.train, result.catalog.item_ids) == ["a", "", ""]


@pytest.mark.parametrize("kind", ["global-time", "leave-last-out"])
def test_the_smallest_logs(kind: SplitKind) -> None:
    one_user = split(dataset([("u", item, time) for time, item in enumerate("abc")]), kind)
    assert named(one_user.train, one_user.catalog.item_ids) == ["a"]
    assert asked(one_user, one_user.valid) == {"u": ("a", "?")}
    assert asked(one_user, one_user.test) == {"u": ("a", "?")}
    with pytest.raises(InputError, match="no user has an event to test on"):
        split(dataset([("u", "a", time) for time in range(5)]), kind)


def test_what_cannot_be_cut_says_why() -> None:
    with pytest.raises(InputError, match=r"too few distinct times.*1 distinct"):
        split(dataset([("u", item, 7) for item in "abcdef"]))
    with pytest.raises(InputError, match="too few distinct times"):
        split(dataset(LOG[:2]))
    with pytest.raises(InputError, match="the log has no times"):
        split(dataset(LOG, has_time=False))
    with pytest.raises(InputError, match="no user has an event to test on"):
        split(dataset([("u", "a", 0), ("v", "b", 1)]), "leave-last-out")
    with pytest.raises(InputError, match=r"no item has 9 .*min_item_count"):
        split(dataset(LOG), min_item_count=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "random"}, 'kind "random" is unknown'),
        ({"targets": "some"}, 'targets = "some" is unknown'),
        ({"valid_share": 0}, "valid_share = 0 must lie"),
        ({"test_share": 1.5}, "test_share = 1.5 must lie"),
        ({"valid_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
    ],
)
def test_wrong_options_are_errors(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(dataset(LOG), **options)


EVENTS = st.lists(
    st.tuples(st.sampled_from("uvwxy"), st.sampled_from("abcdefg"), st.integers(0, 12)),
    min_size=2,
    max_size=40,
)


def events_of(data: Dataset) -> list[tuple[int, str, int]]:
    times = data.sequences.times
    assert times is not None
    items = [data.catalog.item_ids[item] for item in data.sequences.items]
    return list(zip(data.sequences.rows.tolist(), items, times.tolist(), strict=True))


def reference(data: Dataset, kind: SplitKind, cuts: tuple[int, int] | None, row: int):
    """Train, valid and test events of one user, item by item, written the plain way."""
    events = [(item, time) for user, item, time in events_of(data) if user == row]
    if cuts is not None:
        ends = [sum(time < cut for _, time in events) for cut in cuts]
    else:
        ends = [len(events) - (len(events) >= 2) - (len(events) >= 3),
                len(events) - (len(events) >= 2)]  # fmt: skip
    items = [item for item, _ in events]
    return items[: ends[0]], items[ends[0] : ends[1]], items[ends[1] :]


def fresh(known: list[str], window: list[str]) -> list[str]:
    """Items of the window that are not known, each once, in order."""
    return [item for item in dict.fromkeys(window) if item not in known]


@given(
    EVENTS,
    st.sampled_from(["global-time", "leave-last-out"]),
    st.sampled_from(["all", "next"]),
    st.integers(1, 3),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_split(
    events: list[Event],
    kind: SplitKind,
    targets: Literal["all", "next"],
    min_item_count: int,
    refit: bool,
) -> None:
    data = dataset(events)
    try:
        result = split(
            data, kind, targets=targets, min_item_count=min_item_count, refit=refit,
            valid_share=0.2, test_share=0.2,
        )  # fmt: skip
    except InputError:
        assume(False)
        raise
    # Nothing lost: train, valid and test are what the plain way gives, for every user.
    rows = [reference(data, kind, result.cuts, row) for row in range(len(data.users))]
    learnt = [train + valid * refit for train, valid, _ in rows]
    counts = Counter(item for row in learnt for item in row)
    vocabulary = sorted(item for item, count in counts.items() if count >= min_item_count)
    assert result.catalog.item_ids == vocabulary
    inside = ["".join(item for item in row if item in vocabulary) for row in learnt]
    assert named(result.train, vocabulary) == inside
    limit = 1 if targets == "next" else None
    expected_valid, expected_test = {}, {}
    for user, (train, valid, test) in zip(data.users, rows, strict=True):
        for expected, known, window in (
            (expected_valid, train, [] if refit else valid),
            (expected_test, train + valid, test),
        ):
            new = fresh(known, window)[:limit]
            history = "".join(item for item in known if item in vocabulary)
            if new:
                expected[user] = history, "".join(i if i in vocabulary else "?" for i in new)
    assert asked(result, result.valid) == expected_valid
    assert asked(result, result.test) == expected_test
    # What a split promises, said once more without the reference.
    assert check_leakage(result, dataset=data).leaks == ()
    assert (result.popularity >= min_item_count).all()
    for part in (result.valid, result.test):
        assert (part.targets.lengths >= 1).all()
        assert (part.histories.items >= 0).all()
        assert len(part) == len(part.histories) == len(part.targets)
        for history, answers in zip(part.histories, part.targets, strict=True):
            assert not set(history.tolist()) & set(answers.tolist())
    if result.cuts is not None:
        assert result.train.times is not None
        assert (result.train.times < result.cuts[1 if refit else 0]).all()
