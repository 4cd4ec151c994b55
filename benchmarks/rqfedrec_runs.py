"""One federation of ``rqfedrec.py``: its data, its rounds, its figures for every user."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split, split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection
from foretaste.federated.core.base import LocalUsers, World
from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.chosen_items import ChosenItems, drawn_examples
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.local_training import chunks
from foretaste.federated.core.node import Node, NodeUsers
from foretaste.federated.core.randomness import user_keys
from foretaste.federated.core.registry import find_method
from foretaste.federated.core.server import Server
from foretaste.federated.fedmf import FedMF
from foretaste.metrics import query_metrics, target_positions
from foretaste.recommenders.als import ALS
from foretaste.recommenders.core.configuring import build_config

MEASURED = ("ndcg@10", "hr@10")
DIM = 32


class Arm(NamedTuple):
    """A method, its settings, and the field besides the server's rate that is tuned.

    ``alone`` gives every user a node, so that each rounds its own update; else one node has all.
    """

    method: str
    settings: dict[str, Any]
    knob: dict[str, tuple[Any, ...]]
    dim: int | None = None
    alone: bool = False


class Questions(NamedTuple):
    """What a federation learns from and is asked; a row for each user.

    Only the first ``known`` items are there while it learns; the rest come after it.
    """

    catalog: Catalog
    keys: np.ndarray
    train: Sequences
    valid: Sequences
    test_users: np.ndarray
    test_histories: Sequences
    test_targets: Sequences
    known: int


def read_split(name: str, log: Path | None, items: Path | None, folder: Path) -> Split:
    """The data set, split by leave-last-out; ``folder`` takes a file of items read anew."""
    source = str(log) if log else name
    section = DataSection(source=source, k_core=5 if name == "movietweetings" else 0)
    if items is not None:
        section = section.model_copy(update={"items": str(_plain_items(items, folder))})
    return split(load_dataset(section), "leave-last-out")


def _plain_items(path: Path, folder: Path) -> Path:
    """RecBole's file of MovieLens items as one that we read; other files as they are."""
    if path.suffix != ".item":
        return path
    import polars as pl

    frame = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
    frame.columns = ["item_id", "title", "year", "genres"]
    frame = frame.select("item_id", "title", pl.col("genres").str.replace_all(" ", "|"))
    plain = folder / "ml-100k-items.csv"
    plain.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(plain)
    return plain


def questions(data: Split, seed: int, noise: float, cold: float) -> Questions:
    """Histories with ``noise`` of their events random, or with a share ``cold`` of items new.

    New items come last, stand in no history and are no one's negatives; they alone are asked for.
    """
    rng = np.random.default_rng([seed, 17])
    lists = [data.train[row].copy() for row in range(len(data.train))]
    valid: list[list[int]] = [[] for _ in lists]
    for row, user in enumerate(data.valid.users):
        valid[user] = [item for item in data.valid.targets[row].tolist() if item >= 0]
    users, targets = data.test.users, data.test.targets
    asked = np.array([targets[row][0] for row in range(len(users))])
    if noise:
        for user, own in enumerate(lists):
            kept = {*valid[user], *asked[users == user].tolist()}
            drawn = rng.integers(data.items, size=round(noise / (1 - noise) * len(own)))
            lists[user] = np.append(own, [item for item in drawn if item not in kept])
    catalog, known = data.catalog, data.items
    if cold:
        gone = rng.random(data.items) < cold
        old = np.argsort(gone, kind="stable")
        new, known, catalog = np.argsort(old), int((~gone).sum()), catalog.take(old)
        lists = [new[own[~gone[own]]] for own in lists]
        valid = [[int(new[item]) for item in own if not gone[item]] for own in valid]
        chosen = (asked >= 0) & gone[asked]  # -1 is no item of the catalog
        users, asked = users[chosen], new[asked[chosen]]
    histories = Sequences.from_lists([[*lists[user], *valid[user]] for user in users])
    return Questions(
        catalog,
        user_keys(data.users.to_list()),
        Sequences.from_lists([one.tolist() for one in lists]),
        Sequences.from_lists(valid),
        users,
        histories,
        Sequences.from_lists([[item] for item in asked]),
        known,
    )


def of_known_items(method_class: type[FedMF], known: int) -> type[FedMF]:
    """The method with negatives of the first ``known`` items alone."""

    class OfKnownItems(method_class):
        """Draws no item that is not there yet."""

        def examples(self, users: LocalUsers) -> ChosenItems:
            """What users chose, and known items drawn anew in every round."""
            negatives = self.config.local.negatives
            return drawn_examples(users.histories, users.draws, negatives, known)

    return OfKnownItems


