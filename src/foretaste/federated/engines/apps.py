"""The two halves of the Flower app: what runs at the server, what runs at a node.

The same halves run in a simulation and in a deployment. Where the run folder lies is ``plan`` of
the run's configuration at the server, and of the node's configuration at a node; a node that has
none (as in a simulation) reads the server's.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import split_dataset
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.boundary import Refused
from foretaste.federated.core.messages import Kind, Order
from foretaste.federated.core.node import Node
from foretaste.federated.engines.flower import FlowerFleet, from_records, problem, to_records
from foretaste.federated.engines.node_log import node_log
from foretaste.federated.gathering import dealt_node, node_count, read_users
from foretaste.federated.plan import Plan
from foretaste.federated.running import NODES, server_of
from foretaste.progress import Progress

LOGGER = logging.getLogger(__name__)
WITHHELD = "a node could not answer; why is told on the device alone."

if TYPE_CHECKING:
    from flwr.app import Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

    from foretaste.data.split import Split


def make_server_app(folder: Path | None = None, progress: Progress | None = None) -> ServerApp:
    """The server of the federation of a run folder; by default that of ``plan`` in the run's
    configuration. What it comes to lies in the folder's checkpoint.
    """
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        place = folder or Path(str(context.run_config["plan"]))
        run = RunFolder.open(place)
        plan, split = prepared(str(place))
        expected = node_count(split, plan.config.nodes)
        fleet = FlowerFleet(grid, expected, plan.config.wait)
        try:
            server_of(plan, split, run, fleet, progress).run()
        except InputError as error:
            run.log("stopped", problem=str(error))
            raise

    return app


def make_client_app(folder: Path | None = None) -> ClientApp:
    """What a node does with an order; see ``node_of`` for how it finds its users."""
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, "train", folder)

    @app.train("keys")
    def train_keys(message: Message, context: Context) -> Message:
        return answer(message, context, "train.keys", folder)

    @app.train("shares")
    def train_shares(message: Message, context: Context) -> Message:
        return answer(message, context, "train.shares", folder)

    @app.train("unmask")
    def train_unmask(message: Message, context: Context) -> Message:
        return answer(message, context, "train.unmask", folder)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return answer(message, context, "evaluate", folder)

    return app


def answer(message: Message, context: Context, kind: Kind, folder: Path | None) -> Message:
    """``answered`` as a message."""
    from flwr.app import Message

    return Message(answered(message.content, context, kind, folder), reply_to=message)


def answered(records: RecordDict, context: Context, kind: Kind, folder: Path | None) -> RecordDict:
    """The reply of a node, or one line that says why there is none.

    What goes wrong with a message may be told. Any other error, one of ours too, may quote the log
    or its titles: it is told here, in the node's log, and the server learns that there was one.
    """
    with node_log(_home(context, folder)):
        try:
            order = from_records(records, kind, f"node {context.node_id}")
            if not isinstance(order, Order):
                raise Refused(f"node {context.node_id}: this is a reply, not an order.")
            return to_records(node_of(context, folder).answer(order))
        except Refused as error:
            return problem(str(error))
        except Exception as error:  # Flower would send its text
            LOGGER.warning("%s", error, exc_info=not isinstance(error, InputError))
            return problem(WITHHELD)


def node_of(context: Context, folder: Path | None) -> Node:
    """The node of a Flower context.

    Its configuration has ``log``, a file of the users of this device, or ``partition-id``, the
    number of its part of the recipe's data. ``plan`` is a folder with ``recipe.toml``,
    ``federation.toml`` and ``catalog.parquet``; ``state`` a folder for what stays here.

    Raises:
        InputError: when it has neither, or files are missing.
    """
    config, place = context.node_config, _place(context, folder)
    if not place:
        raise InputError(
            'a node needs a plan: --node-config \'plan="RUN" log="my.csv"\', where RUN holds '
            "recipe.toml, federation.toml and catalog.parquet."
        )
    if "log" in config:
        return _own_node(place, str(config["log"]), _home(context, folder))
    if "partition-id" not in config:
        raise InputError(
            "a node needs users: --node-config 'log=\"my.csv\"', or partition-id=0 and on for "
            "parts of the recipe's own data."
        )
    return _dealt_node(place, int(config["partition-id"]))


def _place(context: Context, folder: Path | None) -> str:
    return str(context.node_config.get("plan") or folder or context.run_config.get("plan", ""))


def _home(context: Context, folder: Path | None) -> Path | None:
    """Where a node keeps what stays with it; None where a device names no ``state``."""
    config, place = context.node_config, _place(context, folder)
    if "log" in config:
        return Path(str(config["state"])) if config.get("state") else None
    return Path(place) / NODES if place else None


@lru_cache(maxsize=4)
def prepared(place: str) -> tuple[Plan, Split]:
    """A plan and its data, read once in a process."""
    plan = Plan.open(Path(place))
    return plan, split_dataset(load_dataset(plan.recipe.data), plan.recipe.split)


@lru_cache(maxsize=4096)
def _dealt_node(place: str, number: int) -> Node:
    plan, split = prepared(place)
    nodes, home = node_count(split, plan.config.nodes), Path(place) / NODES
    return dealt_node(_method(place, home), split, number, nodes, home)


@lru_cache(maxsize=4)
def _own_node(place: str, log: str, state: Path | None) -> Node:
    method = _method(place, state)
    kept = bool(method.personal()) or any(one.kept for one in method.down())
    config = method.config
    if state is None and (kept or config.privacy.noise or config.secure.on):
        raise InputError(
            f"{method.name} keeps files on the device: --node-config '... state=\"FOLDER\"'."
        )
    users = read_users(log, method.world.catalog, Plan.open(Path(place)).recipe.data)
    able = int((users.histories.lengths > 1).sum())
    LOGGER.log(
        logging.INFO if able else logging.WARNING,
        "this device: %(able)d of %(users)d users can train, with two events or more; "
        "%(unknown)d events are of items that the catalog does not know, and were left out.",
        {"able": able, "users": len(users), "unknown": users.unknown},
    )
    return Node(method, users, "this device", state)


@lru_cache(maxsize=4)
def _method(place: str, home: Path | None) -> FederatedMethod:
    plan = Path(place)
    return Plan.open(plan).method(Catalog.load(plan / "catalog.parquet"), home)
