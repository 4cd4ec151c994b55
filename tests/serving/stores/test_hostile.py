"""Ids that want to be something else, in every store."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.serving.stores import Event

from .making import change, records

HOSTILE = [
    "",
    " ",
    "\0",
    "a\0b",
    "a",
    "a\n",
    "a\r\nSET x 1",
    "../../etc/passwd",
    "*",
    "ft:names",
    "é",
    "e\u0301",  # the same to the eye
    "👩‍👩‍👧",
    "\U0010ffff",
    "\ufeff",
    "x" * 512,
    "x" * 511 + "y",
    "é" * 256,
    "'; DROP TABLE users; --",
    "%s%n",
]


def test_hostile_ids_are_ids_like_others(place, store):
    given = [Event(user, item, 7) for user in HOSTILE for item in HOSTILE[:3]]
    given += [Event("items", item, 7) for item in HOSTILE]
    store.append(given)
    store.extend([change(user, 0, 1, records(n)) for n, user in enumerate(HOSTILE)])
    store = place.reopen(store)
    for n, (log, state) in enumerate(store.read(HOSTILE, "model", 4, 10)):
        assert store.item_ids(log.items) == HOSTILE[:3]
        np.testing.assert_array_equal(state.records, records(n))
    [(log, _)] = store.read(["items"], "model", 4, 100)
    assert store.item_ids(log.items) == HOSTILE
    assert all(store.forget(user) for user in HOSTILE)
    assert [log.total for log, _ in store.read([*HOSTILE, "items"], "model", 4, 1)] == [
        *(0 for _ in HOSTILE),
        len(HOSTILE),
    ]


@pytest.mark.parametrize("bad", ["x" * 513, "é" * 257, "\ud800", 7, None, b"ann"])
def test_what_is_no_id_is_refused_and_nothing_is_written(store, bad):
    for events_ in ([Event("ann", "a", 1), Event(bad, "b", 1)], [Event("ann", bad, 1)]):
        with pytest.raises(InputError, match=r"^(user|item) .*") as raised:
            store.append(events_)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 200
    for call in (
        lambda: store.read(["ann", bad], "model", 4, 1),
        lambda: store.forget(bad),
        lambda: store.size(bad),
        lambda: store.extend([change(bad, 0, 1, records(1))]),
    ):
        with pytest.raises(InputError, match="^user"):
            call()
    assert store.read(["ann"], "model", 4, 1)[0][0].total == 0


def test_a_window_or_limit_that_makes_no_sense_is_refused(store):
    for window, limit in ((0, 1), (1, -1)):
        with pytest.raises(InputError, match="window"):
            store.read(["ann"], "model", window, limit)
