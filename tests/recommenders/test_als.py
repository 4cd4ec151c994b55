"""ALS: folding in is what implicit does for its own users."""

import builtins
import warnings

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError, MissingExtraError
from foretaste.recommenders import als
from foretaste.recommenders.als import ALS
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.sparse import user_items


@pytest.mark.parametrize("alpha", [0.5, 1.0, 20.0])
def test_fold_in_equals_implicits_own_user_factors(alpha: float, ordinary, monkeypatch):
    monkeypatch.setattr(als, "NUMBERS_AT_ONCE", 600)  # several batches
    model = ALS(factors=5, alpha=alpha, iterations=5)
    model.fit(ordinary)
    chosen = csr_matrix(user_items(ordinary.train, ordinary.items))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the threads of BLAS
        theirs = AlternatingLeastSquares(5, model.config.regularization, alpha)
    theirs.item_factors = model.factors.numpy()
    users = np.flatnonzero(ordinary.train.lengths)
    expected = theirs.recalculate_user(users, chosen[users])
    found = model.fold_in(ordinary.train.take(users)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_converged_user_factors_are_the_folded_in_ones(ordinary, monkeypatch):
    kept = []
    fit = AlternatingLeastSquares.fit
    monkeypatch.setattr(
        AlternatingLeastSquares,
        "fit",
        lambda self, *a, **k: (fit(self, *a, **k), kept.append(self)),
    )
    model = ALS(factors=3, iterations=200, regularization=1.0)
    model.fit(ordinary)
    found = model.fold_in(ordinary.train).numpy()
    np.testing.assert_allclose(found, kept[0].user_factors, atol=0.02)


def test_repeats_and_order_of_a_history_do_not_matter(ordinary):
    model = ALS(factors=4)
    model.fit(ordinary)
    found = model.fold_in(Sequences.from_lists([[1, 5, 1, 1], [5, 1]]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_no_warning_and_the_seed_decides(ordinary):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models = [ALS(factors=4) for _ in range(3)]
        for model, seed in zip(models, (1, 1, 2), strict=True):
            model.fit(ordinary, RunContext(seed=seed))
    one, same, other = (model.factors.numpy() for model in models)
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("alpha, regularization", [(10.0, 1e30), (1e30, 1e-30)])
def test_factors_that_are_no_numbers_are_said(alpha: float, regularization: float, ordinary):
    with pytest.raises(
        InputError, match=rf"alpha = {alpha:g} .*regularization = ".replace("+", ".")
    ):
        ALS(factors=4, alpha=alpha, regularization=regularization).fit(ordinary)


def test_without_implicit_the_extra_is_named(ordinary, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("implicit"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"foretaste\[als\]"):
        ALS().fit(ordinary)
