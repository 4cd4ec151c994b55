"""Clients a second: thousands of users of a node together, against one process per client.

    .venv/bin/python benchmarks/federated_speed.py            # some minutes
    .venv/bin/python benchmarks/federated_speed.py --smoke    # small, to see that it runs

The same work, three ways in one run: SASRec, every client trains one or five Adam steps on its own
history, over a softmax of its items and 256 drawn ones. *Flower, a client at a time* is Flower's
simulation as people use it: every client is a node, the engine hands it to a worker process, and it
trains in plain PyTorch. *Foretaste, in this process* holds all clients on two nodes. *Foretaste, in
Flower's simulation* is ``foretaste federate`` as it comes: two nodes, each in a worker of Flower. A
round is timed from the first order to the new state; the first, which starts workers and reads
the data, is left out. On a shared machine seconds on the wall say little, so processor seconds are
told beside them, of this process and all that it started. Both ways are asked for the update of the
same users beforehand; they must agree.
"""

import argparse
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import psutil
import torch
from peers.driving import write_table
from peers.plain_client import LOCAL, MODEL, PlainClient

from foretaste.data.split import Split, split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.base import LocalUsers, World
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.node import Node
from foretaste.federated.core.randomness import hashed, user_keys
from foretaste.federated.core.server import Server
from foretaste.federated.fedavg import FedAvg, FedAvgConfig
from foretaste.federated.gathering import clients_of, dealt
from foretaste.federated.plan import Plan
from foretaste.federated.running import federate
from foretaste.recommenders.sasrec import SASRec

HERE = Path(__file__).parent
AGREE = 2e-4
"""Largest difference of an update's values; five steps of 1e-3 change them by up to 5e-3."""


# --- Both ways must agree -------------------------------------------------------------------------


def check_agreement(data: Split, clients: int = 20) -> float:
    """The largest difference between updates of both ways, without dropout."""
    plain, method = PlainClient(data, dropout=0.0), method_of(data, 5, dropout=0.0)
    start = method.start()
    rows = plain.users[:clients]
    keys = user_keys(data.users[rows])
    users = LocalUsers(keys, hashed(keys, 0, 1), data.train.take(rows), {})
    found = method.train(start, users, 1, each=True).updates.whole()
    worst = 0.0
    for client in range(clients):
        for name, after in plain.train(start, client, 5).items():
            change = found.parts[name][client].numpy()  # type: ignore[index]
            worst = max(worst, float(np.abs(after - start[name] - change).max()))
    if worst > AGREE:
        raise SystemExit(f"the ways do not agree: updates differ by {worst:.2g}")
    return worst


# --- The three ways ------------------------------------------------------------------------------


class Measured(NamedTuple):
    """One round: its clients, seconds on the wall and of all processors."""

    clients: int
    wall: float
    processor: float


def processor_seconds() -> float:
    """Of this process and all that it started and that still run."""
    total = 0.0
    for one in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def a_client_at_a_time(data: Split, epochs: int, clients: int, workers: int) -> Measured:
    """The second round of Flower's simulation in which every client is a node."""
    from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    client_app, server_app = ClientApp(), ServerApp()
    rounds: list[Measured] = []
    start = method_of(data, epochs).start()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        from peers.plain_client import plain_client  # in the worker, which keeps its data

        plain = plain_client()
        weights = {name: one.numpy() for name, one in message.content["arrays"].items()}
        after = plain.train(weights, int(context.node_config["partition-id"]), epochs)
        record = ArrayRecord({name: Array(one) for name, one in after.items()})
        return Message(RecordDict({"arrays": record}), reply_to=message)

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        state = start
        while len(nodes := list(grid.get_node_ids())) < clients:
            time.sleep(0.2)
        for _ in range(2):
            begin, spent = time.perf_counter(), processor_seconds()
            record = ArrayRecord({name: Array(one) for name, one in state.items()})
            orders = [
                Message(RecordDict({"arrays": record}), dst_node_id=node, message_type="train")
                for node in nodes
            ]
            replies = [one.content["arrays"] for one in grid.send_and_receive(orders)]
            if len(replies) != clients:
                raise RuntimeError(f"{len(replies)} of {clients} clients answered")
            state = {name: np.mean([one[name].numpy() for one in replies], 0) for name in start}
            wall = time.perf_counter() - begin
            rounds.append(Measured(clients, wall, processor_seconds() - spent))

    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": workers, "log_to_driver": False},
        },
    )
    return rounds[-1]


