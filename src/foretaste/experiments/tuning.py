"""Searching for hyper-parameters on validation data, resumable."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretaste.data.split import Split
from foretaste.errors import InputError, MissingExtraError
from foretaste.experiments.loading import anchored, load_dataset
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.running import split_dataset
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.storage import write_whole

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.study import Study

SEARCHED = ("model", "train")
JOURNAL = "trials.log"
BEST = "best.toml"


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        recipe: the best recipe.
        value: its metric on validation.
        settings: the fields that were searched, with their best values.
        trials: how many were finished, earlier calls counted.
        path: where the best recipe was written.
        failed: how many of them came to no figure, because training went to infinity or values
            that are allowed one by one do not fit together.
    """

    recipe: Recipe
    value: float
    settings: dict[str, Any]
    trials: int
    path: Path
    failed: int = 0


def tune(recipe: Recipe, folder: Path | str, *, progress: Progress | None = None) -> Tuned:
    """Search ``recipe.tune.space`` for the best validation metric; test data is never looked at.

    Trials are kept in ``folder/trials.log``: a second call goes on where the first stopped, up to
    ``recipe.tune.trials`` in all, and the best recipe is written to ``folder/best.toml``. A search
    is of one recipe and one data set; the number of trials may grow.

    Raises:
        InputError: when nothing is searched, a range is not one or of a field that takes no part,
            the folder holds another search, there is no validation data, or no trial comes to a
            figure.
        MissingExtraError: without Optuna.
    """
    if not recipe.tune.space:
        raise InputError(
            'the recipe has no [tune.space]. Write, for example, "model.dropout" = [0.1, 0.3, 0.5].'
        )
    if recipe.clicks is not None:
        raise InputError("[clicks]: a search measures lists of a split. Leave [clicks] out of it.")
    folder = Path(folder)
    check_space(recipe)
    recipe = anchored(recipe)
    dataset = load_dataset(recipe.data)
    study = _study(folder, recipe, dataset.fingerprint)
    from optuna import TrialPruned  # _study has told when it is missing

    prepared = split_dataset(dataset, recipe.split)
    if not len(prepared.valid):
        raise InputError("the split has no validation queries to tune on (split.refit is set).")

    metric = recipe.tune.metric

    def measure(trial: Trial) -> float:
        settings = {field: _suggest(trial, field, of) for field, of in recipe.tune.space.items()}
        try:
            return _figure(recipe.with_settings(settings), prepared, metric)
        except InputError as error:  # these settings are wrong, not the search
            trial.set_user_attr("reason", str(error))
            raise TrialPruned(str(error)) from error

    done = _ended(study)
    with (progress or Silent()).task("trials", recipe.tune.trials) as task:
        task.advance(done)
        while done < recipe.tune.trials:
            study.optimize(measure, n_trials=1)
            done = _ended(study)
            found = _ended(study, "COMPLETE")
            task.advance(1, f"best {metric} {study.best_value:.4f}" if found else "")
    failed = _ended(study, "PRUNED")
    if failed == done:
        reason = next(trial.user_attrs["reason"] for trial in study.trials if trial.user_attrs)
        raise InputError(f"{folder}: no trial came to a figure: {reason}")
    best = recipe.with_settings(study.best_params)
    write_whole(folder / BEST, best.to_toml().encode())
    return Tuned(best, study.best_value, study.best_params, done, folder / BEST, failed)


def _figure(recipe: Recipe, prepared: Split, metric: str) -> float:
    """The metric of a recipe on validation."""
    recommender = recipe.recommender()
    recommender.fit(prepared, recipe.context())
    exclude = recipe.evaluate.exclude
    answers = rank_queries(recommender, prepared.valid, [metric], exclude=exclude)
    return float(answers.metrics[metric].mean())


def check_space(recipe: Recipe) -> None:
    """Look at every field and every end of a range before anything is trained.

    Raises:
        InputError: for a field that is no part of a model or its training, or a value that is not
            allowed.
    """
    space = recipe.tune.space
    for field, of in space.items():
        if field.partition(".")[0] not in SEARCHED:
            raise InputError(
                f'tune.space "{field}": data and split are made once, before the search, so it '
                "would have no effect. Search fields of model and train."
            )
        for value in _ends(field, of):
            if "model.name" not in space:  # else fields may be of a model that is searched too
                recipe.with_settings({field: value})


def _study(folder: Path, recipe: Recipe, data: str) -> Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise MissingExtraError("optuna", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / JOURNAL
    _cut_half_a_line(journal)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{journal}: damaged ({error}). Restore it, or choose another --folder."
        ) from error
    asked = recipe.model_dump(mode="json", exclude={"tune": {"trials"}})
    name = hashlib.sha256(json.dumps([asked, data], sort_keys=True).encode()).hexdigest()[:16]
    if {*optuna.get_all_study_names(storage)} - {name}:
        raise InputError(
            f"{folder}: holds the search of another recipe or other data. Choose another --folder."
        )
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )
    # The sampler depends on how many trials there are, so a search that goes on draws afresh.
    study.sampler = optuna.samplers.TPESampler(seed=recipe.run.seed + len(study.trials))
    return study


def _cut_half_a_line(journal: Path) -> None:
    """Take off what a killed search has not finished: Optuna would write on in the same line."""
    if journal.is_file() and not (written := journal.read_bytes()).endswith(b"\n"):
        os.truncate(journal, written.rfind(b"\n") + 1)


def _ended(study: Study, *states: str) -> int:
    """How many trials came to a figure (``COMPLETE``) or to none (``PRUNED``)."""
    wanted = states or ("COMPLETE", "PRUNED")
    return sum(trial.state.name in wanted for trial in study.trials)


def _suggest(trial: Trial, field: str, of: Any) -> Any:
    if isinstance(of, list):
        return trial.suggest_categorical(field, of)
    (low, high), log = _ends(field, of), bool(of.get("log", False))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(field, low, high, log=log)
    return trial.suggest_float(field, low, high, log=log)


def _ends(field: str, of: Any) -> list[Any]:
    """All choices of a field, or the ends of its range."""
    if isinstance(of, list) and of:
        return of
    if isinstance(of, Mapping) and {"low", "high"} <= set(of) <= {"low", "high", "log"}:
        ends = [of["low"], of["high"]]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        ordered = numbers and -math.inf < ends[0] < ends[1] < math.inf
        if ordered and (ends[0] > 0 or not of.get("log", False)):
            return ends
    raise InputError(
        f'tune.space "{field}" = {of!r}: write a list of choices, or '
        "{ low = 0.1, high = 0.5 } and, above 0, perhaps log = true."
    )