def federate(arm: Arm, settings: dict[str, Any], asked: Questions, seed: int) -> dict[str, Any]:
    """One federation; figures of the round that is best on validation."""
    method_class = find_method(arm.method)
    if asked.known < len(asked.catalog):
        method_class = of_known_items(method_class, asked.known)
    values = {"evaluate_every": 9, "client_evaluation": True, **settings}
    config = build_config(method_class.Config, values, place=arm.method)
    method = method_class(config, World(asked.catalog, ALS(factors=arm.dim or DIM), seed))
    everybody = np.arange(len(asked.keys))
    nodes = [
        Node(method, users_of(asked, rows), f"node {rows[0]}")
        for rows in (everybody[:, None] if arm.alone else everybody[None])
    ]
    server = Server(method, LocalFleet(nodes), clients=len(everybody))
    begin, best, heads = time.process_time(), -1.0, kept(nodes, 1)
    while server.now.next_round <= config.rounds:
        server.step()
        if server.now.best_value is not None and server.now.best_value > best:
            best, heads = server.now.best_value, kept(nodes, server.now.next_round)
    curve = server.now.curve
    figures = answers(method, server.now.best, heads, asked, server.now.best_round or 0)
    return {
        "settings": settings,
        "valid": best,
        "round": server.now.best_round,
        "curve": [one.on_clients.get("ndcg@10") for one in curve if one.on_clients],
        "down": float(np.mean([one.down for one in curve])),
        "up": float(np.mean([one.up for one in curve])),
        "seconds": time.process_time() - begin,
        "figures": {name: values.tolist() for name, values in figures.items()},
    }


def users_of(asked: Questions, rows: np.ndarray) -> NodeUsers:
    """Those who train, as one node holds them."""
    return NodeUsers(asked.keys[rows], asked.train.take(rows), asked.valid.take(rows))


def kept(nodes: list[Node], round: int) -> tuple[Arrays, np.ndarray]:
    """What users of all nodes keep before a round, and who keeps something."""
    arrays, known = zip(*[node.store.before(round) for node in nodes], strict=True)
    parts = {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
    return parts, np.concatenate(known)


def answers(
    method: Any, state: Arrays, heads: tuple[Arrays, np.ndarray], asked: Questions, round: int
) -> dict[str, np.ndarray]:
    """Each user's figures, over the whole catalog and against 99 items drawn at random."""
    received = method.to_send(state, round)
    own, known = heads
    own = {name: array.copy() for name, array in own.items()}
    fresh = np.flatnonzero(~known)
    for name, array in method.first_personal(asked.keys[fresh]).items():
        own[name][fresh] = array

    def scores(histories: Sequences, users: np.ndarray) -> torch.Tensor:
        keys = asked.keys[users]
        personal = {name: array[users] for name, array in own.items()}
        return method.scores(received, LocalUsers(keys, keys, histories, personal))

    costs = method.cost(asked.test_histories.lengths) + len(asked.catalog)
    return measured(asked, list(chunks(costs, method.config.memory)), scores)


def popular(asked: Questions) -> dict[str, np.ndarray]:
    """Each user's figures when everybody is given what was chosen most: what learning must beat."""
    counts = torch.from_numpy(np.bincount(asked.train.items, minlength=len(asked.catalog))).float()
    groups = np.array_split(np.arange(len(asked.test_users)), len(asked.test_users) // 64 + 1)
    return measured(asked, groups, lambda histories, _: counts.repeat(len(histories), 1))


def measured(
    asked: Questions,
    groups: list[np.ndarray],
    scores_of: Callable[[Sequences, np.ndarray], torch.Tensor],
) -> dict[str, np.ndarray]:
    """Each user's figures from the scores ``[C, items]`` of histories and users."""
    figures: dict[str, list[np.ndarray]] = {}
    for rows in groups:
        histories, users = asked.test_histories.take(rows), asked.test_users[rows]
        targets, keys = asked.test_targets.take(rows), asked.keys[users]
        scores = scores_of(histories, users)
        scores[
            torch.from_numpy(histories.rows), torch.from_numpy(histories.items).long()
        ] = -torch.inf
        positions = target_positions(scores, targets.rows, targets.items)
        found = query_metrics(positions, targets.rows, len(rows), MEASURED)
        found |= {f"{name} of 100": one for name, one in _of_100(scores, targets, keys).items()}
        if asked.known < len(asked.catalog):
            scores[:, : asked.known] = -torch.inf
            positions = target_positions(scores, targets.rows, targets.items)
            new = query_metrics(positions, targets.rows, len(rows), MEASURED)
            found |= {f"{name} of new": one for name, one in new.items()}
        for name, values in found.items():
            figures.setdefault(name, []).append(values)
    back = np.argsort(np.concatenate(groups))
    return {name: np.concatenate(parts)[back] for name, parts in figures.items()}


def _of_100(scores: torch.Tensor, targets: Sequences, keys: np.ndarray) -> dict[str, np.ndarray]:
    """The protocol of NCF: the target among 99 items that the user did not choose."""
    few = torch.full((len(keys), 100), -torch.inf)
    for row, key in enumerate(keys):
        target = int(targets[row][0])
        allowed = torch.isfinite(scores[row]).numpy().copy()
        if target >= 0:
            allowed[target] = False
            few[row, 0] = scores[row, target]
        drawn = np.random.default_rng(int(key)).choice(np.flatnonzero(allowed), 99, replace=False)
        few[row, 1:] = scores[row, torch.from_numpy(drawn)]
    rows = np.arange(len(keys))
    positions = target_positions(few, rows, np.where(targets.items >= 0, 0, -1))
    return query_metrics(positions, rows, len(keys), MEASURED)
