"""Options that several verbs share, spelt once. Every one is a field of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set any field, as in train.epochs=5."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Of every random choice.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps.")]
RecipeFile = Annotated[
    Path | None, typer.Argument(metavar="[RECIPE.toml]", help="A recipe; flags overrule it.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
NewRun = Annotated[
    Path | None, typer.Option("--run", help="The folder to make; runs/DATA-MODEL by default.")
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]
Data = Annotated[
    str | None,
    typer.Option("--data", help="An embedded data set's name, a file, a folder or a glob."),
]
Model = Annotated[str | None, typer.Option("--model", help="A recommender's name.")]
SplitKind = Annotated[
    str | None, typer.Option("--split", help="global-time or leave-last-out (which leaks).")
]
Clicks = Annotated[
    str | None,
    typer.Option(
        "--clicks", help="Have a ranker learn clicks: of ratings, or sampled beside events."
    ),
]
UserCol = Annotated[str | None, typer.Option("--user-col", help="The column of user ids.")]
ItemCol = Annotated[str | None, typer.Option("--item-col", help="The column of item ids.")]
TimeCol = Annotated[str | None, typer.Option("--time-col", help="The column of times.")]
RatingCol = Annotated[str | None, typer.Option("--rating-col", help="The column of ratings.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="The kind of file, such as tsv or sequences; told from it by default."
    ),
]
Items = Annotated[str | None, typer.Option("--items", help="A file of item titles.")]
MinRating = Annotated[
    float | None, typer.Option("--min-rating", help="Keep ratings from here on as positives.")
]
KCore = Annotated[
    int | None, typer.Option("--k-core", help="Keep users and items with k events or more.")
]


def build_recipe(recipe: Path | None, settings: list[str] | None, **flags: Any) -> Any:
    """The recipe of a file (or the default one), overruled by flags, then by ``--set``.

    ``flags`` are fields with ``__`` for the dot, such as ``data__source``; None means not given.
    """
    from foretaste.experiments.recipe import Recipe, merged, parse_settings, read_toml

    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    values = read_toml(recipe) if recipe else {}
    if recipe:
        Recipe.build(values, place=str(recipe))  # its own mistakes are told with its own name
    place = "options" if recipe is None else f"{recipe} with options"
    return Recipe.build(merged(values, given | parse_settings(settings or [])), place=place)
