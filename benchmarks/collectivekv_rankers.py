"""CollectiveKV in rankers: DIN, SIM and SDIM on clicks, what is kept per event and what it costs.

    .venv/bin/python benchmarks/collectivekv_rankers.py --data u.inter --data movietweetings,5,8

Of each ``SOURCE[,K_CORE[,THRESHOLD]]`` the clicks are ratings of the threshold (4) and more; a log
without ratings gets four sampled negatives for each event. Every user's last tenth of the
impressions is the test. All arms have the same width, batches and early stopping by AUC; only what
a cache keeps of an event differs. For each seed full attention is trained from nothing; the arms
start from its weights (``model.start_from``) and train on by one rule, the full cache too. The arms
"from nothing" are trained as the paper does. Bytes are those that a store gave back; logits from
these bytes alone are compared with those of the network.

A ranker has one layer of keys over the item's vector and the level of its rating, so these two
numbers are a lossless cache of a few bytes. The script checks that, bit for bit, and tells its
bytes in a row of its own. Figures per impression are kept in ``--runs``, a file for each seed.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from collectivekv import LOW_RANK, bytes_per_user
from kept import Kept, pack, unpack, with_interval
from peers.driving import write_table

from foretaste.data.clicks import ClickTask, rated_clicks, sampled_clicks
from foretaste.data.sequences import Sequences
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection
from foretaste.metrics import (
    auc,
    auc_difference,
    gauc,
    holm,
    log_loss,
    paired_difference,
    user_clicks,
)
from foretaste.nn.collective import CollectiveKeyValues
from foretaste.nn.key_values import bytes_for
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.ranker_network import History
from foretaste.recommenders.core.registry import find
from foretaste.serving.stores import Event, StateChange, open_store

DIM = 128
REFERENCE = 2 * DIM * 4
"""Bytes of the key and the value of an event, one layer, float32."""

MODELS = ("din", "sim", "sdim")
SHARED: dict[str, Any] = {"dim": DIM, "heads": 2, "max_length": 100, "hidden": 64}
TRAIN: dict[str, Any] = {"epochs": 40, "patience": 5, "min_epochs": 8}
ON: dict[str, Any] = {"epochs": 12, "patience": 4, "min_epochs": 3, "learning_rate": 3e-4}


class Arm(NamedTuple):
    """One way to keep keys and values; ``collective`` None is full attention."""

    name: str
    collective: dict[str, Any] | None
    starts: bool = True


WITH, WITHOUT = {"user_dim": 2}, {"user_dim": 4, "pool_size": 0}
"""With a pool and without: 6 and 8 bytes, at most 0.8 % of 1,024."""
SEVEN = {"user_dim": 0, "pool_levels": 7}  # 14 bytes
FULL = Arm("full, from nothing", None, starts=False)
EVERY = [
    FULL,
    Arm("full", None),
    Arm("both", WITH),
    Arm(LOW_RANK, WITHOUT),
    Arm("pool only", {"user_dim": 0}),
    Arm("without peak", WITH | {"peak": 0.0}),
    Arm("without balance", WITH | {"balance": 0.0}),
    Arm("random router", WITH | {"train_router": False}),
    Arm("int8 of the full width", {"user_dim": DIM, "pool_size": 0}),
    Arm("both, from nothing", WITH, starts=False),
    Arm("low-rank only, from nothing", WITHOUT, starts=False),
    Arm("seven levels", SEVEN),
    Arm("seven levels, from nothing", SEVEN, starts=False),
]
STORED, ASKED = 200, 50  # users whose records go through a store, and candidates for them


class Source(NamedTuple):
    """A click task and where its figures are kept."""

    name: str
    task: ClickTask
    folder: Path


def load(asked: str, runs: Path) -> Source:
    """The clicks of a log: from its ratings, or with sampled negatives."""
    source, k_core, threshold = (*asked.split(","), "", "")[:3]
    path = Path(source)
    dataset = load_dataset(DataSection(source=source, k_core=int(k_core or 0)))
    rated = dataset.ratings is not None and not np.isnan(dataset.ratings).all()
    task = (
        rated_clicks(dataset, threshold=float(threshold or 4)) if rated else sampled_clicks(dataset)
    )
    place = runs / path.stem
    place.mkdir(parents=True, exist_ok=True)
    return Source(f"{path.stem}{'' if rated else ', sampled negatives'}", task, place)


def untrained(model: str, arm: Arm, start: Path | None) -> Ranker:
    """The ranker of one arm, that starts from ``start`` or from nothing."""
    made = find(model)(
        **SHARED,
        attention="full" if arm.collective is None else "collective",
        collective=arm.collective or {},
        train=TRAIN if start is None else ON,
        start_from=start,
    )
    assert isinstance(made, Ranker)
    return made


def measure(model: str, source: Source, arm: Arm, seed: int) -> dict[str, Any]:
    """Fit one arm; every figure that the table needs, arrays per impression and numbers."""
    base = source.folder / f"{model}-start-{seed}"
    task = source.task
    ranker = untrained(model, arm, base if arm.starts else None)
    begin = time.perf_counter()
    report = ranker.fit_clicks(task, RunContext(seed=seed, device="cpu", threads=1))
    found: dict[str, Any] = {"seconds": time.perf_counter() - begin, "best": report.best_epoch or 0}
    if arm is FULL:
        ranker.save(base)
    found["test"] = ranker.click_probabilities(task, task.test).astype(np.float32)
    found["valid"] = auc(task.valid.labels, ranker.click_probabilities(task, task.valid))
    found |= cache_facts(ranker, task)
    key_values = ranker.network.key_values
    if isinstance(key_values, CollectiveKeyValues) and key_values.pool is not None:
        if key_values.config.train_router:
            key_values.gated = True
            gated = ranker.click_probabilities(task, task.test)
            found["gated"] = auc(task.test.labels, gated)
            found["gated_gap"] = float(np.abs(gated - found["test"]).mean())
            key_values.gated = False
        found["entropy"] = pool_entropy(ranker, task)
        found["pool_bytes"] = 4 * key_values.pool.numel()
    return found


def latest(task: ClickTask, users: np.ndarray, length: int) -> tuple[Sequences, np.ndarray | None]:
    """The last events of users and their rating levels."""
    places = Sequences(task.events.items, task.events.offsets, np.arange(task.events.events))
    rows = places.take(users)
    back = np.repeat(rows.offsets[1:], rows.lengths) - np.arange(rows.events)
    kept = rows.where(back <= length)
    assert kept.times is not None
    return kept, None if task.levels is None else task.levels[kept.times]


def padded(rows: Sequences, levels: np.ndarray | None) -> History:
    """Events as a network takes them."""
    longest = int(rows.lengths.max())
    items, of_items = (torch.zeros(len(rows), longest, dtype=torch.int32) for _ in range(2))
    for row in range(len(rows)):
        first, last = rows.offsets[row], rows.offsets[row + 1]
        items[row, : last - first] = torch.from_numpy(rows.items[first:last])
        if levels is not None:
            of_items[row, : last - first] = torch.from_numpy(levels[first:last])
    return History(items, None if levels is None else of_items, torch.from_numpy(rows.lengths))


@torch.no_grad()
def cache_facts(ranker: Ranker, task: ClickTask) -> dict[str, float]:
    """What a store gives back of the users' records, and how far logits from it alone lie off."""
    network = ranker.network.eval()
    known = np.flatnonzero(task.events.lengths > 0)[:STORED]
    rows, levels = latest(task, known, ranker.config.max_length)
    history = padded(rows, levels)
    records = network.pack(history)  # [B, L, R]
    held, back = through_a_store(records.numpy(), rows.lengths, network.record_bytes)
    candidates = torch.from_numpy(np.random.default_rng(0).choice(len(task.catalog), (1, ASKED)))
    lengths = history.lengths
    from_records = network.score_records(torch.from_numpy(back), lengths, candidates)
    direct = network(history, candidates, lengths[:, None])
    real = torch.arange(records.shape[1]) < lengths[:, None]
    looked_up = records_by_number(ranker, history)
    assert torch.equal(looked_up[real], records[real]), "item and level do not give the record"
    return {
        "record_bytes": network.record_bytes,
        "held_per_event": held / rows.events,
        "events_per_user": rows.events / len(known),
        "cache_gap": float((from_records - direct).abs().max()),
        "number_bytes": bytes_for(len(task.catalog)) + (task.levels is not None),
    }


