"""Whose data a node holds: users of a split dealt to nodes, or the log of one device."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foretaste.data.catalog import Catalog
from foretaste.data.dataset import Dataset
from foretaste.data.reading import read_interactions
from foretaste.data.sequences import Sequences, offsets_of
from foretaste.data.split import Queries, Split
from foretaste.errors import EmptyLogError, InputError
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.base import FederatedMethod
from foretaste.federated.core.node import Node, NodeUsers
from foretaste.federated.core.randomness import user_keys


def clients_of(split: Split) -> int:
    """Users who can train: they have two events or more."""
    return int((split.train.lengths > 1).sum())


def dealt(split: Split, node: int, nodes: int) -> NodeUsers:
    """The users of one of ``nodes`` nodes: those who can train, dealt in turn.

    With ``nodes`` 0, every user is a node.
    """
    able = np.flatnonzero(split.train.lengths > 1)
    rows = able[node :: nodes or len(able)]
    keys = user_keys(split.users[rows])
    return NodeUsers(keys, split.train.take(rows), _targets(split.valid, rows, len(split.users)))


def node_count(split: Split, nodes: int) -> int:
    """How many nodes ``nodes`` of the configuration comes to; never more than there are users."""
    able = clients_of(split)
    return min(nodes or able, able)


def dealt_node(
    method: FederatedMethod, split: Split, node: int, nodes: int, folder: Path | None
) -> Node:
    """The node ``node`` of ``nodes``; its files lie in a folder of its own."""
    place = None if folder is None else folder / f"node-{node:05d}"
    return Node(method, dealt(split, node, nodes), f"node {node:05d}", place)


def read_users(log: str | Path, catalog: Catalog, section: DataSection) -> NodeUsers:
    """The users of a log that lies on a device.

    It is read as the recipe's own data (columns, format, ``min_rating``, ``duplicates``), but for
    ``k_core`` and titles, which are of the whole log. Events with items outside the catalog are
    left out and counted; a user may be left with one event or none, and then never trains. So it
    is with a log of one event or none.

    Raises:
        InputError: when the log cannot be read so.
    """
    options = section.model_dump(exclude={"source", "items", "k_core"})
    try:
        data = Dataset.from_interactions(read_interactions(log, **options))
    except EmptyLogError:
        return NodeUsers(user_keys([]), Sequences.from_lists([]))
    except InputError as error:
        raise InputError(
            f"{error} A device's log is read as [data] of the plan's recipe.toml says: write it "
            "with the columns and in the format named there."
        ) from error
    numbers = catalog.numbers(data.catalog.item_ids).astype(np.int32)
    inside = data.sequences.renumbered(numbers)
    known = inside.where(inside.items >= 0)
    times = known.times if data.has_time else None
    known = Sequences(known.items, known.offsets, times)
    return NodeUsers(user_keys(data.users), known, unknown=data.sequences.events - known.events)


def _targets(queries: Queries, rows: np.ndarray, users: int) -> Sequences:
    """What users are asked for in validation, a row for each, maybe empty."""
    place = np.full(users, -1)
    place[queries.users] = np.arange(len(queries))
    asked = place[rows]
    lengths = np.where(asked >= 0, queries.targets.lengths[asked], 0) if len(queries) else asked * 0
    found = queries.targets.take(asked[asked >= 0])
    return Sequences(found.items, offsets_of(lengths))
