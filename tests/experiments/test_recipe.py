"""Recipes: checked to the last key, complete, and the same after a journey through TOML."""

from __future__ import annotations

import pytest

from foretaste.errors import InputError
from foretaste.experiments.recipe import Recipe, merged, parse_settings
from foretaste.recommenders.core.registry import names


@pytest.mark.parametrize("name", names())
def test_a_recipe_of_every_model_survives_toml(name, tmp_path):
    recipe = Recipe.build({"model": {"name": name}})
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert Recipe.read(path) == recipe
    assert recipe.recommender().name == name


def test_defaults_are_written_out():
    recipe = Recipe.build({"model": {"name": "sasrec", "dim": 32}})
    assert recipe.model["dim"] == 32
    assert recipe.model["dropout"] == 0.2
    assert recipe.train["learning_rate"] == 1e-3


def test_settings_are_toml_values_or_text():
    settings = parse_settings(
        ["train.epochs=5", "model.name=ease", 'data.source="a b.csv"', "split.refit=true"]
    )
    assert settings == {
        "train.epochs": 5,
        "model.name": "ease",
        "data.source": "a b.csv",
        "split.refit": True,
    }


def test_another_model_drops_the_parameters_of_the_first():
    recipe = Recipe.build({"model": {"name": "sasrec", "layers": 1}, "train": {"epochs": 3}})
    assert recipe.with_settings({"model.name": "ease"}).train == {}
    assert recipe.with_settings({"model.name": "sasrec"}).model["layers"] == 1


def test_merged_leaves_its_input_alone():
    values = {"train": {"epochs": 1}}
    assert merged(values, {"train.epochs": 2})["train"]["epochs"] == 2
    assert values == {"train": {"epochs": 1}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"trian": {}}, '"train"'),
        ({"model": {"name": "sasrec", "layer": 3}}, '"layers"'),
        ({"model": {"name": 3}}, "name = 3"),
        ({"model": {"name": "sasrec"}, "train": {"epochs": -1}}, "epochs = -1"),
        ({"split": {"kind": "random"}}, "kind"),
        ({"model": {"name": "ease"}, "train": {"epochs": 3}}, "no effect"),
        ({"evaluate": {"metrics": ["foo@10"]}}, "foo@10"),
        (
            {"split": {"kind": "leave-last-out", "test_share": 0.3}},
            "split: test_share has no",
        ),
        ({"split": {"kind": "leave-last-out", "targets": "next"}}, 'kind = "leave-last-out"'),
    ],
)
def test_mistakes_are_named(values, says):
    with pytest.raises(InputError, match=says):
        Recipe.build(values)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"run.device": "gpu"}, "device"),
        ({"run.device": "cuda:0"}, "device"),
        ({"run.seed": -1}, "seed"),
        ({"run.seed": 10**23}, "seed"),
        ({"run.threads": 10**11}, "threads"),
        ({"evaluate.metrics": []}, "metrics"),
        ({"evaluate.k": 10**13}, "k"),
        ({"train.metric": "ndcg"}, "ndcg"),
        ({"tune.metric": "foo"}, "foo"),
    ],
)
def test_values_that_would_fail_later_are_told_at_once(settings, words):
    with pytest.raises(InputError, match=words):
        Recipe.build({}).with_settings(settings)


def test_naming_a_model_keeps_what_a_recipe_says_of_no_model():
    """``--model`` beside a recipe with [train] and no model.name."""
    own = {"model": {"dim": 8}, "train": {"epochs": 1}}
    for name in ("sasrec", "gru4rec"):
        found = Recipe.build(merged(own, {"model.name": name}))
        assert (found.model["name"], found.model["dim"], found.train["epochs"]) == (name, 8, 1)
    named = Recipe.build({"model": {"name": "sasrec", "dim": 8}})
    assert named.with_settings({"model.name": "gru4rec"}).model["dim"] != 8


@pytest.mark.parametrize("name", ["text", "tokenizer"])
def test_a_part_of_codes_is_no_word(name):
    from foretaste.experiments.coding import coding_config

    with pytest.raises(InputError, match=f"write codes.{name}.kind="):
        coding_config({f"codes.{name}": "none"})
