"""From a plan to a finished run folder: rounds over an engine, then figures as of every run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.data.dataset import Dataset
from foretaste.data.leakage import check_leakage
from foretaste.data.split import Queries, Split
from foretaste.errors import InputError, WriteError
from foretaste.experiments.describing import (
    describe_data,
    describe_leakage,
    describe_split,
    sample_lists,
)
from foretaste.experiments.evaluating import Evaluation
from foretaste.experiments.loading import anchored, load_dataset
from foretaste.experiments.machine import machine, peak_memory, this_command, versions
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.run_folder import FORMAT, RunFolder
from foretaste.experiments.running import evaluate_all, reopen, split_dataset, write_evaluations
from foretaste.federated.core.checkpoint import CHECKPOINT, Progressed
from foretaste.federated.core.config import FederatedConfig
from foretaste.federated.core.fleet import Fleet, LocalFleet
from foretaste.federated.core.node import held_out
from foretaste.federated.core.node_secret import FILE
from foretaste.federated.core.randomness import user_keys
from foretaste.federated.core.server import SECRET, Evaluate, Server
from foretaste.federated.core.sessions import FILE as SESSION_FILE
from foretaste.federated.engines.node_log import FILE as LOG
from foretaste.federated.engines.node_log import counted
from foretaste.federated.gathering import clients_of, node_count
from foretaste.federated.plan import Plan
from foretaste.progress import Progress, Silent
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.ranking import rank_queries

LOGGER = logging.getLogger(__name__)
OF_POPULARITY = ("novelty", "popularity_lift", "head_share")
NODES = "nodes"
"""Where the files of simulated nodes lie in a run folder."""
PREPARED = "prepared"
"""The status of a run whose rounds are for devices of their own."""


def federate(
    plan: Plan,
    folder: Path | str,
    *,
    progress: Progress | None = None,
    command: str | None = None,
    dataset: Dataset | None = None,
) -> RunFolder:
    """Split, run the rounds, evaluate; everything goes into a new run folder.

    Args:
        plan: what to do.
        folder: where to; it must not hold a run.
        progress: who is told.
        command: how to repeat it, for the report.
        dataset: the data of the recipe when it has been read already.

    Raises:
        InputError: for anything that is the user's to mend.
    """
    run, plan, split = _begin(plan, Path(folder), command, dataset, nodes_here=True)
    with run.alone():
        (run.path / NODES / LOG).unlink(missing_ok=True)  # of an earlier try
        try:
            return _go(run, plan, split, progress or Silent())
        except WriteError:
            raise
        except InputError:
            if not (run.path / CHECKPOINT).exists():
                _discard(run)
            raise


def prepare(
    plan: Plan, folder: Path | str, *, command: str | None = None, dataset: Dataset | None = None
) -> RunFolder:
    """Write the run folder, the Flower app in it and where its SuperLink is, and run nothing.

    ``flwr run FOLDER/flower/app`` then runs the rounds, and ``go_on`` evaluates.

    Raises:
        InputError: as of ``federate``.
    """
    from foretaste.federated.engines.deployment import write_app, write_connection

    run, _, _ = _begin(plan, Path(folder), command, dataset, nodes_here=False)
    write_app(run.path)
    write_connection(run.path)
    run.write("run.json", {**run.record, "status": PREPARED})
    return run


def _begin(
    plan: Plan, folder: Path, command: str | None, dataset: Dataset | None, *, nodes_here: bool
) -> tuple[RunFolder, Plan, Split]:
    plan = replace(plan, recipe=anchored(plan.recipe))
    dataset = dataset or load_dataset(plan.recipe.data)
    split = split_dataset(dataset, plan.recipe.split)
    # Tells of a model that does not fit, or of what nodes here lack, before anything is written.
    plan.method(split.catalog, folder / NODES if nodes_here else None)
    _warn_of_few_nodes(plan.config, node_count(split, plan.config.nodes))
    run = RunFolder.create(folder, plan.recipe)
    command = command or this_command()
    run.log("started", command=command)
    plan.write(run.path, split.catalog)
    run.write("run.json", _record(plan, dataset, split, command))
    return run, plan, split


def _warn_of_few_nodes(config: FederatedConfig, nodes: int) -> None:
    """Tell when a robust rule over so many nodes cannot bear a single hostile one."""
    rule, share = config.robust.rule, config.robust.share
    least = {"mean": 0, "krum": max(5, ceil(1 / share) if share else 0)}.get(rule, 3)
    if nodes < least:
        LOGGER.warning(
            "federated.robust.rule = %s over %d nodes protects against none of them: it takes %d "
            "or more. Set federated.nodes higher; with 0 every user is a node.",
            *(rule, nodes, least),
        )


def go_on(folder: Path | str, *, progress: Progress | None = None) -> RunFolder:
    """Go on with a federation that was cut off, from its last whole round.

    Raises:
        InputError: when there is none, or its data has changed since it began, or its rounds are
            for devices of their own and not all are done.
    """
    run = RunFolder.open(folder)
    plan = Plan.open(run.path)
    if run.finished:
        if not run.measured:
            recipe, _, split = reopen(run)
            _measure(run, run.recommender(), split, recipe, progress or Silent())
        return run
    dataset = load_dataset(plan.recipe.data)
    if run.fingerprint != dataset.fingerprint:
        raise InputError(
            f"{plan.recipe.data.source}: the data has changed since {run.path} began. "
            "Restore it, or begin anew in another folder."
        )
    with run.alone():
        run.log("resumed")
        return _go(run, plan, split_dataset(dataset, plan.recipe.split), progress or Silent())


def server_of(
    plan: Plan, split: Split, run: RunFolder, fleet: Fleet, progress: Progress | None = None
) -> Server:
    """The server of a run, where it left off."""
    return Server(
        plan.method(split.catalog),
        fleet,
        clients=clients_of(split),
        folder=run.path,
        evaluate=evaluation(plan, split),
        progress=progress,
        log=run.log,
    )


def evaluation(plan: Plan, split: Split) -> Evaluate | None:
    """Figures of a recommender on validation queries; also on users that never train."""
    if not len(split.valid):
        return None
    config, seed = plan.config, plan.recipe.run.seed
    asked = _some(split.valid, config.evaluate_queries, seed)
    out = held_out(user_keys(split.users[asked.users]), config.held_out, seed)

    def figures(recommender: Recommender) -> dict[str, float]:
        answers = rank_queries(
            recommender, asked, [config.metric], exclude=plan.recipe.evaluate.exclude
        )
        values = answers.metrics[config.metric]
        found = {"valid": float(values.mean())}
        if out.any():
            found["held_out"] = float(values[out].mean())
        return found

    return figures


def _go(run: RunFolder, plan: Plan, split: Split, progress: Progress) -> RunFolder:
    begin = time.perf_counter()
    server = server_of(plan, split, run, LocalFleet([]))
    if server.now.next_round > plan.config.rounds:  # they were run elsewhere, as by flwr run
        done = server.run()
    elif run.record["status"] == PREPARED:
        raise InputError(_to_run(run, server.now.next_round - 1, plan.config.rounds))
    else:
        done, server = _engine(plan)(run, plan, split, progress)
    forget_secrets(run.path)  # no more noise will be drawn, and none can be taken back
    recommender = server.method.recommender(done.best)
    recommender.save(run.path)
    _measure(run, recommender, split, plan.recipe, progress)
    record = dict(run.record)
    record |= {
        "fit": _fit(done, plan),
        "federation": _federation(done, server, plan, split)
        | {"views": counted(run.path / NODES) or None},
        "status": "done",
        "wall_seconds": time.perf_counter() - begin,
        "peak_memory_bytes": peak_memory(),
    }
    run.write("run.json", record)
    run.log("done", seconds=record["wall_seconds"])
    return run


def _to_run(run: RunFolder, done: int, rounds: int) -> str:
    from foretaste.federated.engines.deployment import command_of

    return (
        f"{run.path}: {done} of {rounds} rounds are done. It was prepared for devices of their "
        f"own, so the rest is theirs: {command_of(run.path)}"
    )


def _measure(
    run: RunFolder, recommender: Recommender, split: Split, recipe: Recipe, progress: Progress
) -> None:
    evaluations = {
        part: _without_popularity(one)
        for part, one in evaluate_all(recommender, split, recipe, progress).items()
    }
    write_evaluations(run, evaluations)
    run.write("samples.json", sample_lists(recommender, split, recipe.evaluate.exclude))


def forget_secrets(folder: Path) -> None:
    """Take away what noise and masks were made from, at the server and at simulated nodes."""
    own = [path for name in (FILE, SESSION_FILE) for path in (folder / NODES).glob(f"*/{name}")]
    for path in (folder / SECRET, *own):
        path.unlink(missing_ok=True)


def _without_popularity(evaluation: Evaluation) -> Evaluation:
    """Without figures that compare with popularity, which the server of a federation cannot know.

    The recommender holds none, so they would be figures of nothing.
    """

    def known(names: Iterable[str]) -> list[str]:
        return [name for name in names if name.partition("@")[0] not in OF_POPULARITY]

    summary = dict(evaluation.summary)
    for kind in ("metrics", "lists"):
        summary[kind] = {name: summary[kind][name] for name in known(summary[kind])}
    return Evaluation(summary, evaluation.per_query.select(known(evaluation.per_query.columns)))


def _engine(plan: Plan) -> Callable[..., tuple[Progressed, Server]]:
    if plan.engine == "local":
        from foretaste.federated.engines.local import run_rounds
    elif plan.engine == "simulation":
        from foretaste.federated.engines.simulation import run_rounds
    else:
        from foretaste.federated.engines.deployment import run_rounds
    return run_rounds


def _record(plan: Plan, dataset: Dataset, split: Split, command: str) -> dict[str, Any]:
    recipe = plan.recipe
    return {
        "format": FORMAT,
        "status": "training",
        "model": recipe.model["name"],
        "seed": recipe.run.seed,
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine() | {"device": "cpu", "threads": recipe.run.threads},
        "data": describe_data(dataset, recipe.data),
        "split": describe_split(split),
        "leakage": describe_leakage(check_leakage(split, dataset=dataset)),
    }


def _fit(done: Progressed, plan: Plan) -> dict[str, Any]:
    """The learning curve as of every run; an epoch is a round."""
    epochs = [
        {
            "epoch": one.round,
            "loss": one.loss,
            "targets": one.users,
            "seconds": one.seconds,
            "valid": one.figures.get("valid", one.on_clients.get(plan.config.metric)),
        }
        for one in done.curve
    ]
    return {
        "seconds": sum(one.seconds for one in done.curve),
        "best_epoch": done.best_round,
        "stopped": "all rounds done",
        "metric": plan.config.metric,
        "epochs": epochs,
        "details": {},
    }


def _federation(done: Progressed, server: Server, plan: Plan, split: Split) -> dict[str, Any]:
    return {
        "method": plan.name,
        "engine": plan.engine,
        "clients": server.clients,
        "nodes": node_count(split, plan.config.nodes),
        "epsilon": server.spent(),
        "delta": plan.config.privacy.delta,
        "metric": plan.config.metric,
        "best_round": done.best_round,
        "rounds": [one._asdict() for one in done.curve],
    }


def _some(queries: Queries, limit: int, seed: int) -> Queries:
    if len(queries) <= limit:
        return queries
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:limit])
    return Queries(
        queries.users[chosen], queries.histories.take(chosen), queries.targets.take(chosen)
    )


def _discard(run: RunFolder) -> None:
    """Take away a federation without a single round, so that its name is free again."""
    for name in ("federation.toml", "catalog.parquet"):
        (run.path / name).unlink(missing_ok=True)
    run.discard()
