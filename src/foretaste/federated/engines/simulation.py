"""Flower's simulation: nodes are computed by processes of this machine, driven by its engine."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretaste.data.split import Split
from foretaste.errors import InputError, WriteError
from foretaste.experiments.run_folder import RunFolder
from foretaste.federated.core.checkpoint import Progressed
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.server import Server
from foretaste.federated.engines.flower import require_flower
from foretaste.federated.engines.node_log import Watching, last_warning
from foretaste.federated.gathering import node_count
from foretaste.federated.plan import Plan
from foretaste.federated.running import NODES, server_of
from foretaste.progress import Progress


def run_rounds(
    run: RunFolder, plan: Plan, split: Split, progress: Progress
) -> tuple[Progressed, Server]:
    """All rounds that are left, in Flower's simulation.

    Raises:
        MissingExtraError: when Flower is not installed.
        InputError: when the federation stopped before its last round.
    """
    require_flower()
    with flower_settings(run.path):
        from flwr.simulation import run_simulation

        from foretaste.federated.engines.apps import make_client_app, make_server_app

        folder = run.path.resolve()
        progress = Watching(progress, folder / NODES)
        try:
            run_simulation(
                server_app=make_server_app(folder, progress),
                client_app=make_client_app(folder),
                num_supernodes=node_count(split, plan.config.nodes),
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                    "init_args": {"include_dashboard": False, "log_to_driver": False},
                },
            )
        except WriteError:
            raise
        except (RuntimeError, InputError) as error:
            raise InputError(_why(run, str(error))) from error
    return ended(run, plan, split)


def ended(run: RunFolder, plan: Plan, split: Split) -> tuple[Progressed, Server]:
    """What a server of another process or thread left in the checkpoint.

    Raises:
        InputError: when it did not come to its last round.
    """
    server = server_of(plan, split, run, LocalFleet([]))
    if server.now.next_round <= plan.config.rounds:
        raise InputError(_why(run, "the engine ended early"))
    return server.run(), server


@contextmanager
def flower_settings(folder: Path) -> Iterator[None]:
    """Flower keeps its files in the run folder, sends nobody any figures, and is quiet."""
    wanted = {
        "FLWR_HOME": str((folder / "flower").resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    level = logging.getLogger("flwr").level
    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger("flwr").setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _why(run: RunFolder, reason: str) -> str:
    """The problem that the server logged last, or the engine's own words; then a node's own."""
    lines = (run.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    stops = [one for line in lines if (one := json.loads(line))["event"] == "stopped"]
    said = stops[-1]["problem"] if stops else reason
    at_node = last_warning(run.path / NODES)
    more = f" A node said: {at_node}" if at_node else ""
    return f"{run.path}: the federation stopped. {' '.join(str(said).split())}{more}"
