"""A small federation whose right answers are known: users walk through a ring of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.federated.core.base import FederatedMethod, World
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.node import Node, NodeUsers
from foretaste.federated.core.randomness import user_keys
from foretaste.federated.core.registry import find_method
from foretaste.federated.core.server import Server
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.configuring import build_config
from foretaste.recommenders.sasrec import SASRec

ITEMS = 24


def catalog(items: int = ITEMS) -> Catalog:
    return Catalog.from_items(pl.Series([f"i{number:03d}" for number in range(items)]), None)


def small_sasrec(**parameters: Any) -> Recommender:
    return SASRec(**{"dim": 8, "max_length": 6, "window": 4, "dropout": 0.3, **parameters})


def ring(users: int, *, items: int = ITEMS, longest: int = 15, seed: int = 0) -> Sequences:
    """Walks of 2 to ``longest`` steps; the next item is the next of the ring."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        first, length = int(rng.integers(items)), int(rng.integers(2, longest + 1))
        rows.append((first + np.arange(length)) % items)
    return Sequences.from_lists(rows)


def keys_of(users: int) -> np.ndarray:
    return user_keys(f"u{number}" for number in range(users))


def method_of(
    name: str = "fedavg", *, model: Recommender | None = None, items: int = ITEMS, **config: Any
) -> FederatedMethod:
    """A method on the ring; ``config`` are fields of its configuration."""
    found = find_method(name)
    world = World(catalog(items), model or small_sasrec(), seed=3)
    return found(build_config(found.Config, config, place="test"), world)


def nodes_of(
    method: FederatedMethod, histories: Sequences, nodes: int, folder: Path | None = None
) -> list[Node]:
    """Users dealt to nodes in turn; as many nodes as users makes nodes of one."""
    keys = keys_of(len(histories))
    dealt = [np.arange(number, len(histories), nodes) for number in range(nodes)]
    return [
        Node(
            method,
            NodeUsers(keys[rows], histories.take(rows)),
            f"node {number:03d}",
            None if folder is None else folder / f"node-{number}",
            secret=number,
        )
        for number, rows in enumerate(dealt)
    ]


def server_of(
    method: FederatedMethod,
    histories: Sequences,
    nodes: int = 2,
    folder: Path | None = None,
    **options: Any,
) -> Server:
    fleet = LocalFleet(nodes_of(method, histories, nodes, folder))
    return Server(method, fleet, clients=len(histories), folder=folder, **options)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float) -> None:
    """Equal to an absolute tolerance.

    The bias of attention keys has no gradient but rounding (a softmax does not feel it), which
    Adam makes whole steps of; so a tolerance has to be seen against the learning rate.
    """
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)