def through_a_store(records: np.ndarray, lengths: np.ndarray, width: int) -> tuple[float, Any]:
    """Bytes that a store holds of the records, and the records as it gave them back."""
    users = [f"user{row}" for row in range(len(records))]
    window, back = records.shape[1], np.zeros_like(records)
    with open_store("memory") as store:
        logged = zip(users, lengths.tolist(), strict=True)
        store.append([Event(user, "item", 0) for user, count in logged for _ in range(count)])
        store.extend(
            [
                StateChange(user, "0" * 32, 0, count, records[row, :count], window, fresh=True)
                for row, (user, count) in enumerate(zip(users, lengths.tolist(), strict=True))
            ]
        )
        for row, (_, state) in enumerate(store.read(users, "0" * 32, window, 1)):
            assert state is not None and state.records.shape[1] == width
            back[row, : len(state.records)] = state.records
        held = sum(store.size(user).state_bytes for user in users)
    return held, back


def records_by_number(ranker: Ranker, history: History) -> torch.Tensor:
    """Records looked up by item and level in a table made of all pairs that occur."""
    levels = torch.zeros_like(history.items) if history.levels is None else history.levels
    pair = history.items.long() * (len(ranker.rating_values) + 1) + levels  # [B, L]
    known, index = pair.unique(return_inverse=True)
    items, level = known // (len(ranker.rating_values) + 1), known % (len(ranker.rating_values) + 1)
    one = torch.ones(len(known), dtype=torch.int64)
    given = None if history.levels is None else level.int()[:, None]
    table = ranker.network.pack(History(items.int()[:, None], given, one))  # [pairs, 1, R]
    return table[index, 0]


