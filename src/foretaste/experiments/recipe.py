"""A recipe: all that decides what a run comes to, in one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foretaste.data.clicks import ClickSplit
from foretaste.data.split import SplitKind
from foretaste.errors import InputError
from foretaste.metrics import parse_metric
from foretaste.recommenders.core.base import Exclude, Recommender, RunContext
from foretaste.recommenders.core.configuring import build_config
from foretaste.recommenders.core.registry import find

METRICS = ("ndcg@10", "hr@10", "recall@10", "precision@10", "mrr@10", "map@10")
DEFAULT_MODEL = "sasrec"


class Section(BaseModel):
    """A part of a recipe. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _refuse_unused(section: Section, unused: Sequence[str], chosen: str) -> None:
    """Raise ValueError for a field that says something and has no effect with what is chosen."""
    for name in unused:
        if getattr(section, name) != type(section).model_fields[name].default:
            raise ValueError(
                f'{name} has no effect with {chosen} = "{getattr(section, chosen)}". Leave it out.'
            )


class DataSection(Section):
    """What is read, and how; see ``foretaste.data.read_interactions``.

    ``source`` is the name of an embedded data set, a file, a folder or a glob.
    """

    source: str = "movietweetings"
    user_col: str | None = None
    item_col: str | None = None
    time_col: str | None = None
    rating_col: str | None = None
    format: str | None = None
    min_rating: float | None = None
    k_core: int = Field(default=0, ge=0)
    duplicates: Literal["first", "last", "keep"] = "first"
    items: str | None = None


class SplitSection(Section):
    """How the data is cut; see ``foretaste.data.split``."""

    kind: SplitKind = "global-time"
    valid_share: float = Field(default=0.1, gt=0, lt=1)
    test_share: float = Field(default=0.1, gt=0, lt=1)
    targets: Literal["all", "next"] = "all"
    min_item_count: int = Field(default=1, ge=1)
    refit: bool = False

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.kind == "leave-last-out":
            _refuse_unused(self, ("valid_share", "test_share", "targets"), "kind")
        return self


class ClicksSection(Section):
    """A task of clicks, in place of the next items of ``[split]``; see ``foretaste.data.clicks``.

    ``labels``: with ``ratings`` one of ``threshold`` or more is a click; ``sampled`` makes a click
    of every event and draws ``negatives`` items beside it. ``history``: the ``positives`` before an
    impression, which is what a list is asked for with, or ``all`` that was rated, as many papers
    have it. The shares are of impressions.
    """

    labels: Literal["ratings", "sampled"] = "ratings"
    threshold: float = 4.0
    history: Literal["positives", "all"] = "positives"
    negatives: int = Field(default=4, ge=1)
    cut: ClickSplit = "user-time"
    valid_share: float = Field(default=0.1, gt=0, lt=1)
    test_share: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _used(self) -> Self:
        unused = ("negatives",) if self.labels == "ratings" else ("threshold", "history")
        _refuse_unused(self, unused, "labels")
        return self


class EvaluateSection(Section):
    """What is measured. ``k`` is the length of the lists for coverage, novelty and diversity."""

    metrics: tuple[str, ...] = Field(default=METRICS, min_length=1)
    k: int = Field(default=10, ge=1, le=100_000)
    exclude: Exclude = "seen"

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.metrics:
            parse_metric(name)
        return self


