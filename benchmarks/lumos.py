"""LUMOS against its controls on MovieTweetings and amazon18-office: does meaning help?

    .venv/bin/python benchmarks/lumos.py --data movietweetings --seeds 0 1 2
    .venv/bin/python benchmarks/lumos.py --data office --office FOLDER --attack none flip

Leave-last-out, k-core 5, full ranking, seen items left out; SASRec (or ``--model gru4rec``) of 32
numbers, two blocks, one client a user, a tenth of them a round. In 60 rounds no setting that was
tried comes far beyond popularity, so there are 200. Validation chooses the round. Per-user figures
of an arm and seed are a file in ``--runs``, where a stopped run goes on; the table is written from
all that are there, and its other rows stay. Intervals are over users, of each one's mean over the
seeds; p-values: paired sign flips against ``fedavg``, Holm-corrected within data and condition.

``--noise`` puts so many random items (a share of the history) at random places of every training
history; questions stay as they are. ``--attack`` makes a tenth of clients hostile. Arms of tables
of views (``lumos_views.py``) know clean histories only, and are left out where noise is put in.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from kept import pack, unpack, with_interval
from lumos_alone import scores_of_own
from lumos_views import Source, noisy, read, table_for, trained
from peers.driving import read_table, write_table

from foretaste.data.sequences import Sequences
from foretaste.data.split import Queries
from foretaste.federated.core.base import FederatedMethod, LocalUsers, World
from foretaste.federated.core.fleet import LocalFleet
from foretaste.federated.core.local_training import chunks
from foretaste.federated.core.node import Node, NodeUsers
from foretaste.federated.core.randomness import hashed, user_keys
from foretaste.federated.core.registry import find_method
from foretaste.federated.core.server import Server
from foretaste.federated.fedavg import FedAvg
from foretaste.metrics import (
    bootstrap_mean,
    holm,
    paired_difference,
    query_metrics,
    target_positions,
)
from foretaste.recommenders.core.base import Recommender, RunContext
from foretaste.recommenders.core.configuring import build_config
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.registry import find
from foretaste.recommenders.core.sequence import SequenceRecommender

METRICS = ("hr@20", "ndcg@20")
ATTACKS = ("none", "noise", "flip", "scale", "promote")
MODELS: dict[str, dict[str, Any]] = {
    "sasrec": {"dim": 32, "layers": 2, "heads": 2, "max_length": 50, "window": 50},
    "gru4rec": {"dim": 32, "hidden": 64, "max_length": 50},
}
LOCAL = {"optimizer": "sgd", "learning_rate": 1.0, "epochs": 1, "clip": 0.0, "windows": 2}
"""One step of gradient descent a round, so that nothing but the loss differs between arms."""
SERVER = {"optimizer": "adam", "learning_rate": 0.01, "momentum": 0.9, "epsilon": 1e-7}
"""The mean over 430 clients of rows that few of them touch is tiny: FedAdam makes steps of it."""
ROUNDS, CONTRAST = 200, 0.1
"""The usual rounds, and weight of the contrast as in the note on the paper."""
ALONE = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 30, "windows": 2}
"""Of a user who trains by itself."""


class Arm(NamedTuple):
    """One way to train.

    Attributes:
        method: of the federation; ``local`` and ``centralised`` are none.
        settings: of the method.
        table: the maker whose table is read, or None.
    """

    method: str
    settings: Mapping[str, Any] = MappingProxyType({})
    table: str | None = None


def _views(kind: str, **settings: Any) -> dict[str, Any]:
    return {"views": {"kind": kind}, **settings}


NO_THIRD = {"uses": ["future", "rephrasing"]}
ARMS: dict[str, Arm] = {
    "local": Arm("local"),
    "fedavg": Arm("fedavg"),
    "random": Arm("lumos", _views("random")),
    "random, kept": Arm("lumos", _views("table"), "random"),
    "augment": Arm("lumos", _views("augment")),
    "received": Arm("lumos", _views("received")),
    "titles": Arm("lumos", _views("titles")),
    "titles, no counterfactual": Arm("lumos", _views("titles", **NO_THIRD)),
    "titles, shuffled": Arm("lumos", _views("table", shuffled=True), "titles"),
    "titles, separate": Arm("lumos", _views("titles", denominators="separate")),
    "titles, trained rows": Arm("lumos", _views("titles", view_items="trained")),
    "judged": Arm("lumos", _views("table"), "judged"),
    "judged, no counterfactual": Arm("lumos", _views("table", **NO_THIRD), "judged"),
    "judged, shuffled": Arm("lumos", _views("table", shuffled=True), "judged"),
    "chat": Arm("lumos", _views("table"), "chat"),
    "oracle": Arm("lumos", _views("table"), "oracle"),
    "oracle, shuffled": Arm("lumos", _views("table", shuffled=True), "oracle"),
    "centralised": Arm("centralised"),
}


class Setting(NamedTuple):
    """What all arms of one table have in common."""

    source: Source
    folder: Path
    model: str
    rounds: int
    contrast: float
    noise: float
    attack: str

    @property
    def condition(self) -> str:
        """For file names."""
        told = [self.model]
        told += [f"noise {self.noise:.0%}"] if self.noise else []
        told += [f"attack {self.attack}"] if self.attack != "none" else []
        return ", ".join(told)

    @property
    def row(self) -> str:
        """For the table, where rounds and the weight of the contrast are told if not the usual."""
        weight = "" if self.contrast == CONTRAST else f", contrast {self.contrast:g}"
        rounds = "" if self.rounds == ROUNDS else f", {self.rounds} rounds"
        return self.condition + weight + rounds


def users_of(setting: Setting, seed: int) -> NodeUsers:
    """All who train, as one node holds them."""
    split = setting.source.split
    keys = user_keys(split.users[np.flatnonzero(split.train.lengths > 1)])
    plain = trained(split)
    histories = Sequences(plain.items, plain.offsets)
    if setting.noise:
        histories = noisy(histories, setting.noise, split.items, seed)
    return NodeUsers(keys, histories)


def model_of(setting: Setting) -> Recommender:
    """Not fitted."""
    return find(setting.model)(**MODELS[setting.model])


def method_of(setting: Setting, arm: Arm, seed: int, **more: Any) -> FederatedMethod:
    """The method of an arm."""
    found = find_method(arm.method)
    values: dict[str, Any] = {
        "rounds": setting.rounds,
        "clients": 0.1,
        "metric": "ndcg@20",
        "local": LOCAL,
        "server": SERVER,
        **arm.settings,
        **more,
    }
    if setting.attack != "none":
        scale = {"noise": 10.0, "scale": 10.0, "flip": 3.0}.get(setting.attack, 1.0)
        values["attack"] = {"kind": setting.attack, "share": 0.1, "scale": scale}
    if arm.method == "lumos":
        values["contrast"] = setting.contrast
        views = dict(values["views"])
        if arm.table:
            views["path"] = str(table_for(arm.table, setting.source, setting.folder))
            views["shuffled"] = values.pop("shuffled", False)
        values["views"] = views
    world = World(setting.source.split.catalog, model_of(setting), seed)
    return found(build_config(found.Config, values, place=arm.method), world)


def figures(recommender: Recommender, queries: Queries) -> dict[str, np.ndarray]:
    """Per-user figures."""
    return rank_queries(recommender, queries, METRICS).metrics


def federated(setting: Setting, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
    """Train by rounds, going on from where a stopped run was; measure the best round on test."""
    split = setting.source.split
    method = method_of(setting, arm, seed)
    users = users_of(setting, seed)

    def evaluate(recommender: Recommender) -> dict[str, float]:
        return {"valid": float(figures(recommender, split.valid)["ndcg@20"].mean())}

    server = Server(
        method,
        LocalFleet([Node(method, users)]),
        clients=len(users),
        folder=folder,
        evaluate=evaluate,
        log=_told,
    )
    done = server.run()
    recommender = method.recommender(done.best)
    found = figures(recommender, split.test)
    promoted = Sequences.from_lists([[method.config.attack.item]] * len(split.test))
    listed = figures(recommender, replace(split.test, targets=promoted))["hr@20"].mean()
    facts = {"up": done.curve[-1].up, "down": done.curve[-1].down, "best": done.best_round or 0}
    return {**found, **facts, "valid": done.best_value or 0.0, "listed": listed}


def alone(setting: Setting, seed: int) -> dict[str, Any]:
    """Every user trains by itself, from the first weights."""
    split = setting.source.split
    method = method_of(setting, Arm("fedavg"), seed, local=ALONE)
    assert isinstance(method, FedAvg)
    users, state = users_of(setting, seed), method.start()
    able = np.flatnonzero(split.train.lengths > 1)
    place = np.full(len(split.users), -1)
    place[able] = np.arange(len(able))
    asked = split.test
    rows = place[asked.users]
    chosen = np.flatnonzero(rows >= 0)
    found = {name: np.zeros(len(asked)) for name in METRICS}
    draws = hashed(users.keys, seed, 1)
    costs = method.cost(users.histories.lengths[rows[chosen]]) + method.items * 32
    for group in chunks(costs, 512):
        queries = chosen[group]
        of = rows[queries]
        local = LocalUsers(users.keys[of], draws[of], users.histories.take(of), {})
        trained_here = method.train(state, local, 1, each=True).updates.whole()
        scores = scores_of_own(method, state, trained_here.parts, asked.histories.take(queries))
        targets = asked.targets.take(queries)
        positions = target_positions(scores, targets.rows, targets.items)
        for name, values in query_metrics(positions, targets.rows, len(queries), METRICS).items():
            found[name][queries] = values
    return {**found, "up": 0.0, "down": 0.0, "best": ALONE["epochs"], "valid": 0.0}


def centralised(setting: Setting, seed: int) -> dict[str, Any]:
    """All histories in one place: the ceiling."""
    split = setting.source.split
    kept = split.train
    if setting.noise:
        kept = noisy(Sequences(kept.items, kept.offsets), setting.noise, split.items, seed)
        places = np.arange(kept.events) - np.repeat(kept.offsets[:-1], kept.lengths)
        kept = Sequences(kept.items, kept.offsets, places.astype(np.int64))
    train = {"metric": "ndcg@20", "patience": 8, "epochs": 100}
    recommender = find(setting.model)(**MODELS[setting.model], train=train)
    assert isinstance(recommender, SequenceRecommender)
    report = recommender.fit(replace(split, train=kept), RunContext(seed=seed))
    found = figures(recommender, split.test)
    return {**found, "up": 0.0, "down": 0.0, "best": report.best_epoch or 0, "valid": 0.0}


def _told(event: str, **facts: Any) -> None:
    if event == "round" and facts["figures"]:
        seconds, valid = facts["seconds"], facts["figures"]["valid"]
        print(f"  round {facts['round']}: {valid:.4f} ({seconds:.1f} s)", flush=True)


def trained_by(setting: Setting, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
    """Per-user figures and facts of an arm."""
    if arm.method == "local":
        return alone(setting, seed)
    if arm.method == "centralised":
        return centralised(setting, seed)
    return federated(setting, arm, seed, folder)


def measure(setting: Setting, names: list[str], seeds: list[int]) -> None:
    """Train and measure what is not there yet."""
    for seed in seeds:
        for name in names:
            arm = ARMS[name]
            place = file_of(setting, name, seed)
            if place.exists() or (arm.table and setting.noise):
                continue
            if arm.table and not table_for(arm.table, setting.source, setting.folder).exists():
                print(f"{name}: no table of views ({arm.table}); see lumos_views.py", flush=True)
                continue
            begin = time.perf_counter()
            run = place.with_suffix("")
            found = trained_by(setting, arm, seed, run)
            found["seconds"] = time.perf_counter() - begin
            place.parent.mkdir(parents=True, exist_ok=True)
            np.savez(place, **{key: np.asarray(value) for key, value in found.items()})
            for left in run.glob("*"):  # the checkpoint
                left.unlink()
            means = {metric: round(float(found[metric].mean()), 4) for metric in METRICS}
            print(setting.source.name, setting.row, name, seed, json.dumps(means), flush=True)


def file_of(setting: Setting, name: str, seed: int) -> Path:
    """Where an arm's figures of a seed are; only views have a contrast."""
    contrast = setting.contrast if ARMS[name].method == "lumos" else CONTRAST
    stem = f"{setting.condition}-{setting.rounds} rounds-{contrast}-{name}-{seed}"
    return setting.folder / f"{stem.replace(', ', ' ').replace(' ', '_')}.npz"


