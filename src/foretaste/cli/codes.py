"""``foretaste codes fit`` and ``codes report``: semantic IDs of a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli import options

Folders = Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="What codes fit wrote.")]


def fit(
    data: options.Data = None,
    items: options.Items = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="rqkmeans, rqvae, coba or opq.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="tfidf, sentence, endpoint or none.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A trained run whose item vectors are coded too.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to make.")
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=0, help="Other seeds to compare with, for stability.")
    ] = 1,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="A file for vectors of text models, or off; by default one in your cache folder.",
        ),
    ] = None,
    split: options.SplitKind = None,
    user_col: options.UserCol = None,
    item_col: options.ItemCol = None,
    time_col: options.TimeCol = None,
    rating_col: options.RatingCol = None,
    format: options.Format = None,
    min_rating: options.MinRating = None,
    k_core: options.KCore = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Give every item codes, from its text and, with --run, from what people chose.

    With --data the items are those of the training part of a log; with --items alone, those of a
    file.
    """
    from foretaste.cli.code_figures import print_codes
    from foretaste.cli.display import print_json, progress, say
    from foretaste.codes.tokenizer import FitContext
    from foretaste.errors import InputError
    from foretaste.experiments import coding
    from foretaste.experiments.recipe import parse_settings

    given = parse_settings(settings or [])
    own = {
        field: value for field, value in given.items() if not field.startswith(("data.", "split."))
    }
    for field, value in (("codes.tokenizer.kind", tokenizer), ("codes.text.kind", text)):
        own |= {} if value is None or field in own else {field: value}
    config = coding.coding_config(own)
    if data is None and items is not None and "data.source" not in given:
        of_log = {"--split": split, "--user-col": user_col, "--item-col": item_col}
        of_log |= {"--time-col": time_col, "--rating-col": rating_col, "--format": format}
        of_log |= {"--min-rating": min_rating, "--k-core": k_core}
        told = [flag for flag, value in of_log.items() if value is not None]
        told += [f"--set {field}" for field in given if field not in own]
        if told:
            raise InputError(f"{told[0]} is about a log, and --items is none. Give --data too.")
        found = coding.items_of_file(Path(items))
    else:
        recipe = options.build_recipe(
            None,
            [text for text in settings or [] if text.startswith(("data.", "split."))],
            data__source=data,
            data__items=items,
            data__user_col=user_col,
            data__item_col=item_col,
            data__time_col=time_col,
            data__rating_col=rating_col,
            data__format=format,
            data__min_rating=min_rating,
            data__k_core=k_core,
            split__kind=split,
        )
        found = coding.items_of_log(recipe.data, recipe.split)
    shown = progress(quiet, json)
    context = FitContext(seed or 0, device or "auto", shown, "codes.tokenizer.")
    folder, _, figures = coding.fit_codes(
        found, config, output, run=run, context=context, seeds=seeds, cache=cache
    )
    if json:
        print_json({"folder": str(folder), **figures})
    elif not quiet:
        print_codes(figures)
        say(f"{folder} is ready. Look at it: foretaste codes report {folder}")


def report(
    folders: Folders,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; FOLDER/report.html by default.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show figures of codes side by side, and write a page with pictures that opens offline."""
    from foretaste.cli.code_figures import print_codes
    from foretaste.cli.display import print_json, say
    from foretaste.experiments.coding import read_figures
    from foretaste.reporting.codes import write_code_report

    figures = [read_figures(folder) for folder in folders]
    path = write_code_report(figures, output or folders[0] / "report.html")
    if json:
        print_json({"report": str(path), "codes": figures})
        return
    for one in figures:
        print_codes(one)
    say(f"Open {path} in a browser.")
