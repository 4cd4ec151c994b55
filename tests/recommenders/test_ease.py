"""EASE against the closed form, and its memory."""

import numpy as np
import psutil
import pytest

from foretaste.errors import InputError
from foretaste.recommenders import ease
from foretaste.recommenders.core.sparse import user_items
from foretaste.recommenders.ease import EASE


def closed_form(split, l2: float) -> np.ndarray:
    chosen = user_items(split.train, split.items).toarray().astype(np.float64)
    inverse = np.linalg.inv(chosen.T @ chosen + l2 * np.eye(split.items))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


@pytest.mark.parametrize("rows", [4, 7, 256])
@pytest.mark.parametrize("l2", [0.5, 100.0])
def test_weights_are_the_closed_form(l2: float, rows: int, ordinary, monkeypatch):
    monkeypatch.setattr(ease, "ROWS_AT_ONCE", rows)
    model = EASE(l2=l2)
    model.fit(ordinary)
    assert model.weights.dtype == np.float32
    expected = closed_form(ordinary, l2)
    np.testing.assert_allclose(model.weights, expected, rtol=1e-3, atol=1e-5)
    history = ordinary.test.histories.take(np.array([0]))
    np.testing.assert_allclose(
        model._score(history)[0], expected[np.unique(history.items)].sum(0), rtol=1e-3, atol=1e-5
    )


def test_one_matrix_is_held(split_of, monkeypatch):
    # Counted, not timed: LAPACK must be handed the matrix itself, not a copy.
    rng = np.random.default_rng(0)
    split = split_of([rng.choice(300, 20, replace=False).tolist() for _ in range(200)])
    made = []
    gram = ease._gram
    monkeypatch.setattr(ease, "_gram", lambda *args: made.append(gram(*args)) or made[0])
    model = EASE()
    model.fit(split)
    assert np.shares_memory(model.weights, made[0])


def test_too_many_items_are_said_before_anything_is_made(ordinary, monkeypatch):
    free = psutil.virtual_memory()._replace(available=4 * 29**2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(InputError, match=r"split\.min_item_count"):
        EASE().fit(ordinary)


def test_a_matrix_that_float32_cannot_invert_is_said(split_of):
    split = split_of([[item % 40 for item in range(start, start + 40)] for start in range(200)])
    with pytest.raises(InputError, match=r"Raise model\.l2"):
        EASE(l2=1e-9).fit(split)
