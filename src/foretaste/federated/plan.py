"""What a federation is asked to be: data, split and model of a recipe, a method, its settings.

A plan is written to the run folder as ``recipe.toml`` and ``federation.toml``; with
``catalog.parquet`` they are all that a node needs to take part, and they hold nothing about users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError
from foretaste.experiments.recipe import Recipe, merged, parse_settings, read_toml
from foretaste.federated.core.base import FederatedMethod, World
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.registry import find_method
from foretaste.federated.fedmf import FedMF
from foretaste.progress import Progress, Silent
from foretaste.recommenders.als import ALS
from foretaste.recommenders.core.configuring import build_config
from foretaste.storage import write_whole

FILE = "federation.toml"
DEFAULT_METHOD = "fedavg"
Engine = Literal["simulation", "deployment", "local"]


@dataclass(frozen=True)
class Plan:
    """A federation, described.

    Attributes:
        recipe: data, split, model and evaluation.
        name: of the method.
        config: of the method, checked.
        engine: ``simulation`` and ``deployment`` of Flower, or ``local``: this process alone.
    """

    recipe: Recipe
    name: str
    config: FederatedConfig
    engine: Engine = "simulation"

    @classmethod
    def build(
        cls,
        values: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        *,
        place: str = "recipe",
    ) -> Self:
        """A plan from the tables of a recipe, with ``[federated]`` among them.

        Args:
            values: nested tables; ``[federated]`` holds ``method``, ``engine`` and the fields of
                the method's configuration. Methods of item vectors train ``als`` by default.
            settings: fields that overrule them, such as ``{"federated.rounds": 5}``.
            place: where the values come from, for messages.

        Raises:
            InputError: one line that names the key or value and the nearest or allowed one.
        """
        values = merged(values, settings or {})
        own = dict(values.pop("federated", {}))
        if values.get("train"):
            field = next(iter(values["train"]))
            raise InputError(
                f"{place}: train.{field} has no effect in a federation, where clients train. Set "
                "federated.local.learning_rate, federated.local.epochs and the like instead."
            )
        name = own.pop("method", DEFAULT_METHOD)
        engine = own.pop("engine", "simulation")
        if engine not in get_args(Engine):
            raise InputError(
                f'{place}: federated.engine = "{engine}" is unknown. Choose simulation, '
                "deployment or local."
            )
        method = find_method(name)
        config = build_config(method.Config, own, place=f"{place} [federated]")
        model = values.get("model", {})
        if issubclass(method, FedMF) and isinstance(model, dict):  # these train no network
            values["model"] = {"name": ALS.name, **model}
        return cls(Recipe.build(values, place=place), name, config, engine)

    @classmethod
    def read(cls, path: Path | None, settings: Sequence[str] = (), **flags: Any) -> Self:
        """A plan from a recipe file (or defaults), overruled by flags, then by settings.

        ``path`` may be the folder of a federated run: then it is that run's plan.
        ``flags`` are fields with ``__`` for the dot; None means not given.
        """
        given = {name.replace("__", "."): one for name, one in flags.items() if one is not None}
        if path is not None and path.is_dir():
            values = _tables_of(path)
        else:
            values = read_toml(path) if path else {}
        place = "options" if path is None else f"{path} with options"
        return cls.build(values, given | parse_settings(settings), place=place)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The plan of a run folder.

        Raises:
            InputError: when there is none.
        """
        return cls.build(_tables_of(folder), place=str(folder / FILE))

    def write(self, folder: Path, catalog: Catalog) -> None:
        """Write ``federation.toml`` and the catalog; the recipe is the run folder's to write."""
        import tomli_w

        values = {"method": self.name, "engine": self.engine, **self.config.model_dump(mode="json")}
        write_whole(folder / FILE, tomli_w.dumps(_without_none(values)).encode())
        write_whole(folder / "catalog.parquet", catalog.to_bytes())

    def method(
        self, catalog: Catalog, folder: Path | None = None, progress: Progress | None = None
    ) -> FederatedMethod:
        """The method on a catalog.

        Raises:
            InputError: when the model of the recipe is none that it can train.
        """
        model, seed = self.recipe.recommender(), self.recipe.run.seed
        world = World(catalog, model, seed, folder, progress or Silent())
        return find_method(self.name)(self.config, world)


def _tables_of(folder: Path) -> dict[str, Any]:
    """The recipe of a federated run with ``[federated]``.

    Raises:
        InputError: when there is none.
    """
    if not (folder / FILE).is_file():
        raise InputError(
            f"{folder}: no federation here ({FILE} is missing). Begin one with: foretaste "
            f"federate --run {folder}"
        )
    values = read_toml(folder / "recipe.toml")
    values.pop("train", None)  # of the model's configuration; a federation has its own
    return values | {"federated": read_toml(folder / FILE)}


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return values
