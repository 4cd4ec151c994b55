"""All nodes in this process, without Flower: the quickest way, and the one that tests use."""

from __future__ import annotations

from foretaste.data.split import Split
from foretaste.experiments.run_folder import RunFolder
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.server import Progressed, Server
from foretaste.federated.gathering import dealt_node, node_count
from foretaste.federated.plan import Plan
from foretaste.federated.running import NODES, server_of
from foretaste.progress import Progress


def run_rounds(
    run: RunFolder, plan: Plan, split: Split, progress: Progress
) -> tuple[Progressed, Server]:
    """All rounds that are left."""
    method = plan.method(split.catalog, run.path, progress)
    nodes = node_count(split, plan.config.nodes)
    fleet = LocalFleet(
        dealt_node(method, split, node, nodes, run.path / NODES) for node in range(nodes)
    )
    server = server_of(plan, split, run, fleet, progress)
    return server.run(), server
