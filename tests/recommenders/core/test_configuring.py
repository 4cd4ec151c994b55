"""What a user reads when a configuration is wrong."""

import math
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from foretaste.errors import InputError
from foretaste.recommenders.core.configuring import build_config
from foretaste.recommenders.core.registry import find


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(default=3, ge=1)
    learning_rate: float = 0.1

    @model_validator(mode="after")
    def _slow(self):
        if self.epochs * self.learning_rate > 1:
            raise ValueError("that is too fast")
        return self


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dim: int = 8
    loss: Literal["softmax", "gbce"] = "softmax"
    train: Inner = Inner()

    @model_validator(mode="after")
    def _even(self):
        if self.dim % 2:
            raise ValueError(f"dim = {self.dim} must be even")
        return self


def test_values_reach_every_level():
    config = build_config(Outer, {"dim": 4, "train": {"epochs": 7}}, place="here")
    assert (config.dim, config.loss, config.train.epochs) == (4, "softmax", 7)
    assert build_config(Outer, {}, place="here") == Outer()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dimm": 4}, 'recipe.toml: unknown key "dimm". Did you mean "dim"?'),
        ({"zzz": 4}, 'recipe.toml: unknown key "zzz". Known: dim, loss, train.'),
        (
            {"train": {"epoch": 1}},
            'recipe.toml: unknown key "train.epoch". Did you mean "epochs"?',
        ),
        (
            {"train": {"epochs": 0}},
            "recipe.toml: train.epochs = 0: input should be greater than or equal to 1",
        ),
        ({"loss": "bpr"}, "recipe.toml: loss = 'bpr': input should be 'softmax' or 'gbce'"),
        ({"dim": 7}, "recipe.toml: dim = 7 must be even"),
        ({"train": {"epochs": 11}}, "recipe.toml: train: that is too fast"),
    ],
)
def test_errors_name_the_place_the_value_and_the_way_out(values: dict, message: str):
    with pytest.raises(InputError) as error:
        build_config(Outer, values, place="recipe.toml")
    assert str(error.value) == message


@pytest.mark.parametrize(
    "values",
    [{"dim": "many"}, {"dim": None}, {"dim": [1]}, {"train": 3}, {"train": {"epochs": {}}}],
)
def test_any_wrong_value_is_one_line(values: dict):
    with pytest.raises(InputError, match=r"^place: ") as error:
        build_config(Outer, values, place="place")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ease", {"l2": math.inf}),
        ("itemknn", {"shrink": math.inf}),
        ("popularity", {"window_days": math.inf}),
        ("sasrec", {"train": {"learning_rate": math.inf}}),
        ("din", {"train": {"weight_decay": math.inf}}),
    ],
)
def test_an_infinite_number_is_none(name: str, values: dict):
    with pytest.raises(InputError, match=rf"^{name}: .* = inf: input should be a finite number"):
        find(name)(**values)


def test_the_config_of_another_recommender_is_refused():
    with pytest.raises(InputError, match="ease: config is a SASRecConfig, must be a EASEConfig"):
        find("ease")(find("sasrec").Config())
