"""Searches that are told before they begin, and that do not answer for one another."""

from __future__ import annotations

import pytest

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

from foretaste.errors import InputError
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.tuning import check_space, tune


def recipe_of(log, space, **more) -> Recipe:
    return Recipe.build(
        {
            "data": {"source": str(log)},
            "model": {"name": "itemknn"},
            "tune": {"trials": 2, "space": space, **more},
        }
    )


def test_a_search_goes_on_only_as_itself(log, tmp_path):
    first = tune(recipe_of(log, {"model.shrink": [1.0, 50.0]}), tmp_path)
    more = tune(recipe_of(log, {"model.shrink": [1.0, 50.0]}, trials=3), tmp_path)
    assert (first.trials, more.trials) == (2, 3)
    best = more.path.read_text()
    others = (
        recipe_of(log, {"model.shrink": [200.0, 300.0]}),
        recipe_of(log, {"model.shrink": [1.0, 50.0]}, metric="hr@1"),
        recipe_of(log, {"model.shrink": [1.0, 50.0]}).with_settings({"model.neighbours": 7}),
    )
    for other in others:
        with pytest.raises(InputError, match="the search of another recipe or other data"):
            tune(other, tmp_path)
    assert more.path.read_text() == best


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"split.min_item_count": [1, 8]}, "would have no effect"),
        ({"data.min_rating": [1, 5]}, "would have no effect"),
        ({"model.shrnk": [1.0]}, "shrnk"),
        ({"model.shrink": [1.0, -1.0]}, "shrink"),
        ({"model.shrink": []}, "write a list of choices"),
        ({"model.shrink": {"low": 0, "high": 10.0, "log": True}}, "above 0"),
        ({"model.shrink": {"low": "a", "high": "b"}}, "write a list of choices"),
        ({"model.shrink": {"low": 2.0, "high": 1.0}}, "write a list of choices"),
        ({"model.shrink": {"low": 1.0, "high": float("inf")}}, "write a list of choices"),
    ],
)
def test_a_space_that_cannot_be_searched_is_told_first(log, tmp_path, space, words):
    with pytest.raises(InputError, match=words):
        tune(recipe_of(log, space), tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_a_search_that_was_killed_while_it_wrote_goes_on(log, tmp_path):
    space = {"model.shrink": [1.0, 50.0]}
    tune(recipe_of(log, space), tmp_path)
    journal = tmp_path / "trials.log"
    journal.write_bytes(journal.read_bytes()[:-30])  # of the last trial
    assert tune(recipe_of(log, space, trials=3), tmp_path).trials == 3
    assert tune(recipe_of(log, space, trials=4), tmp_path).trials == 4


def test_a_journal_of_something_else_is_told(log, tmp_path):
    for content in ("what is this\nand this\n", "3\n", "{}\n"):
        (tmp_path / "trials.log").write_text(content)
        with pytest.raises(InputError, match=r"trials.log: damaged .* another --folder"):
            tune(recipe_of(log, {"model.shrink": [1.0]}), tmp_path)


def test_a_trial_that_goes_to_infinity_ends_itself_and_not_the_search(log, tmp_path):
    tiny = {
        "data": {"source": str(log)},
        "model": {"name": "sasrec", "dim": 8},
        "train": {"epochs": 1, "clip": 0},
    }
    rates = {"train.learning_rate": [0.001, 1e30]}
    found = tune(Recipe.build(tiny | {"tune": {"trials": 5, "space": rates}}), tmp_path / "some")
    assert (found.trials, found.settings) == (5, {"train.learning_rate": 0.001})
    assert found.failed > 0
    rates = {"train.learning_rate": [1e30]}
    for _ in range(2):  # a second call says it again
        with pytest.raises(InputError, match="no trial came to a figure: .* Lower train.learning"):
            tune(Recipe.build(tiny | {"tune": {"trials": 2, "space": rates}}), tmp_path / "none")


def test_a_space_over_models_may_hold_fields_of_each(log):
    check_space(recipe_of(log, {"model.name": ["itemknn", "ease"], "model.l2": [1.0]}))


def test_an_unknown_metric_is_told_before_the_first_fit(log):
    with pytest.raises(InputError, match="foo"):
        recipe_of(log, {"model.shrink": [1.0]}, metric="foo")
