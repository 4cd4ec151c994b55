"""CollectiveKV against its controls: what is kept per event, and what it costs in quality.

    .venv/bin/python benchmarks/collectivekv.py --data ml-100k.parquet --models sasrec hstu

Every arm has the same width, layers, batches and early stopping; only what a cache keeps of an
event differs. For each seed full attention is trained first; every arm, the full cache too, then
starts from its weights (``model.start_from``) and trains on by the same rule. Arms that are "as it
begins" do not train on, and are set against the full cache that does not either. Two arms train
from nothing instead, as the paper does. Models are asked as
``foretaste evaluate`` asks them (leave-last-out, full catalog, seen items left out). Differences
from the full cache are paired by user, each user's mean over the seeds. Bytes are counted from what
a store holds of the users of the test set. Figures per user are kept in ``--runs``, one file for
each seed, so that the script goes on where it was stopped.

Collective records leave out the first layer, which is looked up by the item's number. A full cache
could do so too: a row of its own says what it would take, and a column compares with that.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from kept import Kept, pack, unpack, with_interval
from peers.driving import write_table

from foretaste.data.batches import query_batches
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, Recipe, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.metrics import PairedDifference, bootstrap_mean, holm, paired_difference
from foretaste.nn.collective import CollectiveKeyValues
from foretaste.recommenders.core.incremental import IncrementalRecommender
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.sequence import tensors
from foretaste.serving.stores import Event, StateChange, open_store

DIM = 128
METRICS = ("ndcg@10", "hr@10")
SHARED: dict[str, Any] = {"dim": DIM, "layers": 2, "heads": 2, "window": 50, "max_length": 100}
TRAIN: dict[str, Any] = {"batch_tokens": 3_000, "epochs": 60, "patience": 15, "min_epochs": 20}
ON: dict[str, Any] = {
    "batch_tokens": 3_000,
    "epochs": 15,
    "patience": 4,
    "min_epochs": 4,
    "learning_rate": 3e-4,
}
MANY = 500_000
"""Events beyond which a log takes fewer epochs: one has as many steps as several of others."""
TRAIN_MANY = TRAIN | {"epochs": 12, "patience": 3, "min_epochs": 5}
ON_MANY = ON | {"epochs": 12, "patience": 2, "min_epochs": 2}


class Arm(NamedTuple):
    """One way to keep keys and values.

    Attributes:
        name: in the table.
        form: ``full``, or a key of ``FITS``: what fits the budget of bytes.
        collective: settings besides.
        first_layer: of the model.
        starts: from the weights of a trained full one.
        trains: False leaves it as it begins.
    """

    name: str
    form: str
    collective: dict[str, Any]
    first_layer: str = "full"
    starts: bool = True
    trains: bool = True


LOW_RANK = "low-rank only, no fewer bytes"
"""The decisive control of ``both``."""
UNROUNDED = Arm("low-rank only, float32", "low-rank", {"user_type": "fp32"})
"""The same with numbers of four bytes: whether rounding is what the control suffers from."""
NOTHING, BEGUN = ", from nothing", ", as it begins"
TRAINED = [
    Arm("full", "full", {}),
    Arm("both", "levels", {}),
    Arm(LOW_RANK, "low-rank", {}),
    Arm("pools only", "pools", {}),
    Arm("without peak", "levels", {"peak": 0.0}),
    Arm("without balance", "levels", {"balance": 0.0}),
    Arm("one pool", "one", {}),
    Arm("one pool, all layers", "one", {}, "collective"),
    Arm("one pool, random router", "one", {"train_router": False}),
    Arm("int8 of the full width", "int8", {}),
    Arm("both" + NOTHING, "levels", {}, starts=False),
    Arm(LOW_RANK + NOTHING, "low-rank", {}, starts=False),
    Arm("pools only" + NOTHING, "pools", {}, starts=False),
    Arm("one pool, all layers" + NOTHING, "one", {}, "collective", starts=False),
]
ARMS = [
    *TRAINED,
    *(
        arm._replace(name=arm.name + BEGUN, trains=False)
        for arm in [*TRAINED[:4], *TRAINED[6:8], TRAINED[9], UNROUNDED]
    ),
]
LOOKED_UP = "full, first layer looked up (no loss)"
INT8 = {"user_dim": DIM, "pool_size": 0}
FITS: dict[str, dict[str, dict[str, int]]] = {
    "sasrec": {
        "levels": {"user_dim": 2, "pool_levels": 5},
        "pools": {"user_dim": 0, "pool_levels": 7},
        "one": {"user_dim": 6},
        "low-rank": {"user_dim": 8, "pool_size": 0},
        "int8": INT8,
    },
    "hstu": {
        "levels": {"user_dim": 2, "pool_levels": 3},
        "pools": {"user_dim": 0, "pool_levels": 5},
        "one": {"user_dim": 4},
        "low-rank": {"user_dim": 6, "pool_size": 0},
        "int8": INT8,
    },
}
"""What fits 0.8 % of the full cache beside the item's number (and, for HSTU, its time); the control
without pools takes two bytes more, as its numbers come in pairs of heads."""

LAYER = 2 * DIM * 4
"""Bytes of the full keys and values of an event in one layer."""


def recipe(
    model: str, source: Path, prepared: Split, arm: Arm, seed: int, start: Path | None
) -> Recipe:
    """The recipe of one fit, from the weights of ``start`` or from nothing."""
    first, on = (TRAIN_MANY, ON_MANY) if prepared.train.events > MANY else (TRAIN, ON)
    values: dict[str, Any] = {
        "data": {"source": str(source)},
        "split": {"kind": "leave-last-out"},
        "model": {
            "name": model,
            **SHARED,
            "dropout": 0.3,
            "attention": "full" if arm.form == "full" else "collective",
            "collective": FITS[model].get(arm.form, {}) | arm.collective,
            "first_layer": arm.first_layer,
            **({} if start is None else {"start_from": str(start)}),
        },
        "train": (first if start is None else on) | ({} if arm.trains else {"epochs": 0}),
        "run": {"seed": seed, "threads": 1},
    }
    return Recipe.build(values)


def trained(model: str, source: Path, prepared: Split, seed: int, folder: Path) -> Path:
    """A model with full attention, trained from nothing, in a folder of its own."""
    place = folder / f"{model}-start-{seed}"
    if not (place / "model.json").exists():
        chosen = recipe(model, source, prepared, ARMS[0], seed, None)
        recommender = chosen.recommender()
        recommender.fit(prepared, chosen.context())
        recommender.save(place)
    return place


def measure(model: str, source: Path, prepared: Split, arm: Arm, seed: int, start: Path | None):
    """Fit one arm; every figure that the table needs, arrays per user and numbers."""
    chosen = recipe(model, source, prepared, arm, seed, start)
    recommender = chosen.recommender()
    assert isinstance(recommender, IncrementalRecommender)
    begin = time.perf_counter()
    report = recommender.fit(prepared, chosen.context())
    found: dict[str, Any] = {"seconds": time.perf_counter() - begin, "best": report.best_epoch or 0}
    answers = rank_queries(recommender, prepared.test, METRICS)
    found |= {name: answers.metrics[name] for name in METRICS}
    valid = rank_queries(recommender, prepared.valid, ["ndcg@10"])
    found["valid"] = float(valid.metrics["ndcg@10"].mean())
    found |= cache_facts(recommender, prepared.test.histories)
    collective = [
        part for part in recommender.network.modules() if isinstance(part, CollectiveKeyValues)
    ]
    if collective and collective[0].pool is not None:
        if collective[0].config.train_router:
            for part in collective:
                part.gated = True
            gated = rank_queries(recommender, prepared.test, ["ndcg@10"])
            found["gated"] = float(gated.metrics["ndcg@10"].mean())
            for part in collective:
                part.gated = False
        found["entropy"] = pool_entropy(recommender, prepared.test.histories)
        pools = [part.pool for part in collective if part.pool is not None]
        found["pool_bytes"] = sum(4 * pool.numel() for pool in pools)
    if not recommender.network.widths()[0]:
        found["table_bytes"] = recommender.network.first_layer().numel()
    return found


def cache_facts(recommender: IncrementalRecommender, histories: Sequences) -> dict[str, float]:
    """What a store holds of the users' states, after it was written and read back."""
    rows = histories.take(np.arange(min(300, len(histories))))
    newest = _last(rows, recommender.readable)
    nothing = [np.empty((0, recommender.record_bytes), np.uint8)] * len(rows)
    records = [one[-recommender.window :] for one in recommender.advance(nothing, newest).records]
    users = [f"user{row}" for row in range(len(rows))]
    with open_store("memory") as store:
        logged = zip(users, map(len, records), strict=True)
        store.append([Event(user, "item", 0) for user, count in logged for _ in range(count)])
        changes = [
            StateChange(user, "0" * 32, 0, len(kept), kept, recommender.window, fresh=True)
            for user, kept in zip(users, records, strict=True)
        ]
        store.extend(changes)
        back = store.read(users, "0" * 32, recommender.window, 1)
        for kept, (_, state) in zip(records, back, strict=True):
            assert state is not None
            np.testing.assert_array_equal(kept, state.records)
        events = sum(len(kept) for kept in records)
        held = sum(store.size(user).state_bytes for user in users)
    return {
        "record_bytes": recommender.record_bytes,
        "held_per_event": held / events,
        "events_per_user": events / len(users),
    }