def rows_of(setting: Setting) -> list[dict[str, Any]]:
    """The arms of a setting that were measured, each against FedAvg and against random views."""
    paths = {
        name: [path for seed in range(100) if (path := file_of(setting, name, seed)).exists()]
        for name in ARMS
    }
    known = {name: [np.load(path) for path in some] for name, some in paths.items() if some}
    means = {
        (name, metric): np.mean([one[metric] for one in some], 0)
        for name, some in known.items()
        for metric in METRICS
    }
    against = {
        base: _compared(means, [name for name in known if name != base], base)
        for base in ("fedavg", "random")
        if base in known
    }
    rows = []
    for name, some in known.items():
        row: dict[str, Any] = {
            "data": setting.source.name,
            "condition": setting.row,
            "arm": name,
            "seeds": len(some),
        }
        for metric in METRICS:
            found = bootstrap_mean(means[name, metric])
            row[metric] = f"{found.value:.4f} ({found.low:.4f}-{found.high:.4f})"
        for base in ("fedavg", "random"):
            row[f"NDCG@20 minus {base}"] = against.get(base, {}).get(name, "")
        listed = [float(one["listed"]) for one in some if "listed" in one]
        row["promoted item in top 20"] = f"{np.mean(listed):.1%}" if listed else ""
        row["bytes up"] = f"{float(some[0]['up']):,.0f}"
        row["best round"] = ", ".join(str(int(one["best"])) for one in some)
        row["seconds"] = f"{np.mean([float(one['seconds']) for one in some]):.0f}"
        rows.append(row)
    return rows


