"""What models keep of users, through each store and back."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.serving.engine import Engine
from foretaste.serving.models import load_run
from foretaste.serving.questions import Question
from foretaste.serving.stores import Event

from ..conftest import BEGIN, HOUR, ITEMS, VARIANTS
from ..lists import assert_best, history_of


@pytest.mark.parametrize("name", ["sasrec", "hstu", "collective"])
def test_lists_are_continued_from_what_each_store_holds(name, place, run_folder):
    run = load_run(name, run_folder(name))
    model, store, rng = run.incremental, place.open(), np.random.default_rng(7)
    assert model is not None
    items: list[str] = []
    times: list[int] = []
    for part in (1, 1, 4, 3, 2 * model.window, 1, 1):
        new = [f"i{item:02}" for item in rng.integers(0, ITEMS - 5, part)]
        at = [BEGIN + HOUR * (len(items) + number) for number in range(part)]
        store.append([Event("ann", item, moment) for item, moment in zip(new, at, strict=True)])
        before = min(len(items), model.window) * model.record_bytes
        items, times = items + new, times + at
        answer = Engine([run], store).recommend(Question(name, user="ann", k=5))
        assert_best(run.recommender, history_of(run.recommender, items, times), answer.items, k=5)
        assert (answer.logged, answer.state_bytes) == (len(items), before)
        assert answer.source == ("state" if before and part < model.readable else "history")
        store = place.reopen(store)


def test_states_of_full_and_collective_models_are_never_mixed(
    place, run_folder, write_run, tmp_path
):
    model, parameters = VARIANTS["collective"]
    newer = write_run(tmp_path / "newer", model, seed=4, **parameters)
    folders = [run_folder("sasrec"), run_folder("collective"), newer]
    runs = [load_run("films", folder) for folder in folders]
    records = [run.incremental.record_bytes for run in runs if run.incremental is not None]
    assert records[0] > 2 * records[1] == 2 * records[2]
    store, items = place.open(), ["i01", "i02", "i03"]
    times = [BEGIN, BEGIN + HOUR, BEGIN + 2 * HOUR]
    store.append([Event("ann", item, at) for item, at in zip(items, times, strict=True)])
    engine = Engine(runs[:1], store)
    for run in runs:
        engine.swap(run)
        wanted = history_of(run.recommender, items, times)
        for source in ("history", "state"):
            answer = engine.recommend(Question("films", user="ann"))
            assert answer.source == source
            assert_best(run.recommender, wanted, answer.items, k=10)
    assert store.sweep(gone=[run.fingerprint for run in runs[:2]]) == 2
    assert engine.recommend(Question("films", user="ann")).source == "state"