def pool_entropy(recommender: IncrementalRecommender, histories: Sequences) -> float:
    """Mean entropy of the use of pool entries by the events of histories, as a share of log m."""
    network, counts = recommender.network.eval(), {}

    def count(module: CollectiveKeyValues, inputs: tuple[Any, ...], _: Any) -> None:
        index = module.choices(inputs[0])[real].flatten(1)  # [events, 2 L]
        for pool, chosen in enumerate(index.T):
            now = chosen.bincount(minlength=module.config.pool_size).double()
            counts[module, pool] = counts.get((module, pool), 0) + now

    hooks = [
        part.register_forward_hook(count)
        for part in network.modules()
        if isinstance(part, CollectiveKeyValues)
    ]
    with torch.no_grad():
        for batch in query_batches(histories, recommender.window, 4_096):
            given = tensors(batch, torch.device("cpu"))
            real = torch.arange(given.items.shape[1]) < given.lengths[:, None]
            network(given)
    for hook in hooks:
        hook.remove()
    shares = [count / count.sum() for count in counts.values()]
    entropies = [-(share[share > 0] * share[share > 0].log()).sum() for share in shares]
    size = recommender.config.collective.pool_size
    return float(torch.stack(entropies).mean() / np.log(size))


def _last(rows: Sequences, count: int) -> Sequences:
    back = np.repeat(rows.offsets[1:], rows.lengths) - np.arange(rows.events)
    return rows.where(back <= count)


