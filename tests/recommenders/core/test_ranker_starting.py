"""Rankers begun from a trained one: what must be the same again, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.data.clicks import ClickTask
from foretaste.errors import InputError
from foretaste.recommenders.core.base import RunContext

from .rankers import every_ranker, known, made

STILL = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
ALL_KEPT = {"user_dim": 16, "pool_size": 0, "user_type": "fp32"}


@pytest.fixture
def trained(same_group: ClickTask, fitted, tmp_path):
    """``trained(name)``: the folder of a ranker with full attention, and its probabilities."""

    def get(name: str) -> tuple[Path, np.ndarray]:
        model = fitted(name)
        model.save(tmp_path / name)
        return tmp_path / name, model.click_probabilities(same_group, same_group.test)

    return get


def begun(name: str, folder: Path, task: ClickTask, **parameters: Any) -> np.ndarray:
    """Probabilities of a ranker that started from ``folder`` and learnt nothing since."""
    model = made(name, start_from=folder, train=STILL, **parameters)
    model.fit_clicks(task, RunContext(seed=1))
    return model.click_probabilities(task, task.test)


@every_ranker
def test_the_same_form_goes_on_from_the_same_weights(name: str, same_group: ClickTask, trained):
    folder, expected = trained(name)
    np.testing.assert_allclose(begun(name, folder, same_group), expected, atol=1e-6)


@every_ranker
def test_where_nothing_is_lost_it_is_the_same_ranker(name: str, same_group: ClickTask, trained):
    folder, expected = trained(name)
    parameters = {"attention": "collective", "collective": ALL_KEPT}
    found = begun(name, folder, same_group, **parameters)
    # SDIM counts signs: one that lies at zero may fall to the other side of it.
    np.testing.assert_allclose(np.median(np.abs(found - expected)), 0, atol=1e-4)
    assert (np.abs(found - expected) < 1e-3).mean() > 0.95


@every_ranker
def test_few_bytes_begin_near_and_far_nearer_than_chance(name, same_group: ClickTask, trained):
    folder, _ = trained(name)
    asked = known(same_group, same_group.test)
    few = {"attention": "collective", "collective": {"user_dim": 2, "pool_size": 20}}
    near = made(name, start_from=folder, train=STILL, **few)
    near.fit_clicks(same_group, RunContext(seed=1))
    chance = made(name, train=STILL, **few)
    chance.fit_clicks(same_group, RunContext(seed=1))
    right = [
        ((model.click_probabilities(same_group, asked) > 0.5) == asked.labels).mean()
        for model in (near, chance)
    ]
    assert right[0] > 0.9 > 0.7 > right[1]


def test_a_start_that_does_not_fit_is_said(same_group: ClickTask, trained):
    folder, _ = trained("din")
    collective = {"attention": "collective"}
    for name, parameters, word in [
        ("sim", {}, "holds a din"),
        ("din", {"hidden": 8}, "its hidden is 16"),
        ("din", {**collective, "collective": {"pool_size": 100_000}}, "more entries"),
    ]:
        with pytest.raises(InputError, match=word):
            begun(name, folder, same_group, **parameters)
    folder, _ = trained("sdim")
    with pytest.raises(InputError, match="its rounds is 16"):
        begun("sdim", folder, same_group, rounds=4)


def test_only_full_attention_becomes_collective(same_group: ClickTask, fitted, tmp_path):
    few = {"attention": "collective", "collective": {"user_dim": 4, "pool_size": 8}}
    fitted("din", **few).save(tmp_path)
    with pytest.raises(InputError, match="only a ranker with full attention"):
        begun("din", tmp_path, same_group)
    unlike = replace(same_group, rating_values=np.array([1, 4, 5], np.float32))
    with pytest.raises(InputError, match="other ratings"):
        begun("din", tmp_path, unlike, **few)
