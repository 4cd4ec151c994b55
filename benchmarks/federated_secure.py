"""What secure aggregation costs: a round of FedAvg with and without it, over 8 and 32 nodes.

    .venv/bin/python benchmarks/federated_secure.py            # about a minute
    .venv/bin/python benchmarks/federated_secure.py --smoke    # small, to see that it runs

SASRec on MovieTweetings; a twentieth of the clients takes part, each with two Adam steps. All nodes
and the server are in this process, one after another, and messages pass as bytes; what nodes would
do at the same time on machines of their own is added up here. Told are processor seconds of a
round, since seconds on the wall of a shared machine say little: of all, and of the server alone.
Rounds with and without take turns; told is the median, the first left out. The weights must agree.
"""

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from peers.driving import write_table

from foretaste.data.split import Split, split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.base import World
from foretaste.federated.core.fleet import Delivery, LocalFleet
from foretaste.federated.core.messages import Order
from foretaste.federated.core.node import Node
from foretaste.federated.core.server import Server
from foretaste.federated.fedavg import FedAvg, FedAvgConfig
from foretaste.federated.gathering import clients_of, dealt
from foretaste.recommenders.sasrec import SASRec

HERE = Path(__file__).parent
MODEL = {"dim": 32, "max_length": 30}
AGREE = 1e-3
"""Largest difference of weights after all rounds: some have no gradient but rounding, which Adam
makes steps of (its learning rate is 1e-3)."""


class Counting(LocalFleet):
    """Knows the processor seconds that nodes took."""

    spent = 0.0

    def ask(self, orders: Mapping[str, Order], wait: float) -> Iterator[Delivery]:
        begin = time.process_time()
        for one in super().ask(orders, wait):
            self.spent += time.process_time() - begin
            yield one
            begin = time.process_time()
        self.spent += time.process_time() - begin


class Federation:
    """A server over nodes, and what its rounds took."""

    def __init__(self, data: Split, nodes: int, secure: bool) -> None:
        values = {
            "nodes": nodes,
            "clients": 0.05,
            "local": {"epochs": 2, "negatives": 128},
            "secure": {"on": secure},
        }
        config = FedAvgConfig.model_validate(values)
        method = FedAvg(config, World(data.catalog, SASRec(**MODEL)))
        own = [Node(method, dealt(data, part, nodes), f"node {part:02d}") for part in range(nodes)]
        self.fleet = Counting(own)
        self.server = Server(method, self.fleet, clients=clients_of(data))
        self.nodes, self.secure = nodes, secure
        self.took: list[tuple[float, float]] = []

    def step(self) -> None:
        """A round: processor seconds of all, and of the server."""
        self.fleet.spent, begin = 0.0, time.process_time()
        self.server.step()
        spent = time.process_time() - begin
        self.took.append((spent, spent - self.fleet.spent))

    def row(self) -> dict[str, str]:
        """A line of the table; the first round is left out."""
        whole, server = np.median(self.took[1:], axis=0)
        curve = self.server.now.curve[1:]
        return {
            "nodes": str(self.nodes),
            "sums": "secure" if self.secure else "plain",
            "clients in a round": f"{np.mean([one.users for one in curve]):,.0f}",
            "processor seconds of a round": f"{whole:.2f}",
            "at the server": f"{server:.2f}",
            "bytes down of a node": f"{curve[-1].down:,.0f}",
            "bytes up of a node": f"{curve[-1].up:,.0f}",
        }


def measured(data: Split, nodes: int, rounds: int) -> tuple[list[dict[str, str]], float]:
    """Lines of the table with and without, in turns, and by how much weights differ at the end."""
    both = [Federation(data, nodes, secure) for secure in (False, True)]
    for _ in range(rounds + 1):
        for one in both:
            one.step()
    plain, secure = (one.server.now.state for one in both)
    worst = max(float(np.abs(array - secure[name]).max()) for name, array in plain.items())
    return [one.row() for one in both], worst


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3, help="after the first")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "federated_secure.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data = split(load_dataset(DataSection(k_core=20) if chosen.smoke else DataSection()))
    rows, worst = [], 0.0
    for nodes in [4] if chosen.smoke else chosen.nodes:
        found, difference = measured(data, nodes, 1 if chosen.smoke else chosen.rounds)
        print(*found, sep="\n", flush=True)
        rows, worst = rows + found, max(worst, difference)
    if worst > AGREE:
        raise SystemExit(f"secure sums are not the plain ones: weights differ by {worst:.2g}")
    about = (
        f"FedAvg of SASRec of width {MODEL['dim']} on MovieTweetings ({data.items:,} items), all "
        "nodes and the server in one process on one core; weights with and without differ by at "
        f"most {worst:.0e}. Mean load of the last five minutes {os.getloadavg()[1]:.1f} on "
        f"{os.cpu_count()} cores. Written by `benchmarks/federated_secure.py`."
    )
    if chosen.smoke:
        print(about, *rows, sep="\n")
    else:
        write_table(chosen.out, rows, about)
        print(chosen.out.read_text())


if __name__ == "__main__":
    main()
