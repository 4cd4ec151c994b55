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
    """Rank the whole catalog for every query and measure, with intervals."""
    from foretaste.cli.display import print_json, progress
    from foretaste.cli.figures import print_evaluation
    from foretaste.errors import InputError
    from foretaste.experiments.evaluating import evaluate as measure
    from foretaste.experiments.recipe import parse_settings
    from foretaste.experiments.run_folder import RunFolder
    from foretaste.experiments.running import reopen

    folder = RunFolder.open(run)
    recommender = folder.recommender()
    recipe, _, prepared = reopen(folder)
    if split == prepared.kind:
        split = "test"
    if split not in ("test", "valid"):
        raise InputError(
            f'--split {split}: the run was trained on "{prepared.kind}". Choose its part, test '
            "or valid; another way to cut needs another training."
        )
    chosen = parse_settings(settings or [])
    foreign = [field for field in chosen if not field.startswith("evaluate.")]
    if foreign:
        raise InputError(f"--set {foreign[0]}: only evaluate.* can be set after training.")
    section = recipe.with_settings(chosen).evaluate
    found = measure(recommender, prepared, split, section, progress=progress(quiet, json))
    if json:
        print_json({"run": str(folder.path), **found.summary})
    else:
        print_evaluation(found.summary)
