"""States of models beside the log, in every store."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.serving.stores import Event

from .making import WIDTH, change, events, records


def test_a_state_is_begun_and_continued(store):
    store.append(events("ann", *"abcdef"))
    assert store.extend([change("ann", 0, 2, records(1, 2), fresh=True)]) == [True]
    assert store.extend([change("ann", 2, 3, records(3))]) == [True]
    [(_, state)] = store.read(["ann"], "model", 4, 0)
    assert state.consumed == 3
    assert (state.records.shape, state.records.dtype) == ((3, WIDTH), np.uint8)
    np.testing.assert_array_equal(state.records, records(1, 2, 3))
    assert store.extend([change("ann", 3, 6, records(4, 5, 6))]) == [True]
    [(_, state)] = store.read(["ann"], "model", 4, 0)
    assert state.consumed == 6
    np.testing.assert_array_equal(state.records, records(3, 4, 5, 6))


def test_a_change_of_a_state_that_moved_on_is_left_out(store):
    store.append(events("ann", *"abc"))
    both = [change("ann", 0, 1, records(1)), change("ann", 1, 2, records(2))]
    assert store.extend(both) == [True, True]
    # Two computed from the state after one event: both come too late.
    late = [change("ann", 1, 2, records(9)), change("ann", 1, 3, records(8, 9))]
    assert store.extend(late) == [False, False]
    assert store.extend([change("ann", 3, 3, records())]) == [False]
    [(_, state)] = store.read(["ann"], "model", 4, 0)
    assert state.consumed == 2
    np.testing.assert_array_equal(state.records, records(1, 2))


def test_no_state_counts_as_one_that_has_read_nothing(store):
    store.append(events("ann", *"abc"))
    assert store.extend([change("ann", 1, 2, records(2))]) == [False]
    assert store.extend([change("ann", 0, 2, records(1, 2))]) == [True]
    assert store.extend([change("ann", 0, 2, records(1, 2))]) == [False]


def test_a_fresh_state_replaces_any(store):
    store.append(events("ann", *"abc"))
    store.extend([change("ann", 0, 3, records(1, 2, 3), fresh=True)])
    assert store.extend([change("ann", 7, 2, records(8, 9), fresh=True)]) == [True]
    [(_, state)] = store.read(["ann"], "model", 4, 0)
    assert state.consumed == 2
    np.testing.assert_array_equal(state.records, records(8, 9))


def test_events_may_be_read_without_leaving_a_record(store):
    store.append(events("ann", *"abc"))
    nothing = np.empty((0, WIDTH), np.uint8)
    assert store.extend([change("ann", 0, 2, nothing, fresh=True)]) == [True]
    [(_, state)] = store.read(["ann"], "model", 4, 0)
    assert (state.consumed, state.records.shape) == (2, (0, WIDTH))
    assert store.extend([change("ann", 2, 3, records(3))]) == [True]
    assert store.extend([change("ann", 3, 3, nothing)]) == [True]
    [(_, state)] = store.read(["ann"], "model", 4, 0)
    assert state.consumed == 3
    np.testing.assert_array_equal(state.records, records(3))


def test_records_of_another_length_are_left_out(store):
    store.append(events("ann", *"abc"))
    store.extend([change("ann", 0, 1, records(1))])
    assert store.extend([change("ann", 1, 2, records(2, width=WIDTH + 1))]) == [False]
    assert store.extend([change("ann", 1, 2, records(2, 3, width=WIDTH // 2)[:1])]) == [False]
    assert store.extend([change("ann", 0, 1, records(2, width=1), fresh=True)]) == [True]
    [(_, state)] = store.read(["ann"], "model", 4, 0)
    np.testing.assert_array_equal(state.records, records(2, width=1))


def test_a_state_never_runs_ahead_of_its_log(store):
    store.append(events("ann", "a"))
    both = [change("ann", 0, 2, records(1), fresh=True), change("nobody", 0, 0, records())]
    assert store.extend(both) == [False, False]
    assert [state for _, state in store.read(["ann", "nobody"], "model", 4, 0)] == [None, None]


def test_states_of_two_models_are_apart(store):
    store.append(events("ann", *"ab"))
    store.extend([change("ann", 0, 1, records(1)), change("ann", 0, 2, records(7, 8, width=3))])
    store.extend([change("ann", 0, 2, records(7, 8, width=3), model="other")])
    [(_, one)], [(_, two)] = (store.read(["ann"], f, 4, 0) for f in ("model", "other"))
    np.testing.assert_array_equal(one.records, records(1))
    np.testing.assert_array_equal(two.records, records(7, 8, width=3))
    assert store.read(["ann"], "third", 4, 0)[0][1] is None


@pytest.mark.parametrize(("width", "window"), [(14, 50), (2_048, 50), (700, 5), (20_000, 3)])
def test_a_state_is_bounded_by_its_window(place, store, width, window):
    rng = np.random.default_rng(0)
    many = 5 * window
    made = rng.integers(0, 256, (many, width), dtype=np.uint8)
    store.append(events("ann", *("x" for _ in range(many))))
    biggest = at = 0
    while at < many:
        step = min(int(rng.integers(1, 4)), many - at)
        one = change("ann", at, at + step, made[at : at + step], window=window)
        assert store.extend([one]) == [True]
        at += step
        [(_, state)] = store.read(["ann"], "model", window, 0)
        np.testing.assert_array_equal(state.records, made[max(at - window, 0) : at])
        biggest = max(biggest, store.size("ann").state_bytes)
    # Trimmed at twice the window. Redis and Python allocate more than they were asked for; of
    # LMDB's pages a wide record leaves a part empty.
    slack = {"memory": 1.2, "lmdb": 1.25, "redis": 2}[place.kind]
    assert biggest <= slack * (2 * window + 3) * width + 500
    # A whole new state of more records than the window is cut at once.
    store.extend([change("ann", 0, many, made, window=window, fresh=True)])
    assert store.size("ann").state_bytes <= slack * window * width + 500
    store = place.reopen(store)
    [(_, state)] = store.read(["ann"], "model", window, 0)
    np.testing.assert_array_equal(state.records, made[-window:])


def test_a_narrower_window_gives_the_newest_records(store):
    store.append(events("ann", *"abcdef"))
    store.extend([change("ann", 0, 6, records(1, 2, 3, 4, 5, 6), window=6)])
    [(_, state)] = store.read(["ann"], "model", 2, 0)
    np.testing.assert_array_equal(state.records, records(5, 6))


def test_to_forget_removes_the_log_and_every_state(place, store):
    store.append([*events("ann", *"abc"), *events("anna", *"ab")])
    for model in ("model", "other"):
        store.extend([change("ann", 0, 3, records(1, 2, 3), model=model)])
        store.extend([change("anna", 0, 2, records(7, 8), model=model)])
    assert store.forget("ann") is True
    assert store.forget("ann") is False
    assert store.size("ann") == (0, 0)
    store = place.reopen(store)
    for model in ("model", "other"):
        (ann, none), (anna, state) = store.read(["ann", "anna"], model, 4, 10)
        assert (ann.total, none) == (0, None)
        assert anna.total == 2
        np.testing.assert_array_equal(state.records, records(7, 8))


def test_a_change_from_before_the_forgetting_is_refused_after_it(store):
    store.append(events("ann", *"abc"))
    [(log, _)] = store.read(["ann"], "model", 4, 10)
    old = change("ann", 0, 3, records(1, 2, 3), fresh=True, birth=log.birth)
    store.forget("ann")
    assert store.extend([old, old._replace(birth=None)]) == [False, False]
    store.append(events("ann", *"xyz"))  # as long as before
    [(log, state)] = store.read(["ann"], "model", 4, 10)
    assert state is None and log.birth not in (0, old.birth)
    assert store.extend([old, old._replace(fresh=False)]) == [False, False]
    assert store.read(["ann"], "model", 4, 10)[0][1] is None
    assert store.extend([old._replace(birth=log.birth)]) == [True]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"records": records(1).astype(np.int32)}, "uint8"),
        ({"records": records(1)[0]}, "uint8"),
        ({"records": np.empty((1, 0), np.uint8)}, "uint8"),
        ({"window": 0}, "window"),
        ({"expected": 3}, "consumed = 2 after 3"),
        ({"expected": -1}, "consumed"),
        ({"consumed": 2**32}, "consumed"),
        ({"records": records(1, 2, 3)}, "3 records of 2 events"),
        ({"birth": -1}, "birth"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(store, wrong, said):
    store.append(events("ann", *"ab"))
    with pytest.raises(InputError, match=said):
        store.extend([change("ann", 0, 2, records(1, 2))._replace(**wrong)])
    assert store.read(["ann"], "model", 4, 0)[0][1] is None


def test_threads_lose_nothing_and_mix_nothing(store):
    users, each = ["ann", "bob", "cid"], 60
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(each):
                store.append([Event(user, f"{thread}-{n % 5}", n) for user in users])
                answers = store.read(users, "model", 8, 10_000)
                changes = []
                for user, (log, state) in zip(users, answers, strict=True):
                    since = 0 if state is None else state.consumed
                    made = log.items[since:, None].astype("<u4").view(np.uint8)
                    changes.append(change(user, since, log.total, made, window=8))
                store.extend(changes)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for log, state in store.read(users, "model", 8, 10_000):
        ids = store.item_ids(log.items)
        for thread in range(4):  # of each thread all events, in its order
            own = [item for item in ids if item.startswith(f"{thread}-")]
            assert own == [f"{thread}-{n % 5}" for n in range(each)]
        assert state is not None
        read = log.items[: state.consumed][-8:]
        np.testing.assert_array_equal(state.records.view("<u4").ravel(), read)
