"""``foretaste evaluate``: measure a trained run again, on its own data and split."""

from __future__ import annotations

from typing import Annotated

import typer

from foretaste.cli import options


def evaluate(
    run: options.Run,
    split: Annotated[str, typer.Option("--split", help="Which part: test or valid.")] = "test",
    settings: options.Settings = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Measure every query, with intervals: lists of the whole catalog, or what was shown."""
    from foretaste.cli.display import print_json, progress
    from foretaste.cli.figures import print_evaluation
    from foretaste.errors import InputError
    from foretaste.experiments.recipe import parse_settings
    from foretaste.experiments.run_folder import RunFolder
    from foretaste.experiments.running import evaluate_part, prepare, reopen_data

    folder = RunFolder.open(run)
    recommender = folder.recommender()
    recipe, dataset = reopen_data(folder)
    kind = recipe.split.kind if recipe.clicks is None else recipe.clicks.cut
    if split == kind:
        split = "test"
    if split not in ("test", "valid"):
        raise InputError(
            f'--split {split}: the run was trained on "{kind}". Choose its part, test '
            "or valid; another way to cut needs another training."
        )
    chosen = parse_settings(settings or [])
    foreign = [field for field in chosen if not field.startswith("evaluate.")]
    if foreign:
        raise InputError(f"--set {foreign[0]}: only evaluate.* can be set after training.")
    recipe = recipe.with_settings(chosen)
    prepared = prepare(dataset, recipe)
    found = evaluate_part(recommender, prepared, split, recipe, progress(quiet, json))
    if json:
        print_json({"run": str(folder.path), **found.summary})
    else:
        print_evaluation(found.summary)