def _compared(
    means: dict[tuple[str, str], np.ndarray], names: list[str], base: str
) -> dict[str, str]:
    tests = [paired_difference(means[name, "ndcg@20"], means[base, "ndcg@20"]) for name in names]
    corrected = holm([test.p_value for test in tests])
    return {
        name: with_interval(test, p, 4)
        for name, test, p in zip(names, tests, corrected, strict=True)
    }


def main() -> None:
    """Measure what is missing, and write the table of all that is there beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["movietweetings"])
    parser.add_argument("--office", type=Path, help="folder that benchmarks/amazon18.py wrote")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", choices=sorted(MODELS), default="sasrec")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--contrast", type=float, nargs="+", default=[CONTRAST])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0])
    parser.add_argument("--attack", nargs="+", default=["none"], choices=ATTACKS)
    parser.add_argument("--runs", type=Path, default=Path("runs/lumos"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    archive = args.out.with_name("lumos.zip")  # of all conditions, whatever table is written
    unpack(archive, args.runs)
    settings = [
        Setting(source, args.runs / name, args.model, args.rounds, contrast, noise, attack)
        for name in args.data
        for source in [read(name, args.office)]
        for contrast in args.contrast
        for noise in args.noise
        for attack in args.attack
    ]
    for setting in settings:
        measure(setting, args.arms, args.seeds)
    pack(args.runs, archive)
    rows = [row for setting in settings for row in rows_of(setting)]
    made = {(row["data"], row["condition"]) for row in rows}
    other = [one for one in read_table(args.out) if (one["data"], one["condition"]) not in made]
    rows += [dict.fromkeys(rows[0], "") | one for one in other]
    write_table(args.out, sorted(rows, key=lambda row: (row["data"], row["condition"])), ABOUT)
    print(args.out.read_text())


ABOUT = (
    "Leave-last-out, k-core 5, full ranking, mean (95 % interval over users); p is Holm-corrected "
    "within a data set and condition. `oracle` makes views of co-occurrence in all users' logs, "
    "which no device has. `random` and `augment` are drawn anew in every round, `kept` once, as "
    "all others are. `shuffled` gives every user another user's future and rephrasing. Bytes "
    "are those of one client's message. Written by `benchmarks/lumos.py`."
)


if __name__ == "__main__":
    main()
