"""Searching for hyper-parameters on validation data, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretaste.errors import InputError, MissingExtraError
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import EvaluateSection, Recipe
from foretaste.experiments.running import split_dataset
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.ranking import rank_queries

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.study import Study

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
    """

    recipe: Recipe
    value: float
    settings: dict[str, Any]
    trials: int
    path: Path


def tune(recipe: Recipe, folder: Path | str, *, progress: Progress | None = None) -> Tuned:
    """Search ``recipe.tune.space`` for the best validation metric; test data is never looked at.

    Trials are kept in ``folder/trials.log``: a second call goes on where the first stopped, up to
    ``recipe.tune.trials`` in all, and the best recipe is written to ``folder/best.toml``.

    Raises:
        InputError: when nothing is searched, a range is not one, or there is no validation data.
        MissingExtraError: without Optuna.
    """
    if not recipe.tune.space:
        raise InputError(
            'the recipe has no [tune.space]. Write, for example, "model.dropout" = [0.1, 0.3, 0.5].'
        )
    folder = Path(folder)
    study = _study(folder, recipe.run.seed)
    dataset = load_dataset(recipe.data)
    prepared = split_dataset(dataset, recipe.split)
    if not len(prepared.valid):
        raise InputError("the split has no validation queries to tune on (split.refit is set).")

    def measure(trial: Trial) -> float:
        settings = {field: _suggest(trial, field, of) for field, of in recipe.tune.space.items()}
        candidate = recipe.with_settings(settings)
        recommender = candidate.recommender()
        recommender.fit(prepared, candidate.context())
        metric = recipe.tune.metric
        section: EvaluateSection = candidate.evaluate
        answers = rank_queries(recommender, prepared.valid, [metric], exclude=section.exclude)
        return float(answers.metrics[metric].mean())

    done = _finished(study)
    with (progress or Silent()).task("trials", recipe.tune.trials) as task:
        task.advance(done)
        while done < recipe.tune.trials:
            study.optimize(measure, n_trials=1)
            done = _finished(study)
            task.advance(1, f"best {recipe.tune.metric} {study.best_value:.4f}")
    best = recipe.with_settings(study.best_params)
    (folder / BEST).write_text(best.to_toml(), encoding="utf-8")
    return Tuned(best, study.best_value, study.best_params, done, folder / BEST)


def _study(folder: Path, seed: int) -> Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise MissingExtraError("optuna", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    study = optuna.create_study(
        storage=storage, study_name="foretaste", direction="maximize", load_if_exists=True
    )
    # The sampler depends on how many trials there are, so a search that goes on draws afresh.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def _finished(study: Study) -> int:
    return sum(trial.state.name == "COMPLETE" for trial in study.trials)


def _suggest(trial: Trial, field: str, of: Any) -> Any:
    if isinstance(of, list) and of:
        return trial.suggest_categorical(field, of)
    if isinstance(of, Mapping) and {"low", "high"} <= set(of) <= {"low", "high", "log"}:
        low, high, log = of["low"], of["high"], bool(of.get("log", False))
        if low < high and isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(field, low, high, log=log)
        if low < high:
            return trial.suggest_float(field, low, high, log=log)
    raise InputError(
        f'tune.space "{field}" = {of!r}: write a list of choices, or '
        "{ low = 0.1, high = 0.5 } and perhaps log = true."
    )
