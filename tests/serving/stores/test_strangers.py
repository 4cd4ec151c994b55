"""Item ids that nobody vouches for: the dictionary takes so many and no more."""

from __future__ import annotations

import numpy as np

from foretaste.serving.stores import NAMELESS

from .making import change, events, records


def items(store, user: str) -> list[str | None]:
    """The ids in a log, None where the id was not kept."""
    [(log, _)] = store.read([user], "model", 4, 10_000)
    named = log.items != NAMELESS
    ids = iter(store.item_ids(log.items[named]))
    return [next(ids) if one else None for one in named.tolist()]


def test_strangers_are_named_while_there_is_room(store):
    store.append(events("ann", "x", "tea", "y", "z"), strangers=["x", "y", "z"], room=2)
    assert items(store, "ann") == ["x", "tea", "y", None]
    assert store.known_items() == ["x", "tea", "y"]
    # Who is known stays known, what is vouched for is always taken in, and nothing else is.
    store.append(events("bob", "y", "new", "z", "bun"), strangers=["y", "new", "z"], room=2)
    assert items(store, "bob") == ["y", None, None, "bun"]
    store.append(events("bob", "z"), strangers=["z"], room=3)
    assert items(store, "bob")[-1] == "z"
    assert items(store, "ann") == ["x", "tea", "y", None]  # lost for good


def test_a_flood_of_strangers_leaves_the_dictionary_as_it_is(store):
    store.append(events("ann", "tea"))
    for part in range(5):
        flood = [f"{part}-{n}" for n in range(2_000)]
        store.append(events("ann", *flood), strangers=flood, room=100)
    assert len(store.known_items()) == 101
    [(log, _)] = store.read(["ann"], "model", 4, 20_000)
    assert log.total == len(log.items) == 10_001
    assert int((log.items == NAMELESS).sum()) == 10_000 - 100
    assert log.times.tolist()[1:2_001] == list(range(2_000))


def test_events_without_a_name_count_as_events(place, store):
    store.append(events("ann", "x", "y"), strangers=["x", "y"], room=0)
    assert store.extend([change("ann", 0, 2, records(1, 2))]) == [True]
    again = place.reopen(store)
    [(log, state)] = again.read(["ann"], "model", 4, 10)
    assert (log.total, state.consumed) == (2, 2)
    assert log.items.dtype == np.uint32 and (log.items == NAMELESS).all()
    assert again.known_items() == []
    assert again.forget("ann")


def test_the_states_of_one_model_are_swept_and_no_others(store):
    store.append(events("ann", "a"))
    models = ("old", "new", "of another service")
    store.extend([change("ann", 0, 1, records(1), model=model) for model in models])
    assert store.sweep(gone=["old", "never seen"]) == 1
    held = [store.read(["ann"], model, 4, 0)[0][1] is not None for model in models]
    assert held == [False, True, True]
    assert store.sweep(gone=["new", "of another service"]) == 2
