"""``foretaste train``: a recipe or flags to a run folder."""

from __future__ import annotations

from typing import Annotated

import typer

from foretaste.cli import options


def train(
    recipe: options.RecipeFile = None,
    data: options.Data = None,
    model: options.Model = None,
    split: options.SplitKind = None,
    clicks: options.Clicks = None,
    run: options.NewRun = None,
    user_col: options.UserCol = None,
    item_col: options.ItemCol = None,
    time_col: options.TimeCol = None,
    rating_col: options.RatingCol = None,
    format: options.Format = None,
    items: options.Items = None,
    min_rating: options.MinRating = None,
    k_core: options.KCore = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    device: options.Device = None,
    devices: Annotated[
        int | None, typer.Option("--devices", help="Processes to train with, one device each.")
    ] = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Train and evaluate a recommender; everything goes into a run folder."""
    from foretaste.cli.display import print_json, progress, say
    from foretaste.cli.figures import print_evaluation
    from foretaste.experiments.loading import load_dataset
    from foretaste.experiments.machine import main_process
    from foretaste.experiments.naming import free_folder
    from foretaste.experiments.running import train as run_recipe

    chosen = options.build_recipe(
        recipe,
        settings,
        data__source=data,
        model__name=model,
        split__kind=split,
        clicks__labels=clicks,
        data__user_col=user_col,
        data__item_col=item_col,
        data__time_col=time_col,
        data__rating_col=rating_col,
        data__format=format,
        data__items=items,
        data__min_rating=min_rating,
        data__k_core=k_core,
        run__seed=seed,
        run__device=device,
        run__devices=devices,
    )
    talkative = not (quiet or json) and main_process()
    dataset = load_dataset(chosen.data)
    if talkative:
        say(str(dataset))
        for note in dataset.notes:
            say(f"  {note}")
    folder = run_recipe(
        chosen,
        run or free_folder(chosen),
        progress=progress(quiet, json),
        dataset=dataset,
    )
    if not main_process() or (quiet and not json):
        return
    if json:
        print_json({"run": str(folder.path), **folder.metrics["test"]})
        return
    print_evaluation(folder.metrics["test"])
    for note in folder.record["fit"]["notes"]:
        say(note)
    say(f'{folder.path} is ready. Try: foretaste recommend {folder.path} --history "..."')
