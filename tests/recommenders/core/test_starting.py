"""Training that starts from a trained run, and what of one may not be started from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.registry import find


@pytest.mark.parametrize("name", ["sasrec", "hstu"])
def test_training_starts_from_a_run(name: str, ordinary: Split, tmp_path):
    few: dict[str, Any] = {"epochs": 6, "batch_tokens": 256, "patience": 0}
    full: Any = find(name)(dim=8, window=6, max_length=12, train=few)
    full.fit(ordinary, RunContext(seed=0))
    full.save(tmp_path)
    shape: dict[str, Any] = {"dim": 8, "window": 6, "max_length": 12, "train": {"epochs": 0}}
    again: Any = find(name)(start_from=tmp_path, **shape)
    again.fit(ordinary, RunContext(seed=1))
    histories = ordinary.test.histories
    expected = full.recommend(histories, 5)
    np.testing.assert_array_equal(again.recommend(histories, 5).items, expected.items)

    # Many bytes in collective form answer nearly alike, and much more so than without a start.
    kept: dict[str, Any] = {"attention": "collective"}
    kept["collective"] = {"user_dim": 4, "pool_size": 20, "user_type": "fp16"}

    def alike(**more: Any) -> float:
        begun: Any = find(name)(**shape, **kept, **more)
        begun.fit(ordinary, RunContext(seed=1))
        return (begun.recommend(histories, 5).items == expected.items).mean()

    small = alike(start_from=tmp_path, first_layer="collective")
    assert alike(start_from=tmp_path) >= small > 0.6 > alike()


def test_a_start_that_does_not_fit_is_said(ordinary: Split, checkerboard: Split, tmp_path):
    one: dict[str, Any] = {"epochs": 1}
    source: Any = find("sasrec")(dim=8, window=6, train=one)
    source.fit(ordinary, RunContext())
    source.save(tmp_path)
    collective: dict[str, Any] = {"attention": "collective"}
    for name, parameters, on, word in [
        ("hstu", {"dim": 8, "window": 6}, ordinary, "holds a sasrec"),
        ("sasrec", {"dim": 16, "window": 6}, ordinary, "its dim is 8"),
        ("sasrec", {"dim": 8, "window": 6}, checkerboard, "other items"),
        (
            "sasrec",
            {"dim": 8, "window": 6, **collective, "collective": {"pool_size": 100_000}},
            ordinary,
            "more entries",
        ),
    ]:
        with pytest.raises(InputError, match=word):
            find(name)(start_from=tmp_path, train=one, **parameters).fit(on, RunContext())
    with pytest.raises(InputError, match="no trained model"):
        find("sasrec")(start_from=tmp_path / "no").fit(ordinary, RunContext())
