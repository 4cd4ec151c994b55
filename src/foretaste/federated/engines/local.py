"""All nodes in this process, without Flower: the quickest way, and the one that tests use."""

from __future__ import annotations

from foretaste.data.split import Split
from foretaste.experiments.run_folder import RunFolder
from foretaste.federated.core.checkpoint import Progressed
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.server import Server
from foretaste.federated.engines.node_log import node_log
from foretaste.federated.gathering import dealt_node, node_count
from foretaste.federated.plan import Plan
from foretaste.federated.running import NODES, server_of
from foretaste.progress import Progress


def run_rounds(
    run: RunFolder, plan: Plan, split: Split, progress: Progress
) -> tuple[Progressed, Server]:
    """All rounds that are left."""
    home = run.path / NODES
    method = plan.method(split.catalog, home, progress)
    nodes = node_count(split, plan.config.nodes)
    fleet = LocalFleet(dealt_node(method, split, node, nodes, home) for node in range(nodes))
    server = server_of(plan, split, run, fleet, progress)
    with node_log(home):
        return server.run(), server
