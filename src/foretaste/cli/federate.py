"""``foretaste federate``: a recommender learnt by clients that keep their data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli import options


def federate(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE.toml|RUN]",
            help="A recipe, or the folder of a federated run to repeat; flags overrule it.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="fedavg (by default) or lumos for sequence networks; fedmf, pfedrec, fedrap or "
            "rqfedrec for item vectors.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", help="simulation or deployment (both of Flower), or local (without it)."
        ),
    ] = None,
    data: options.Data = None,
    model: options.Model = None,
    split: options.SplitKind = None,
    run: options.NewRun = None,
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Write the run folder with its Flower app; run nothing."),
    ] = False,
    explain_privacy: Annotated[
        bool,
        typer.Option("--explain-privacy", help="Say what would leave a device, and run nothing."),
    ] = False,
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
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Train over clients: models travel, histories do not; everything goes into a run folder."""
    from foretaste.cli.display import progress, say
    from foretaste.cli.federation_figures import (
        print_federation,
        print_prepared,
        print_privacy,
    )
    from foretaste.experiments.loading import load_dataset
    from foretaste.experiments.naming import free_folder
    from foretaste.federated.plan import Plan
    from foretaste.federated.running import federate as run_plan
    from foretaste.federated.running import prepare as prepare_plan

    plan = Plan.read(
        recipe,
        settings or [],
        federated__method=method,
        federated__engine=engine,
        data__source=data,
        model__name=model,
        split__kind=split,
        data__user_col=user_col,
        data__item_col=item_col,
        data__time_col=time_col,
        data__rating_col=rating_col,
        data__format=format,
        data__items=items,
        data__min_rating=min_rating,
        data__k_core=k_core,
        run__seed=seed,
    )
    dataset = load_dataset(plan.recipe.data)
    if explain_privacy:
        print_privacy(plan, dataset, json)
        return
    if not (quiet or json):
        say(str(dataset))
    place = run or free_folder(plan.recipe)
    if prepare:
        print_prepared(prepare_plan(plan, place, dataset=dataset), quiet, json)
        return
    folder = run_plan(plan, place, progress=progress(quiet, json), dataset=dataset)
    print_federation(folder, quiet, json)