def in_this_process(data: Split, epochs: int, share: float) -> Measured:
    """A round over two nodes in this process."""
    method = method_of(data, epochs, clients=share)
    nodes = [Node(method, dealt(data, part, 2), f"node {part}") for part in range(2)]
    server = Server(method, LocalFleet(nodes), clients=clients_of(data))
    server.step()
    spent = processor_seconds()
    done = server.step()
    return Measured(done.users, done.seconds, processor_seconds() - spent)


def in_flower(epochs: int, share: float, folder: Path) -> Measured:
    """The same of ``foretaste federate``: two nodes in Flower's simulation."""
    spent: list[float] = []
    step = Server.step

    def counted(self: Server) -> Any:
        before = processor_seconds()
        done = step(self)
        spent.append(processor_seconds() - before)
        return done

    plan = Plan.build(
        {
            "model": {"name": "sasrec", **MODEL},
            "federated": {
                "rounds": 2,
                "clients": share,
                "evaluate_every": 1_000,
                "local": {**LOCAL, "epochs": epochs},
            },
        }
    )
    Server.step = counted  # type: ignore[method-assign]
    try:
        last = federate(plan, folder).record["federation"]["rounds"][-1]
    finally:
        Server.step = step  # type: ignore[method-assign]
    return Measured(last["users"], last["seconds"], spent[-1])


def method_of(data: Split, epochs: int, dropout: float = 0.2, **config: Any) -> FedAvg:
    """FedAvg on the data."""
    found = FedAvgConfig(local={**LOCAL, "epochs": epochs}, **config)  # type: ignore[arg-type]
    return FedAvg(found, World(data.catalog, SASRec(**MODEL, dropout=dropout)))


def row(epochs: int, name: str, one: Measured, peer: Measured) -> dict[str, str]:
    """A line of the table."""
    wall, processor = one.clients / one.wall, one.clients / one.processor
    return {
        "local steps": str(epochs),
        "way": name,
        "clients in the round": f"{one.clients:,}",
        "clients a second": f"{wall:,.1f}",
        "times faster": f"{wall / (peer.clients / peer.wall):.0f}",
        "clients a processor second": f"{processor:,.1f}",
        "times less processor": f"{processor / (peer.clients / peer.processor):.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=4_000, help="of a round of ours")
    parser.add_argument("--peer-clients", type=int, default=100, help="of a round of the peer")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 5], help="local steps")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the peer")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "federated_speed.md")
    chosen = parser.parse_args()
    clients, peer_clients = chosen.clients, chosen.peer_clients
    if chosen.smoke:
        clients, peer_clients = 200, 6
    torch.set_num_threads(1)
    data = split(load_dataset(DataSection()))
    difference = check_agreement(data)
    print(f"updates of both ways differ by at most {difference:.1e}")
    share = min(1.0, clients / clients_of(data))
    rows = []
    for epochs in chosen.epochs:
        with tempfile.TemporaryDirectory() as folder:
            own = in_this_process(data, epochs, share)
            print(own, flush=True)
            peer = a_client_at_a_time(data, epochs, peer_clients, chosen.workers)
            print(peer, flush=True)
            flower = in_flower(epochs, share, Path(folder) / "run")
            print(flower, flush=True)
        ways = {
            "Flower, a client at a time": peer,
            "Foretaste, in this process (one core)": own,
            "Foretaste, in Flower's simulation": flower,
        }
        rows += [row(epochs, name, one, peer) for name, one in ways.items()]
    about = (
        f"SASRec of width 32 on MovieTweetings ({data.items:,} items), the second round of each; "
        f"updates of both ways differ by at most {difference:.0e}. "
        f"{chosen.workers} workers on {os.cpu_count()} cores, mean load of the last five minutes "
        f"{os.getloadavg()[1]:.1f}. Written by `benchmarks/federated_speed.py`."
    )
    if chosen.smoke:
        print(about, *rows, sep="\n")
    else:
        write_table(chosen.out, rows, about)
        print(chosen.out.read_text())


if __name__ == "__main__":
    main()
