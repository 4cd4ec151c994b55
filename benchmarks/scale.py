"""How time and memory grow with the log: 1 to 50 million events, 10 thousand to 1 million items.

    .venv/bin/python benchmarks/scale.py

Each size runs in a process of its own: a Parquet log of Zipf-distributed items is made, then read,
numbered and split by time, SASRec (dim 64, sampled softmax) trains for a minute, and 2,000 users
are ranked over the whole catalog. Peak memory is that of the whole process after each step.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from peers.driving import write_table

SIZES = [
    (1_000_000, 10_000),
    (10_000_000, 10_000),
    (50_000_000, 10_000),
    (10_000_000, 100_000),
    (10_000_000, 1_000_000),
]
EVENTS_PER_USER = 50


def make_log(path: Path, events: int, items: int, seed: int = 0) -> None:
    """A log of ``events`` with Zipf-distributed items, as Parquet, a few million rows at a time."""
    rng = np.random.default_rng(seed)
    users = events // EVENTS_PER_USER
    ranks = np.arange(1, items + 1)
    share = np.cumsum(1 / ranks**0.9)
    share /= share[-1]
    path.mkdir()
    for part, first in enumerate(range(0, events, 5_000_000)):
        count = min(5_000_000, events - first)
        frame = pl.DataFrame(
            {
                "user_id": rng.integers(0, users, count, dtype=np.int32),
                "item_id": np.searchsorted(share, rng.random(count)).astype(np.int32),
                "timestamp": rng.integers(1_600_000_000, 1_700_000_000, count),
            }
        )
        frame.write_parquet(path / f"{part:03}.parquet")


def measure(log: Path, seconds: float) -> dict[str, Any]:
    """The steps of a run on one log, with the time of each and the peak memory after it."""
    import torch

    from foretaste.data.dataset import Dataset
    from foretaste.data.reading import read_interactions
    from foretaste.data.split import Queries, split
    from foretaste.experiments.machine import peak_memory
    from foretaste.recommenders.core.base import RunContext
    from foretaste.recommenders.core.ranking import rank_queries
    from foretaste.recommenders.core.sequence import NextItemLoss
    from foretaste.recommenders.core.training import Objective, Trainer
    from foretaste.recommenders.sasrec import SASRec

    found: dict[str, Any] = {}

    def step(name: str, begin: float) -> None:
        found[f"{name}, s"] = round(time.perf_counter() - begin, 1)
        found[f"{name}, GB"] = round(peak_memory() / 1e9, 2)

    begin = time.perf_counter()
    interactions = read_interactions(log)
    step("read", begin)
    begin = time.perf_counter()
    dataset = Dataset.from_interactions(interactions)
    del interactions
    step("number", begin)
    begin = time.perf_counter()
    prepared = split(dataset)
    del dataset
    step("split", begin)
    begin = time.perf_counter()
    torch.manual_seed(0)
    model = SASRec(loss="sampled", negatives=1_024)
    model.catalog, model.popularity = prepared.catalog, prepared.popularity
    model.network = model._network(prepared.items)
    loss = NextItemLoss(model.network, model.config, prepared.popularity)
    objective = Objective(loss, model.network, None, 50, prepared.items)
    few = prepared.train.take(np.arange(min(len(prepared.train), 40_000)))
    trainer = Trainer(objective, few, model.config.train, RunContext())
    trainer.prepare()
    targets, training = 0, time.perf_counter()
    while time.perf_counter() - training < seconds:
        targets += trainer.learn(np.random.default_rng(0))[1]
    rate = targets / (time.perf_counter() - training)
    step("train", begin)
    del found["train, s"]
    found["targets/s"] = float(round(rate))
    asked = np.arange(min(2_000, len(prepared.test)))
    queries = Queries(
        prepared.test.users[asked],
        prepared.test.histories.take(asked),
        prepared.test.targets.take(asked),
    )
    begin = time.perf_counter()
    rank_queries(model, queries, ["ndcg@10"])
    found["users ranked/s"] = float(round(len(asked) / (time.perf_counter() - begin)))
    found["peak, GB"] = round(peak_memory() / 1e9, 2)
    return found


def main() -> None:
    """Measure every size in a process of its own and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of training")
    parser.add_argument("--log", type=Path, help="measure this log in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    if args.log:
        print(json.dumps(measure(args.log, args.seconds)))
        return
    rows = []
    for events, items in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            make_log(log, events, items)
            command = [sys.executable, __file__, "--log", str(log), "--seconds", str(args.seconds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append({"events": f"{events:,}", "items": f"{items:,}"} | json.loads(done.stdout))
        print(rows[-1], flush=True)
    about = (
        "Synthetic logs, 50 events a user; SASRec dim 64 with 1,024 sampled negatives; GB is the "
        "peak of the process so far. Written by `benchmarks/scale.py`."
    )
    write_table(args.out, rows, about)


if __name__ == "__main__":
    main()