class RunSection(Section):
    """Where and how it runs; nothing here is a hyper-parameter. See ``RunContext``."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = Field(default=0, ge=0, le=4_096)
    compile: bool = False


class TuneSection(Section):
    """A search over fields of the recipe.

    ``space`` maps a field such as ``model.dropout`` to a list of choices, or to a table with
    ``low`` and ``high`` and optionally ``log = true``; ``metric`` is measured on validation.
    """

    trials: int = Field(default=20, ge=1)
    metric: str = "ndcg@10"
    space: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        parse_metric(self.metric)
        return self


OF_LISTS = ("split", "evaluate", "tune")
"""Sections that say nothing of clicks."""


class Recipe(Section):
    """Data, split, model, training, evaluation. ``model`` holds the name and its parameters.

    With ``clicks`` a ranker learns to judge what was shown, and is measured by that.
    """

    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    clicks: ClicksSection | None = None
    model: dict[str, Any] = {"name": DEFAULT_MODEL}
    train: dict[str, Any] = {}
    evaluate: EvaluateSection = EvaluateSection()
    run: RunSection = RunSection()
    tune: TuneSection = TuneSection()

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        for name in OF_LISTS if self.clicks is not None else ():
            if name in self.model_fields_set:  # even its defaults: clicks have others
                raise ValueError(f"[{name}] has no effect beside [clicks]. Leave one of them out.")
        return self

    @classmethod
    def build(cls, values: Mapping[str, Any], *, place: str = "recipe") -> Self:
        """A recipe from nested tables, checked to the last key.

        The parameters of the model and of its training are filled in with their defaults, so
        that a recipe says all.

        Raises:
            InputError: one line that names the key or value and the nearest or allowed one.
        """
        recipe = build_config(cls, values, place=place)
        recommender = recipe._recommender(place)
        config = recommender.config.model_dump(mode="json")
        train = config.pop("train", {})
        model = {"name": recommender.name, **config}
        return recipe.model_copy(update={"model": model, "train": train})

    @classmethod
    def read(cls, path: Path) -> Self:
        """A recipe from a TOML file.

        Raises:
            InputError: when it cannot be read, is not TOML, or holds an unknown key.
        """
        return cls.build(read_toml(path), place=str(path))

    def with_settings(self, settings: Mapping[str, Any]) -> Self:
        """The recipe with some fields set, such as ``{"train.epochs": 5}``.

        Raises:
            InputError: for a field that does not exist or a value that is not allowed.
        """
        given = self.model_dump(mode="json", exclude_unset=True)
        return self.build(merged(given, settings), place="settings")

    def recommender(self) -> Recommender:
        """The model that the recipe names, not fitted."""
        return self._recommender("recipe")

    def context(self) -> RunContext:
        """How to run; the folder and the progress are the caller's to add."""
        return RunContext(**self.run.model_dump())

    def to_toml(self) -> str:
        """The whole recipe as TOML; ``read`` gives it back."""
        import tomli_w

        left_out: set[str] = set() if self.clicks is None else set(OF_LISTS)
        return tomli_w.dumps(_without_none(self.model_dump(mode="json", exclude=left_out)))

    def _recommender(self, place: str) -> Recommender:
        parameters = dict(self.model)
        name = parameters.pop("name", DEFAULT_MODEL)
        if not isinstance(name, str):
            raise InputError(f'{place} [model]: name = {name!r} is no text, such as "sasrec".')
        recommender = find(name)
        if self.clicks is not None:
            from foretaste.recommenders.core.ranker import Ranker

            if not issubclass(recommender, Ranker):
                raise InputError(
                    f"{place} [clicks]: {name} orders a catalog and gives no probability of a "
                    "click. Choose a ranker: din, sim or sdim."
                )
        if self.train:
            if "train" not in recommender.Config.model_fields:
                raise InputError(
                    f"{place} [train]: {name} is not trained by gradient, so "
                    f"train.{next(iter(self.train))} would have no effect. Leave it out."
                )
            parameters["train"] = self.train
        return recommender(build_config(recommender.Config, parameters, place=f"{place} [model]"))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: when it cannot be read or is not TOML.
    """
    try:
        # Editors of Windows begin a file with a byte order mark, which TOML does not know.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the recipe ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML ({error}).") from error


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``["train.epochs=5", "model.name=ease"]`` as ``{"train.epochs": 5, "model.name": "ease"}``.

    A value is read as TOML (numbers, true, lists, quoted text), and as plain text when it is none.

    Raises:
        InputError: for a setting without ``=`` or without a section.
    """
    parsed = {}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or "." not in field:
            raise InputError(
                f'--set "{setting}": write section.field=value, such as train.epochs=5.'
            )
        try:
            parsed[field.strip()] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[field.strip()] = value.strip()
    return parsed


def merged(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with dotted ``settings`` put in their places.

    A new ``model.name`` drops the parameters of the model that is named in ``values``, which would
    be unknown to it; those of no named model stay.
    """
    result = {
        key: dict(part) if isinstance(part, Mapping) else part for key, part in values.items()
    }
    name, known = settings.get("model.name"), result.get("model", {}).get("name")
    if name is not None and known is not None and name != known:
        result["model"], result["train"] = {}, {}
    for field, value in settings.items():
        *path, last = field.split(".")
        place = result
        for part in path:
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
            if not isinstance(place, dict):
                raise InputError(f'--set {field}: "{part}" is a value, not a section.')
        place[last] = value
    return result


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return values
