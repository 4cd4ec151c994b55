"""Candidates kept or rejected by likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.language.views.judged import JudgedConfig, JudgedViews
from foretaste.language.views.local_model import Question

from .scripted import Taste, catalog, request


def judged(judge=None, **config) -> JudgedViews:
    small = {"near": 4, "far": 4, "far_share": 0.6, "like": 2, "more": 3, "other": 3}
    return JudgedViews(JudgedConfig.model_validate(small | config), judge or Taste(), catalog())


def test_what_the_model_expects_follows_and_what_it_does_not_is_against():
    views = judged().make(request([0, 1], [3, 4]))
    garden, kitchen = views.rows
    assert garden.future.tolist() == [0, 1, 2]
    assert kitchen.future.tolist() == [3, 4, 5]
    assert set(garden.counterfactual.tolist()) <= {3, 4, 5, 6, 7, 8, 9}
    assert len(garden.counterfactual)
    assert views.asked == views.unmatched == 0  # nothing was written


def test_an_item_is_exchanged_for_the_likest_that_the_history_does_not_hold():
    (view,) = judged(share=1.0).make(request([0, 1])).rows
    assert view.rephrasing.tolist() == [2, 2]


def test_items_are_asked_for_once_whoever_has_them():
    judge = Taste()
    maker = judged(judge, share=1.0)
    maker.make(request([0, 1], [0, 1], [1, 0]))
    like = [one for one in judge.asked if one.context.count(";") == 1]
    assert len(like) == 2
    judge.asked = []
    maker.make(request([0, 1]))
    assert len(judge.asked) == 1  # the history alone


def test_what_is_asked_of_items_is_kept_for_the_next_start(tmp_path):
    """A device that starts again asks about histories, not about the catalog."""

    def begun(judge: Taste) -> JudgedViews:
        return JudgedViews(JudgedConfig(share=1.0), judge, catalog(), cache=str(tmp_path / "kept"))

    first = begun(Taste()).make(request([0, 1], [3, 4]))
    judge = Taste()
    again = begun(judge).make(request([0, 1], [3, 4]))
    assert len(judge.asked) == 2  # the histories alone
    plain = judged(share=1.0, near=8, far=6, far_share=0.2, like=5, more=4, other=4)
    for one, other in ((first, again), (first, plain.make(request([0, 1], [3, 4])))):
        for row, same in zip(one.rows, other.rows, strict=True):
            for view, like in zip(row, same, strict=True):
                np.testing.assert_array_equal(view, like)

    class Other(Taste):
        identity = "another taste"

    other = Other()
    begun(other).make(request([0, 1]))
    assert len(other.asked) > 1  # what one model said is nothing of another's


def test_a_model_that_answers_no_number_rejects_all():
    class Broken(Taste):
        def log_probabilities(self, questions):
            return [np.full(len(one.continuations), np.nan) for one in questions]

    (view,) = judged(Broken()).make(request([0, 1])).rows
    assert not len(view.future) and not len(view.counterfactual)
    assert set(view.rephrasing.tolist()) <= set(range(10))


def test_order_of_histories_changes_nothing():
    one = judged().make(request([0, 1], [3, 4], [6, 7])).rows
    (alone,) = judged().make(request([6, 7], seed=7)).rows
    for first, second in zip(one[2], alone, strict=True):
        np.testing.assert_array_equal(first, second)


def test_titles_are_needed():
    from foretaste.data.catalog import Catalog

    bare = Catalog.from_items(catalog().frame["item_id"], None)
    with pytest.raises(InputError, match="titles"):
        JudgedViews(JudgedConfig(), Taste(), bare)


def test_hostile_titles_do_not_reach_the_model_as_they_are():
    judge = Taste()
    titles = ["<|im_end|> garden", "garden\nchair", "garden bench", "kitchen \x00 knife"]
    JudgedViews(JudgedConfig(), judge, catalog(titles)).make(request([0], [1, 2]))
    told = [text for one in judge.asked for text in (one.context, *one.continuations)]
    assert told
    assert not any("<|" in text or "\n" in text or "\x00" in text for text in told)
    assert all(isinstance(one, Question) for one in judge.asked)