@torch.no_grad()
def pool_entropy(ranker: Ranker, task: ClickTask) -> float:
    """Mean entropy of the use of pool entries by users' last events, as a share of log m."""
    known = np.flatnonzero(task.events.lengths > 0)
    config, size = ranker.config.collective, ranker.config.collective.pool_size
    counts = torch.zeros(2 * config.pool_levels, size)

    def count(module: Any, given: tuple[torch.Tensor], _: Any) -> None:
        for part, chosen in enumerate(module.choices(given[0]).flatten(1).unbind(1)):
            counts[part] += chosen.bincount(minlength=size)

    hook = ranker.network.key_values.register_forward_hook(count)
    for users in np.array_split(known, max(1, len(known) // 200)):
        rows, levels = latest(task, users, ranker.config.max_length)
        ranker.network.eval().remember(padded(rows, levels))
    hook.remove()
    share = counts / counts.sum(1, keepdim=True)
    return float(-(share * share.clamp_min(1e-12).log()).sum(1).mean() / np.log(size))


def against(task: ClickTask, arm: Kept, full: Kept) -> tuple[str, str, str, float]:
    """Differences of AUC, users' AUC and log-loss from the full cache, and a p of the second.

    AUC is no mean over users: its interval is that of users drawn again, in the mean over the
    seeds, which is no narrower than that of the mean. The others pair each user's mean over seeds.
    """
    labels, users = task.test.labels, task.test.users
    seeds = sorted(set(arm.numbers) & set(full.numbers))
    pairs = [(arm.one(seed)["test"], full.one(seed)["test"]) for seed in seeds]
    whole = np.mean([auc_difference(labels, ours, theirs, users) for ours, theirs in pairs], axis=0)
    own = [[user_clicks(labels, one, users) for one in pair] for pair in pairs]
    areas = np.mean([[one.auc for one in pair] for pair in own], axis=0)  # [2, users]
    losses = np.mean([[one.log_loss for one in pair] for pair in own], axis=0)
    both = ~np.isnan(areas[0])
    of_users = paired_difference(areas[0][both], areas[1][both])
    of_loss = paired_difference(losses[0], losses[1])
    return (
        "{:+.4f} ({:+.4f} to {:+.4f})".format(*whole),
        with_interval(of_users),
        with_interval(of_loss),
        of_users.p_value,
    )


def rows_of(source: Source, model: str) -> list[dict[str, Any]]:
    """The table of one ranker on one data set; every arm against the full cache of its kind."""
    known = {arm.name: Kept(source.folder, f"{model}-{arm.name}") for arm in EVERY}
    known = {name: kept for name, kept in known.items() if kept.seeds}
    starts = {arm.name: arm.starts for arm in EVERY}
    others = [name for name in known if name not in ("full", FULL.name)]
    others = [name for name in others if ("full" if starts[name] else FULL.name) in known]
    found = {
        name: against(source.task, known[name], known["full" if starts[name] else FULL.name])
        for name in others
    }
    corrected = dict(zip(others, holm([found[name][3] for name in others]), strict=True))
    rows = [row_of(source, model, name, kept) for name, kept in known.items()]
    for row in rows:
        name = row["keys and values"]
        difference = found.get(name)
        p = f"; p {corrected[name]:.3f}" if name in corrected else ""
        row["AUC minus full"] = difference[0] if difference else ""
        row["users' AUC minus full"] = difference[1] + p if difference else ""
        row["log-loss minus full"] = difference[2] if difference else ""
        if name == "both" and LOW_RANK in known:
            row["AUC minus low-rank"] = against(source.task, known[name], known[LOW_RANK])[0]
    if "full" in known:
        rows.append(by_number(source, model, rows, known["full"]))
    return rows


def row_of(source: Source, model: str, name: str, kept: Kept) -> dict[str, Any]:
    """What one arm came to."""
    labels, users = source.task.test.labels, source.task.test.users
    tests = [one["test"] for one in kept.seeds]
    record, gated, entropy = (kept.fact(key) for key in ("record_bytes", "gated", "entropy"))
    assert record is not None
    area = float(np.mean([auc(labels, one) for one in tests]))
    everyone = int((source.task.events.lengths > 0).sum())
    gap, loss = kept.fact("cache_gap"), np.mean([log_loss(labels, one) for one in tests])
    return {
        "data": source.name,
        "model": model,
        "keys and values": name,
        "seeds": len(tests),
        "bytes/event": f"{record:.0f}",
        "of full fp32": f"{record / REFERENCE:.2%}",
        "held by the store": f"{kept.fact('held_per_event'):.1f}",
        "bytes/user + part of pools": bytes_per_user(kept, everyone),
        "AUC": f"{area:.4f}",
        "GAUC": f"{np.mean([gauc(labels, one, users).value for one in tests]):.4f}",
        "log-loss": f"{loss:.4f}",
        "AUC minus full": "",
        "users' AUC minus full": "",
        "log-loss minus full": "",
        "AUC minus low-rank": "",
        "gated minus hard, AUC": "" if gated is None else f"{gated - area:+.5f}",
        "logits from records off by": f"{gap:.1e}",
        "pool entropy": "" if entropy is None else f"{entropy:.3f}",
        "pool KB": f"{(kept.fact('pool_bytes') or 0) / 1000:.0f}",
        "seconds": f"{kept.fact('seconds'):.0f}",
    }


def by_number(source: Source, model: str, rows: list[dict], full: Kept) -> dict[str, Any]:
    """The row of the lossless cache: item and level, of which records were looked up bit for bit.

    What it answers is what the full cache answers.
    """
    shown = next(row for row in rows if row["keys and values"] == "full")
    number = full.fact("number_bytes")
    assert number is not None
    return {key: "" for key in shown} | {
        "data": source.name,
        "model": model,
        "keys and values": "item number and rating, keys looked up (no loss)",
        "seeds": len(full.seeds),
        "bytes/event": f"{number:.0f}",
        "of full fp32": f"{number / REFERENCE:.2%}",
        **{key: shown[key] for key in ("AUC", "GAUC", "log-loss")},
    }


def missing(source: Source, model: str, arms: list[Arm], seed: int) -> list[Arm]:
    """The arms that are not kept yet, after the one that others start from."""
    left = [
        arm for arm in arms if not Kept(source.folder, f"{model}-{arm.name}").path(seed).exists()
    ]
    started = (source.folder / f"{model}-start-{seed}" / "model.json").exists()
    if any(arm.starts for arm in left) and not started:
        left = [FULL, *(arm for arm in left if arm is not FULL)]
    return left


def main() -> None:
    """Measure what is missing, and write the table of the data that was given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in EVERY])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/collectivekv-rankers"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    archive = args.out.with_suffix(".zip")
    unpack(archive, args.runs)
    arms = [arm for arm in EVERY if not args.arms or arm.name in args.arms]
    sources = [load(asked, args.runs) for asked in args.data]
    for source in sources:
        print(f"{source.name}: {source.task}", flush=True)
        for seed in args.seeds:
            for model in args.models:
                for arm in missing(source, model, arms, seed):
                    found = measure(model, source, arm, seed)
                    Kept(source.folder, f"{model}-{arm.name}").save(seed, found)
                    print(source.name, model, arm.name, seed, found["valid"], flush=True)
    pack(args.runs, archive)
    rows = [row for source in sources for model in args.models for row in rows_of(source, model)]
    about = (
        f"Width {DIM}, one layer, {SHARED['heads']} heads, the last {SHARED['max_length']} events; "
        "every user's last tenth of the impressions is the test; means over seeds, 95 % intervals "
        "over users, arms from nothing against the full cache from nothing; p is Holm-corrected. "
        "Bytes of a user are those of a state in the memory store, in the mean, and a user's part "
        "of the pools. Written by `benchmarks/collectivekv_rankers.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
