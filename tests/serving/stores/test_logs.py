"""The log of events, in every store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.serving.stores import Event

from .making import change, events, records


def test_what_is_appended_is_read_in_its_order(store):
    store.append([Event("ann", "tea", 5), Event("bob", "jam", 6), Event("ann", "bun", 3)])
    store.append([Event("ann", "tea", 9)])
    (ann, state), (bob, _) = store.read(["ann", "bob"], "model", 4, 10)
    assert state is None
    assert store.item_ids(ann.items) == ["tea", "bun", "tea"]
    assert ann.times.tolist() == [5, 3, 9]
    assert (ann.total, bob.total) == (3, 1)
    assert store.item_ids(bob.items) == ["jam"]
    assert (ann.items.dtype, ann.times.dtype) == (np.uint32, np.int64)


def test_a_limit_gives_the_newest_and_the_whole_count(store):
    store.append(events("ann", *(f"i{n % 7}" for n in range(500))))
    for limit in (0, 1, 79, 80, 81, 160, 499, 500, 501):
        [(log, _)] = store.read(["ann"], "model", 4, limit)
        kept = min(limit, 500)
        assert log.times.tolist() == list(range(500 - kept, 500))
        assert store.item_ids(log.items) == [f"i{n % 7}" for n in range(500 - kept, 500)]
        assert log.total == 500


def test_events_added_one_by_one_equal_events_added_at_once(store):
    for n in range(200):
        store.append([Event("one", f"i{n % 3}", n)])
    store.append(events("all", *(f"i{n % 3}" for n in range(200))))
    (one, _), (all_, _) = store.read(["one", "all"], "model", 4, 150)
    assert one.items.tolist() == all_.items.tolist()
    assert one.times.tolist() == all_.times.tolist()
    assert one.total == all_.total == 200


def test_an_unknown_user_has_an_empty_log(store):
    store.append(events("ann", "tea"))
    answers = store.read(["nobody", "ann", "nobody"], "model", 4, 10)
    assert [log.total for log, _ in answers] == [0, 1, 0]
    log, state = answers[0]
    assert (len(log.items), len(log.times), log.birth, state) == (0, 0, 0, None)


def test_calls_without_arguments_do_nothing(store):
    store.append([])
    assert store.read([], "model", 4, 10) == []
    assert store.extend([]) == []
    assert store.item_ids([]) == []
    assert store.known_items() == []


def test_the_dictionary_numbers_ids_in_the_order_they_came(place, store):
    store.append(events("ann", "tea", "bun", "tea"))
    store.append(events("bob", "jam", "bun"))
    assert store.known_items() == ["tea", "bun", "jam"]
    store = place.reopen(store)
    [(log, _)] = store.read(["bob"], "model", 4, 10)
    assert store.item_ids(log.items) == ["jam", "bun"]
    assert store.known_items() == ["tea", "bun", "jam"]
    with pytest.raises(InputError, match="item number 3.*0 to 2"):
        store.item_ids([0, 3])
    with pytest.raises(InputError, match="item number"):
        store.item_ids([-1])


def test_a_list_of_known_items_is_the_callers(store):
    store.append(events("ann", "tea"))
    store.known_items().append("not an item")
    assert store.known_items() == ["tea"]


def test_what_was_read_is_the_callers_to_change(store):
    store.append(events("ann", *"ab"))
    store.extend([change("ann", 0, 2, records(1, 2))])
    [(log, state)] = store.read(["ann"], "model", 4, 10)
    log.items[:] = 99
    log.times[:] = 99
    state.records[:] = 99
    [(log, state)] = store.read(["ann"], "model", 4, 10)
    assert log.times.tolist() == [0, 1]
    assert store.item_ids(log.items) == ["a", "b"]
    np.testing.assert_array_equal(state.records, records(1, 2))


def test_sizes_are_those_of_what_is_held(store):
    assert store.size("ann") == (0, 0)
    store.append(events("ann", *(f"i{n}" for n in range(100))))
    first = store.size("ann")
    assert 100 * 12 <= first.log_bytes <= 2.5 * 100 * 12 + 200
    assert first.state_bytes == 0
    store.append(events("ann", *(f"i{n}" for n in range(900))))
    assert 1_000 * 12 <= store.size("ann").log_bytes <= 2.1 * 1_000 * 12
    store.extend([change("ann", 0, 1_000, records(*range(100)), window=100, fresh=True)])
    assert 600 <= store.size("ann").state_bytes <= 1_000
    store.extend([change("ann", 0, 1_000, records(*range(100)), window=100, model="b")])
    assert 1_200 <= store.size("ann").state_bytes <= 2_000


def test_times_are_any_that_64_bits_hold(store):
    times = [0, -1, 2**63 - 1, -(2**63), 2**53 + 1, 1_700_000_000_123]
    store.append([Event("ann", "a", time) for time in times])
    assert store.read(["ann"], "model", 4, 10)[0][0].times.tolist() == times
    bad: Any
    for bad in (2**63, -(2**63) - 1, 1.5, "7", None):
        with pytest.raises(InputError, match="milliseconds"):
            store.append([Event("ann", "a", bad)])
