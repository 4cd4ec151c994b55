"""Rankers in the service: what is kept of a user is judged, and nothing is made again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foretaste.nn.collective import CollectiveConfig
from foretaste.recommenders.core.ranker import Ranker
from foretaste.serving.engine import Engine
from foretaste.serving.models import load_run
from foretaste.serving.questions import Question
from foretaste.serving.stores import Event, open_store

from .conftest import BEGIN, HOUR
from .lists import assert_best, history_of

KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "collective": {
        "attention": "collective",
        "collective": CollectiveConfig(user_dim=4, pool_size=8),
    },
    "levels": {
        "attention": "collective",
        "collective": CollectiveConfig(user_dim=0, pool_size=8, pool_levels=3),
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["din", "sim", "sdim"])
def test_a_ranker_is_asked_with_kept_records(
    name: str, kind: str, write_run, tmp_path, monkeypatch
):
    run = load_run("run", write_run(tmp_path / "run", name, **KINDS[kind]))
    store, model = open_store("memory"), run.recommender
    engine = Engine([run], store)
    assert isinstance(model, Ranker)
    items = [f"i{place % 23:02}" for place in range(0, 600, 7)]
    times = [BEGIN + HOUR * place for place in range(len(items))]
    store.append([Event("ann", item, at) for item, at in zip(items, times, strict=True)])
    assert engine.recommend(Question("run", user="ann")).source == "history"
    with monkeypatch.context() as patched:
        patched.setattr(model.network, "remember", None)  # nothing is made of a history
        same = engine.recommend(Question("run", user="ann", k=4))
        times.append(times[-1] + HOUR)
        store.append([Event("ann", "i28", times[-1])])
        again = engine.recommend(Question("run", user="ann", k=4))
        few = engine.recommend(Question("run", user="ann", candidates=("i28", "i26", "i27")))
    assert_best(model, history_of(model, items, times[:-1]), same.items, k=4)
    wanted = history_of(model, [*items, "i28"], times)
    assert_best(model, wanted, again.items, k=4)
    expected = model.recommend(wanted, candidates=["i26", "i27"])[0]
    np.testing.assert_allclose(
        [line.score for line in few.items], [line.score for line in expected], atol=1e-5
    )
    bytes_kept = min(len(items), model.window) * model.record_bytes
    assert [one.source for one in (same, again, few)] == ["state"] * 3
    assert same.state_bytes == bytes_kept == again.state_bytes
