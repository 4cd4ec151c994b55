"""Click tasks: histories hold what came before and nothing else, whatever the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.click_leakage import check_clicks
from foretaste.data.clicks import (
    ClickTask,
    Impressions,
    rated_clicks,
    rating_levels,
    sampled_clicks,
)
from foretaste.data.dataset import Dataset
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

from .logs import interactions

Rated = tuple[str, str, int, float | None]

# u1 meets five items, two of them at one moment; u2 meets five.
LOG: list[Rated] = [
    ("u1", "a", 1, 5), ("u1", "b", 2, 1), ("u1", "c", 3, 4), ("u1", "d", 3, 2), ("u1", "e", 4, 5),
    ("u2", "a", 1, 2), ("u2", "c", 2, 4), ("u2", "b", 3, 3), ("u2", "d", 4, 5), ("u2", "f", 9, 4),
]  # fmt: skip


def rated(rows: list[Rated], *, has_time: bool = True) -> Dataset:
    log = interactions([row[:3] for row in rows], has_time=has_time)
    ratings = pl.Series("rating", [row[3] for row in rows], dtype=pl.Float64)
    return Dataset.from_interactions(replace(log, frame=log.frame.with_columns(ratings)))


def unrated(rows: list[Rated]) -> Dataset:
    return Dataset.from_interactions(interactions([row[:3] for row in rows]))


def click_leaks(task: ClickTask) -> tuple[str, ...]:
    return tuple(found.message for found in check_clicks(task, "user-time").leaks)


def shown(task: ClickTask, part: Impressions) -> list[tuple[str, str | None, bool, str]]:
    """User, item, label and history of each impression, in ids."""
    ids = task.catalog.item_ids
    return [
        (
            task.users[int(user)],
            ids[item] if item >= 0 else None,
            bool(label),
            "".join(ids[i] for i in task.events[user][:end]),
        )
        for user, end, item, label in zip(
            part.users, part.ends, part.items, part.labels, strict=True
        )
    ]


SHARES: dict[str, Any] = {"valid_share": 0.2, "test_share": 0.2}


# --- By hand ------------------------------------------------------------------------------------


def test_known_answer():
    task = rated_clicks(rated(LOG), **SHARES)
    assert task.catalog.item_ids == ["a", "b", "c"]
    assert shown(task, task.train) == [
        ("u1", "a", True, ""), ("u1", "b", False, "a"), ("u1", "c", True, "ab"),
        ("u2", "a", False, ""), ("u2", "c", True, "a"), ("u2", "b", False, "ac"),
    ]  # fmt: skip
    # d, e and f are not known from train: not in histories, and asked for as unknown items. d of
    # u1 is of the same moment as c, which is thus not in its history.
    assert shown(task, task.valid) == [("u1", None, False, "ab"), ("u2", None, True, "acb")]
    assert shown(task, task.test) == [("u1", None, True, "abc"), ("u2", None, True, "acb")]
    assert task.popularity.tolist() == [1, 0, 2]
    assert click_leaks(task) == ()
    assert str(task) == (
        "3 items; impressions: train 6 (50% clicks), valid 2 (50% clicks), test 2 (100% clicks)"
    )


def test_ratings_of_events_are_levels():
    task = rated_clicks(rated(LOG), **SHARES)
    assert task.rating_values.tolist() == [1, 2, 3, 4, 5]
    assert task.levels is not None
    assert task.levels.tolist() == [5, 1, 4, 2, 4, 3]  # a b c of u1, a c b of u2
    assert task.levels.dtype == np.int8


def test_histories_of_clicks_alone():
    task = rated_clicks(rated(LOG), history="positives", **SHARES)
    assert [line[3] for line in shown(task, task.train)] == ["", "a", "a", "", "", "c"]
    assert [line[3] for line in shown(task, task.test)] == ["ac", "c"]
    assert task.levels is not None
    assert task.levels.tolist() == [5, 4, 4]


def test_events_without_a_rating_are_seen_but_not_asked_for():
    rows = [*LOG[:1], ("u1", "c", 2, None), *LOG[1:]]
    task = rated_clicks(rated(rows), **SHARES)
    assert task.levels is not None
    assert task.levels[:2].tolist() == [5, 0]
    assert [line[1] for line in shown(task, task.train)[:3]] == ["a", "b", "c"]
    assert shown(task, task.train)[2][3] == "acb"


def test_cut_at_points_in_time():
    # Ten impressions, at times 1 1 2 2 3 3 3 4 4 9: valid from the seventh on, test from the ninth.
    task = rated_clicks(rated(LOG), kind="global-time", **SHARES)
    assert sorted(task.train.times) == [1, 1, 2, 2]
    assert sorted(task.valid.times) == [3, 3, 3]
    assert sorted(task.test.times) == [4, 4, 9]
    assert click_leaks(task) == ()


@pytest.mark.parametrize(
    ("events", "parts"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (2, 1, 0)), (5, (4, 0, 1)), (10, (8, 1, 1))],
)  # fmt: skip
def test_shares_of_each_user(events: int, parts: tuple[int, int, int]):
    rows: list[Rated] = [("v", f"i{n}", n, 1.0 + 4 * (n % 2)) for n in range(100)]
    rows += [("u", f"i{n}", n, 5.0) for n in range(events)]
    task = rated_clicks(rated(rows))
    counts = tuple(int((part.users == 0).sum()) for part in (task.train, task.valid, task.test))
    assert counts == parts


def test_levels_are_the_nearest():
    values = np.array([1.0, 2.0, 4.0], np.float32)
    found = rating_levels(np.array([1, 1.4, 1.6, 2.9, 3.1, 9, -5, np.nan], np.float32), values)
    assert found.tolist() == [1, 1, 2, 2, 3, 3, 1, 0]
    assert rating_levels(np.array([3.0, np.nan]), np.zeros(0, np.float32)).tolist() == [0, 0]


def test_fine_scales_are_cut():
    rng = np.random.default_rng(0)
    ratings = rng.random(2_000)
    rows: list[Rated] = [(f"u{n % 20}", f"i{n}", n, float(r)) for n, r in enumerate(ratings)]
    task = rated_clicks(rated(rows), threshold=0.5)
    assert len(task.rating_values) == 32
    assert task.levels is not None
    assert set(np.unique(task.levels)) == set(range(1, 33))
    assert np.bincount(task.levels)[1:].min() > 20


# --- Sampled negatives --------------------------------------------------------------------------


def test_negatives_follow_their_click():
    rows: list[Rated] = [(f"u{n % 4}", f"i{n % 44 // 2}", n, None) for n in range(44)]
    dataset = unrated(rows)
    task = sampled_clicks(dataset, negatives=3, seed=5)
    ids = task.catalog.item_ids
    all_items = dataset.catalog.item_ids
    for part in (task.train, task.valid, task.test):
        groups = np.arange(len(part)).reshape(-1, 4)
        assert part.labels[groups].tolist() == [[True, False, False, False]] * len(groups)
        for name in ("users", "ends", "times"):
            values = getattr(part, name)[groups]
            assert (values == values[:, :1]).all()
        met = [{all_items[i] for i in row} for row in dataset.sequences]
        for user, item in zip(part.users[~part.labels], part.items[~part.labels], strict=True):
            assert ids[item] not in met[user]
    assert len(task.train) + len(task.valid) + len(task.test) == 4 * 44
    assert click_leaks(task) == ()
    assert any("3 negatives" in note for note in task.notes)
    assert sampled_clicks(dataset, negatives=3, seed=5).fingerprint == task.fingerprint
    assert sampled_clicks(dataset, negatives=3, seed=6).fingerprint != task.fingerprint


def test_a_user_who_met_everything_gets_no_negatives():
    rows: list[Rated] = [("u1", item, time, None) for time, item in enumerate("abcde")]
    rows.append(("u2", "a", 1, None))
    task = sampled_clicks(unrated(rows), negatives=2)
    assert task.train.labels[task.train.users == 0].all()
    assert (task.train.users == 1).sum() == 3
    assert any("negatives are missing" in note for note in task.notes)


def test_popular_items_are_drawn_more_often():
    rows: list[Rated] = [(f"u{n}", "hit", 2 * n, None) for n in range(60)]
    rows += [(f"u{n}", f"i{n}", 2 * n + 1, None) for n in range(60)]
    rows += [("w", f"i{n}", n, None) for n in range(5)]
    by_count = sampled_clicks(unrated(rows), negatives=200, sampling="popularity")
    hit = by_count.catalog.item_ids.index("hit")
    mine = by_count.train.take((by_count.train.users == 60) & ~by_count.train.labels)
    alike = sampled_clicks(unrated(rows), negatives=200)
    other = alike.train.take((alike.train.users == 60) & ~alike.train.labels)
    assert (mine.items == hit).mean() > 0.4
    assert 0 < (other.items == alike.catalog.item_ids.index("hit")).mean() < 0.1


# --- Properties ---------------------------------------------------------------------------------


def by_loop(rows: list[Rated], known: set[str], positives: bool) -> dict[tuple[str, str, int], str]:
    """The history of every event, the plain way: what the user met at an earlier time."""
    ordered = sorted(rows, key=lambda row: row[2])
    return {
        (user, item, time): "".join(
            i
            for u, i, t, r in ordered
            if u == user and t < time and i in known and (not positives or (r or 0) >= 4)
        )
        for user, item, time, _ in rows
    }


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("uvw"), st.sampled_from("abcde"), st.integers(0, 5),
            st.sampled_from([1.0, 4.0, 5.0, None]),
        ),
        min_size=4, max_size=40, unique_by=lambda row: row[:3],
    ),
    st.booleans(),
    st.sampled_from(["user-time", "global-time"]),
)  # fmt: skip
def test_histories_equal_a_loop_over_the_log(rows, positives, kind):
    history = "positives" if positives else "all"
    try:
        task = rated_clicks(rated(rows), history=history, kind=kind, **SHARES)
    except InputError as error:
        assert "\n" not in str(error)
        return
    expected = by_loop(rows, set(task.catalog.item_ids), positives)
    parts = (task.train, task.valid, task.test)
    asked = 0
    for part in parts:
        for (user, item, _, seen), time in zip(shown(task, part), part.times, strict=True):
            if item is not None:
                assert seen == expected[user, item, time]
        asked += len(part)
    assert asked == sum(row[3] is not None for row in rows)
    assert click_leaks(task) == ()
    order = [part.times.max(initial=0) for part in parts]
    if kind == "global-time":
        assert order == sorted(order)


# --- Leaks --------------------------------------------------------------------------------------


def planted(task: ClickTask, name: str, **changes: np.ndarray) -> ClickTask:
    return replace(task, **{name: replace(getattr(task, name), **changes)})


def test_a_planted_leak_is_caught():
    rows: list[Rated] = [(f"u{n % 5}", f"i{n % 7}", n, 1.0 + n % 5) for n in range(100)]
    task = rated_clicks(rated(rows))
    assert click_leaks(task) == ()
    for name in ("train", "valid", "test"):
        part = getattr(task, name)
        # The event itself in its own history.
        (found,) = click_leaks(planted(task, name, ends=part.ends + 1))
        assert found.startswith(f"{name}: {len(part)} histories reach")
    (found,) = click_leaks(planted(task, "test", ends=task.test.ends + 99))
    assert "end outside" in found
    learnt = replace(task, train=task.test)
    assert any("clicks are in train as well" in line for line in click_leaks(learnt))


def test_one_wrong_history_among_many_is_caught():
    rows: list[Rated] = [(f"u{n % 5}", f"i{n % 7}", n, 1.0 + n % 5) for n in range(100)]
    task = rated_clicks(rated(rows))
    ends = task.valid.ends.copy()
    ends[3] += 1
    assert click_leaks(planted(task, "valid", ends=ends)) == (
        "valid: 1 histories reach the impression or beyond",
    )


def test_what_makes_figures_optimistic_is_told():
    dataset = rated(LOG)
    by_user = check_clicks(rated_clicks(dataset, **SHARES), "user-time", dataset=dataset)
    assert [(one.name, one.severity) for one in by_user.findings] == [("user-time", "warning")]
    task = rated_clicks(dataset, kind="global-time", **SHARES)
    assert check_clicks(task, "global-time", dataset=dataset).clean
    cored = replace(dataset, k_core=5)
    (found,) = check_clicks(task, "global-time", dataset=cored).findings
    assert found.name == "k-core before the cut"


def test_fingerprints_tell_tasks_apart():
    dataset = rated(LOG)
    task = rated_clicks(dataset, **SHARES)
    assert rated_clicks(dataset, **SHARES).fingerprint == task.fingerprint
    for other in (
        rated_clicks(dataset, threshold=3, **SHARES),
        rated_clicks(dataset, history="positives", **SHARES),
        replace(task, levels=None),
        replace(task, test=task.valid),
    ):
        assert other.fingerprint != task.fingerprint


# --- What is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 9}, "no rating is 9 or higher.*between 1 and 5"),
        ({"threshold": 1}, "all ratings are 1 or higher"),
        ({"history": "some"}, 'history = "some"'),
        ({"kind": "random"}, 'kind = "random"'),
        ({"valid_share": 0}, "valid_share = 0"),
        ({"test_share": 1.5}, "test_share = 1.5"),
        ({"valid_share": 0.5, "test_share": 0.5}, "leave nothing"),
        ({"valid_share": 0.001, "test_share": 0.001}, "nothing is left to test on"),
        ({"valid_share": 0.49, "test_share": 0.5, "kind": "global-time"}, "too few distinct times"),
    ],
)
def test_wrong_options_are_said(options, says):
    with pytest.raises(InputError, match=says) as error:
        rated_clicks(rated(LOG), **options)
    assert "\n" not in str(error.value)


def test_logs_that_cannot_be_a_task_are_said():
    with pytest.raises(InputError, match=r"no ratings.*--rating-col"):
        rated_clicks(unrated(LOG))
    with pytest.raises(InputError, match="no ratings"):
        rated_clicks(rated([(*row[:3], None) for row in LOG]))
    with pytest.raises(InputError, match="no times"):
        rated_clicks(rated(LOG, has_time=False), kind="global-time")
    with pytest.raises(InputError, match="negatives = 0"):
        sampled_clicks(unrated(LOG), negatives=0)
    with pytest.raises(InputError, match='sampling = "some"'):
        sampled_clicks(unrated(LOG), sampling="some")  # type: ignore[arg-type]


def test_an_order_alone_is_enough_for_user_time():
    task = rated_clicks(rated(LOG, has_time=False), **SHARES)
    assert len(task.train) == 6
    assert click_leaks(task) == ()


def test_events_are_kept_once():
    task = rated_clicks(rated(LOG), **SHARES)
    assert isinstance(task.events, Sequences)
    assert task.events.events == 6
