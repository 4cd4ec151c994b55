"""From a recipe to a finished run folder, and on from one that was cut off."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from foretaste.data.click_leakage import check_clicks
from foretaste.data.clicks import ClickTask
from foretaste.data.dataset import Dataset
from foretaste.data.leakage import check_leakage
from foretaste.data.learnt_from import LearntFrom
from foretaste.data.split import Split, split
from foretaste.errors import InputError, WriteError
from foretaste.experiments.clicks import click_task, describe_clicks, evaluate_clicks
from foretaste.experiments.describing import (
    describe_data,
    describe_fit,
    describe_leakage,
    describe_split,
    sample_lists,
)
from foretaste.experiments.evaluating import Evaluation, Part, evaluate
from foretaste.experiments.loading import anchored, load_dataset
from foretaste.experiments.machine import (
    machine,
    main_process,
    peak_memory,
    this_command,
    versions,
)
from foretaste.experiments.recipe import Recipe, SplitSection
from foretaste.experiments.run_folder import FORMAT, RunFolder
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.ranker import Ranker

SPARE = "checkpoint.safetensors"


def train(
    recipe: Recipe,
    folder: Path | str,
    *,
    progress: Progress | None = None,
    command: str | None = None,
    dataset: Dataset | None = None,
) -> RunFolder:
    """Read, split, check, train, evaluate; everything goes into a new run folder.

    Args:
        recipe: what to do.
        folder: where to; it must not hold a run.
        progress: who is told.
        command: how to repeat it, for the report; by default the command line of this process.
        dataset: the data of ``recipe.data`` when it has been read already.

    Raises:
        InputError: for anything that is the user's to mend, before anything is written where
            that can be known.
    """
    recipe = anchored(recipe)
    dataset = dataset or load_dataset(recipe.data)
    prepared = prepare(dataset, recipe)
    if main_process():
        run = RunFolder.create(Path(folder), recipe)
        run.log("started", command=command or this_command())
    else:
        run = RunFolder(folder)
    with run.alone():
        try:
            return _run(run, recipe, dataset, prepared, progress or Silent(), command)
        except WriteError:
            raise  # with room again, the run can go on
        except InputError:
            run.discard()
            raise


def resume(folder: Path | str, *, progress: Progress | None = None) -> RunFolder:
    """Go on with a run that was cut off, from its last whole epoch.

    The weights become those of the uninterrupted run, bit for bit. A finished run is returned as
    it is, but for figures that cannot be read any more: they are made again.

    Raises:
        InputError: when there is no run, or its data has changed since it began, or the model of a
            finished run cannot be read, or another process is at work in it.
    """
    run = RunFolder.open(folder)
    with run.alone():
        return _measured_again(run, progress) if run.finished else _resumed(run, progress)


def _measured_again(run: RunFolder, progress: Progress | None) -> RunFolder:
    """A finished run with all its figures."""
    recommender = run.recommender()
    if not run.measured:
        recipe, dataset = reopen_data(run)
        _measure(run, recommender, prepare(dataset, recipe), recipe, progress or Silent())
    return run


def _resumed(run: RunFolder, progress: Progress | None) -> RunFolder:
    recipe = Recipe.read(run.path / "recipe.toml")
    dataset = load_dataset(recipe.data)
    begun = run.path / "run.json"
    if begun.exists() and run.fingerprint != _fingerprint(dataset, recipe):
        raise InputError(
            f"{recipe.data.source}: the data has changed since {run.path} began. "
            "Restore it, or train anew into another folder."
        )
    if main_process():
        run.log("resumed")
    prepared = prepare(dataset, recipe)
    return _run(run, recipe, dataset, prepared, progress or Silent(), None)


def prepare(dataset: Dataset, recipe: Recipe) -> Split | ClickTask:
    """What a recipe asks to be learnt and measured: a split, or clicks."""
    if recipe.clicks is None:
        return split_dataset(dataset, recipe.split)
    return click_task(dataset, recipe.clicks)


def split_dataset(dataset: Dataset, section: SplitSection) -> Split:
    """The split that a recipe asks for."""
    options = section.model_dump()
    return split(dataset, options.pop("kind"), **options)


def _run(
    run: RunFolder,
    recipe: Recipe,
    dataset: Dataset,
    prepared: Split | ClickTask,
    progress: Progress,
    command: str | None,
) -> RunFolder:
    begin = time.perf_counter()
    record = _record(recipe, dataset, prepared, command)
    first = main_process()
    if (run.path / "run.json").exists():
        # How it began is how to repeat it, whoever goes on with it.
        record |= {name: run.record[name] for name in ("command", "started") if name in run.record}
    elif first:
        run.write("run.json", record)
    context = replace(
        recipe.context(), folder=run.path, progress=progress, log=run.log if first else _nothing
    )
    recommender = recipe.recommender()
    if isinstance(prepared, ClickTask):
        assert isinstance(recommender, Ranker)
        fit = recommender.fit_clicks(prepared, context)
    else:
        fit = recommender.fit(prepared, context)
    if not first:
        return run
    recommender.save(run.path)
    _measure(run, recommender, prepared, recipe, progress)
    record |= {"fit": describe_fit(fit, recipe), "status": "done"}
    record["wall_seconds"] = time.perf_counter() - begin
    record["peak_memory_bytes"] = peak_memory()
    run.write("run.json", record)
    (run.path / SPARE).unlink(missing_ok=True)
    run.log("done", seconds=record["wall_seconds"])
    return run


def _measure(
    run: RunFolder,
    recommender: Recommender,
    prepared: Split | ClickTask,
    recipe: Recipe,
    progress: Progress,
) -> None:
    write_evaluations(run, evaluate_all(recommender, prepared, recipe, progress))
    lists = []
    if isinstance(prepared, Split):
        lists = sample_lists(recommender, prepared, recipe.evaluate.exclude)
    run.write("samples.json", lists)


def _nothing(event: str, **facts: Any) -> None:
    del event, facts


def evaluate_all(
    recommender: Recommender, prepared: Split | ClickTask, recipe: Recipe, progress: Progress
) -> dict[str, Evaluation]:
    """Figures of ``valid`` (when it has queries) and ``test``."""
    parts: tuple[Part, ...] = ("valid", "test")
    return {
        part: evaluate_part(recommender, prepared, part, recipe, progress)
        for part in parts
        if len(getattr(prepared, part))
    }


def evaluate_part(
    recommender: Recommender,
    prepared: Split | ClickTask,
    part: Part,
    recipe: Recipe,
    progress: Progress,
) -> Evaluation:
    """Figures of one part, as the recipe asks for them.

    Raises:
        InputError: nothing is asked in this part.
    """
    if isinstance(prepared, Split):
        return evaluate(recommender, prepared, part, recipe.evaluate, progress=progress)
    assert isinstance(recommender, Ranker) and recipe.clicks is not None
    return evaluate_clicks(recommender, prepared, part, recipe.clicks.cut)


def write_evaluations(run: RunFolder, evaluations: dict[str, Evaluation]) -> None:
    """``metrics.parquet`` and ``metrics.json`` of a run."""
    from io import BytesIO

    from foretaste.storage import write_whole

    buffer = BytesIO()
    pl.concat([one.per_query for one in evaluations.values()]).write_parquet(buffer)
    write_whole(run.path / "metrics.parquet", buffer.getvalue())
    run.write("metrics.json", {part: one.summary for part, one in evaluations.items()})


def reopen(run: RunFolder) -> tuple[Recipe, Dataset, Split]:
    """The recipe of a run, its data and its split, made again.

    Raises:
        InputError: when the data is gone or has changed since the run.
    """
    recipe, dataset = reopen_data(run)
    return recipe, dataset, split_dataset(dataset, recipe.split)


def reopen_data(run: RunFolder) -> tuple[Recipe, Dataset]:
    """The recipe of a run and its data, read again.

    Raises:
        InputError: when the data is gone or has changed since the run.
    """
    recipe = Recipe.read(run.path / "recipe.toml")
    dataset = load_dataset(recipe.data)
    if run.fingerprint != _fingerprint(dataset, recipe):
        raise InputError(
            f"{recipe.data.source}: the data has changed since {run.path} was trained. "
            "Restore it, or train again."
        )
    return recipe, dataset


def _fingerprint(dataset: Dataset, recipe: Recipe) -> str:
    """Of what a run sees of its data: clicks are made of ratings, a split of who met what."""
    return dataset.fingerprint if recipe.clicks is None else dataset.rated_fingerprint


def _codes_of(recipe: Recipe) -> tuple[LearntFrom, ...] | None:
    """What the codes that a recipe takes from a folder were learnt from."""
    if not (folder := recipe.model.get("codes_from")):
        return None
    from foretaste.recommenders.core.coding import codes_learnt_from  # it needs PyTorch

    return codes_learnt_from(Path(folder))


def _record(
    recipe: Recipe, dataset: Dataset, prepared: Split | ClickTask, command: str | None
) -> dict[str, Any]:
    if isinstance(prepared, Split):
        cut = describe_split(prepared)
        leakage = check_leakage(prepared, dataset=dataset, codes=_codes_of(recipe))
    else:
        assert recipe.clicks is not None
        cut = describe_clicks(prepared, recipe.clicks)
        leakage = check_clicks(prepared, recipe.clicks.cut, dataset=dataset)
    return {
        "format": FORMAT,
        "status": "training",
        "model": recipe.model["name"],
        "seed": recipe.run.seed,
        "command": command or this_command(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine() | {"device": recipe.run.device, "threads": recipe.run.threads},
        "data": describe_data(dataset, recipe.data)
        | {"fingerprint": _fingerprint(dataset, recipe)},
        "split": cut,
        "leakage": describe_leakage(leakage),
    }