def rows_of(data: str, model: str, runs: Path) -> list[dict[str, Any]]:
    """The table of one model on one data set; every arm against the full cache."""
    names = [arm.name for arm in ARMS]
    known = {name: Kept(runs / data, f"{model}-{name}") for name in names}
    known = {name: kept for name, kept in known.items() if kept.seeds}
    full = known.get("full") or known.get("full" + BEGUN)
    if full is None:
        return []
    # What does not train on is set against the full cache that it begins from, which is also the
    # one that was trained from nothing.
    bases = {name: "full" + (BEGUN if name.endswith((BEGUN, NOTHING)) else "") for name in known}
    others = [
        name
        for name, base in bases.items()
        if name != base and base in known and set(known[name].numbers) & set(known[base].numbers)
    ]
    tests = {name: paired(known[name], known[bases[name]], "ndcg@10") for name in others}
    corrected = holm([test.p_value for test in tests.values()])
    rows = [
        {"data": data, "model": model, "keys and values": name} | cells(kept)
        for name, kept in known.items()
    ]
    for name, p in zip(others, corrected, strict=True):
        row = next(row for row in rows if row["keys and values"] == name)
        row["minus full, NDCG@10"] = with_interval(tests[name], p)
        row["minus full, HR@10"] = with_interval(paired(known[name], known[bases[name]], "hr@10"))
        control = LOW_RANK + next((way for way in (BEGUN, NOTHING) if name.endswith(way)), "")
        if name != control and control in known:
            row["minus low-rank"] = with_interval(paired(known[name], known[control], "ndcg@10"))
    return [rows[0], looked_up(rows[0], full), *rows[1:]]


