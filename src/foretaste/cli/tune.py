"""``foretaste tune``: search for hyper-parameters on validation data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli import options


def tune(
    recipe: options.RecipeFile = None,
    data: options.Data = None,
    model: options.Model = None,
    split: options.SplitKind = None,
    folder: Annotated[
        Path, typer.Option("--folder", help="Where trials are kept; the same folder goes on.")
    ] = Path("runs/tune"),
    trials: Annotated[int | None, typer.Option("--trials", help="Trials in all.")] = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Search the recipe's [tune.space] on validation data; never looks at test data."""
    from foretaste.cli.display import print_json, progress, say
    from foretaste.experiments.tuning import tune as tune_recipe

    chosen = options.build_recipe(
        recipe,
        settings,
        data__source=data,
        model__name=model,
        split__kind=split,
        tune__trials=trials,
        run__seed=seed,
        run__device=device,
    )
    found = tune_recipe(chosen, folder, progress=progress(quiet, json))
    if json:
        print_json(
            {
                "metric": chosen.tune.metric,
                "value": found.value,
                "settings": found.settings,
                "trials": found.trials,
                "failed": found.failed,
                "recipe": str(found.path),
            }
        )
        return
    if quiet:
        return
    say(f"best {chosen.tune.metric} on validation: {found.value:.4f} of {found.trials} trials")
    if found.failed:
        say(f"  {found.failed} of them came to no figure")
    for field, value in found.settings.items():
        say(f"  {field} = {value}")
    say(f"Train it: foretaste train {found.path}")
