"""Sources side by side count as their weights say."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.language.sources import Scaling, Source


def vectors(items: int, width: int, scale: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (scale * (rng.standard_normal((items, width)) + 3)).astype(np.float32)


def combine(sources: list[Source]) -> np.ndarray:
    return Scaling.fit(sources).combine(sources)


def test_each_source_counts_as_its_weight_whatever_its_width_and_scale() -> None:
    sources = [Source("text", vectors(50, 3, 1.0)), Source("run", vectors(50, 40, 900.0), 0.5)]
    found = combine(sources)
    assert found.shape == (50, 43)
    assert found.dtype == np.float32
    for part, weight in ((found[:, :3], 1.0), (found[:, 3:], 0.5)):
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-4)
        assert np.square(part).sum(1).mean() == pytest.approx(weight**2, rel=1e-4)


def test_an_unknown_item_is_the_average_one() -> None:
    own = vectors(20, 4, 1.0)
    own[5] = 0
    found = combine([Source("text", own), Source("run", vectors(20, 2, 1.0))])
    assert not found[5, :4].any()
    assert found[5, 4:].any()
    np.testing.assert_allclose(np.delete(found[:, :4], 5, 0).mean(0), 0, atol=1e-5)


def test_new_items_are_scaled_as_the_old_ones() -> None:
    old = [Source("text", vectors(30, 3, 1.0)), Source("run", vectors(30, 2, 5.0))]
    scaling = Scaling.fit(old)
    again = scaling.combine([Source(name, own[:4]) for name, own, _ in old])
    np.testing.assert_array_equal(again, scaling.combine(old)[:4])
    nothing = scaling.combine([Source("text", np.zeros((1, 3))), Source("run", np.zeros((1, 2)))])
    assert not nothing.any()


def test_one_vector_for_all_is_no_division_by_zero() -> None:
    assert not combine([Source("text", np.ones((5, 3), np.float32))]).any()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no source given"),
        ([Source("text", np.zeros((3, 2)))], "text: all vectors are zero"),
        ([Source("text", np.ones(3))], "text: item vectors of shape"),
        ([Source("text", np.ones((3, 2)), 0.0)], "text: weight = 0.0"),
        ([Source("text", np.array([[1.0], [np.nan]]))], "text: the vector of item 1 is not finite"),
        ([Source("a", np.ones((3, 2))), Source("b", np.ones((4, 2)))], "b: vectors of 4 items"),
    ],
)
def test_sources_that_do_not_fit_are_refused(sources: list[Source], message: str) -> None:
    with pytest.raises(InputError, match=message):
        combine(sources)


def test_another_width_is_refused() -> None:
    scaling = Scaling.fit([Source("text", vectors(9, 3, 1.0))])
    with pytest.raises(InputError, match=r"width \[2\] given, \[3\] learnt"):
        scaling.combine([Source("text", vectors(9, 2, 1.0))])
