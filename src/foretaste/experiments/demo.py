"""The main job, start to end, on the embedded data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.data.leakage import check_leakage
from foretaste.errors import InputError
from foretaste.experiments.answering import Answer, Question, answer
from foretaste.experiments.comparing import Comparison, compare
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import resume, split_dataset, train
from foretaste.progress import Progress

# Films seen once or twice cannot be learnt from; without them EASE takes a second, not fifteen.
COMMON: dict[str, Any] = {"split": {"min_item_count": 3}}
MODELS: dict[str, dict[str, Any]] = {
    "popularity": {},
    "ease": {},
    "sasrec": {"train": {"epochs": 25, "batch_tokens": 3_200}},
}


@dataclass(frozen=True)
class Demo:
    """What the demo made: finished runs, their comparison, and a list from the best of them."""

    runs: tuple[RunFolder, ...]
    comparison: Comparison
    answer: Answer


def run_demo(
    folder: Path,
    settings: Mapping[str, Any],
    history: list[str],
    *,
    progress: Progress,
    say: Callable[[str], None],
) -> Demo:
    """Train popularity, EASE and SASRec on the embedded films and compare them.

    Runs that are finished already are used again, and one that was cut off goes on.

    Args:
        folder: gets one run folder for each model.
        settings: fields for all recipes, such as ``{"split.kind": "leave-last-out"}``.
        history: film titles, as a person would type them.
        progress: who is told how far the work is.
        say: told what is being done, a line at a time.

    Raises:
        InputError: when ``folder`` holds runs of other settings.
    """
    recipes = {name: _recipe(name, settings) for name in MODELS}
    first = next(iter(recipes.values()))
    dataset = load_dataset(first.data)
    say(str(dataset))
    prepared = split_dataset(dataset, first.split)
    say(f"split by {prepared.kind}: {len(prepared.test):,} users to ask, {prepared.items:,} items")
    say(f"leakage: {check_leakage(prepared, dataset=dataset)}")
    runs = []
    for name, recipe in recipes.items():
        path = folder / name
        if (path / "recipe.toml").exists():
            run = _again(path, recipe, progress)
        else:
            say(f"training {name}")
            run = train(recipe, path, progress=progress, dataset=dataset)
        runs.append(run)
    comparison = compare(runs)
    best = next(run for run in runs if run.name == comparison.rows[0].run)
    question = Question(titles=history, item_ids=[], user=None)
    return Demo(tuple(runs), comparison, answer(best, question))


def _recipe(name: str, settings: Mapping[str, Any]) -> Recipe:
    values = {**COMMON, "model": {"name": name}, **MODELS[name]}
    trained = "train" in MODELS[name]
    fitting = {key: value for key, value in settings.items() if trained or key[:6] != "train."}
    return Recipe.build(values, place=f"demo {name}").with_settings(fitting)


def _again(path: Path, recipe: Recipe, progress: Progress) -> RunFolder:
    if Recipe.read(path / "recipe.toml") != recipe:
        raise InputError(
            f"{path}: holds a run of other settings. Choose another --run, or remove {path}."
        )
    return resume(path, progress=progress)