def cells(kept: Kept) -> dict[str, str]:
    """What one arm came to, but for how far it lies from others."""
    quality = {metric: bootstrap_mean(kept.values(metric)) for metric in METRICS}
    record, held = kept.fact("record_bytes"), kept.fact("held_per_event")
    gated, entropy = kept.fact("gated"), kept.fact("entropy")
    assert record is not None and held is not None
    return {
        "seeds": f"{len(kept.seeds)}",
        **bytes_per_event(record),
        "held by the store": f"{held:.1f}",
        "bytes/user + part of what is shared": bytes_per_user(kept, len(kept.values("ndcg@10"))),
        "NDCG@10": "{:.4f} ({:.4f}-{:.4f})".format(*quality["ndcg@10"]),
        "HR@10": f"{quality['hr@10'].value:.4f}",
        "minus full, NDCG@10": "",
        "minus full, HR@10": "",
        "minus low-rank": "",
        "gated minus hard": "" if gated is None else f"{gated - quality['ndcg@10'].value:+.4f}",
        "pool entropy": "" if entropy is None else f"{entropy:.3f}",
        "pools + table of the first layer, KB": _kilobytes(kept),
        "seconds": f"{kept.fact('seconds'):.0f}",
    }


def bytes_per_event(record: float) -> dict[str, str]:
    """Those of a record, and against full keys and values of all layers and of all but one."""
    layers = SHARED["layers"]
    return {
        "bytes/event": f"{record:.0f}",
        "of full fp32": f"{record / (layers * LAYER):.2%}",
        "of full, first layer looked up": f"{record / ((layers - 1) * LAYER):.2%}",
    }


def bytes_per_user(kept: Kept, users: int) -> str:
    """What the store held of a user in the mean, and one of ``users`` parts of what is shared."""
    held, events = kept.fact("held_per_event"), kept.fact("events_per_user")
    assert held is not None and events is not None
    shared = (kept.fact("pool_bytes") or 0) + (kept.fact("table_bytes") or 0)
    return f"{held * events:.0f}" + (f" + {shared / users:.0f}" if shared else "")


def _kilobytes(kept: Kept) -> str:
    pools, table = (kept.fact(name) or 0 for name in ("pool_bytes", "table_bytes"))
    return f"{pools / 1000:.0f} + {table / 1000:.0f}"


def looked_up(row: dict[str, Any], full: Kept) -> dict[str, Any]:
    """The row of a full cache without its first layer: it answers as the full cache does."""
    record = full.fact("record_bytes")
    assert record is not None
    same = ("data", "model", "seeds", "NDCG@10", "HR@10")
    smaller = {"keys and values": LOOKED_UP} | bytes_per_event(record - LAYER)
    return {name: smaller.get(name, cell if name in same else "") for name, cell in row.items()}


def paired(one: Kept, other: Kept, metric: str) -> PairedDifference:
    """The difference of two arms, of the seeds that both have."""
    common = set(one.numbers) & set(other.numbers)
    return paired_difference(one.values(metric, common), other.values(metric, common))


def main() -> None:
    """Measure what is missing, and write the table of all that is there beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--models", nargs="+", default=list(FITS))
    parser.add_argument("--arms", nargs="+", type=int, default=list(range(len(ARMS))))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--k-core", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/collectivekv"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    archive = args.out.with_suffix(".zip")
    unpack(archive, args.runs)
    for source in map(Path, args.data):
        source = source.resolve() if source.exists() else source
        section = DataSection(source=str(source), k_core=args.k_core)
        prepared = split_dataset(load_dataset(section), SplitSection(kind="leave-last-out"))
        (args.runs / source.stem).mkdir(parents=True, exist_ok=True)
        for seed in args.seeds:
            for arm in [ARMS[number] for number in args.arms]:
                for model in args.models:
                    kept = Kept(args.runs / source.stem, f"{model}-{arm.name}")
                    if kept.path(seed).exists():
                        continue
                    start = None
                    if arm.starts:
                        start = trained(model, source, prepared, seed, args.runs / source.stem)
                    found = measure(model, source, prepared, arm, seed, start)
                    kept.save(seed, found)
                    value = found["ndcg@10"].mean()
                    print(source.stem, model, arm.name, seed, value, flush=True)
    pack(args.runs, archive)
    folders = sorted(path.name for path in args.runs.iterdir() if path.is_dir())
    rows = [row for data in folders for model in FITS for row in rows_of(data, model, args.runs)]
    about = (
        f"Width {DIM}, {SHARED['layers']} layers, window {SHARED['window']}; leave-last-out, full "
        "catalog, seen items left out; means over seeds with 95 % intervals over users; p is "
        "Holm-corrected. A record of an event holds the number of its item (and for HSTU its time) "
        "besides. Bytes of a user are those of a state in the memory store, in the mean, and its "
        "part of pools and of the first layer's table. Written by `benchmarks/collectivekv.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
