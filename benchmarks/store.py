"""Bytes that the user stores hold per user, really written and read back: LMDB and Redis.

    .venv/bin/python benchmarks/store.py

A million users (of Redis 100,000, for time) take a log-normal number of events (median 10, sigma
1.2, at most 500) in two visits. Their logs are written, then the records of a state: those of the
SASRec of `collectivekv.py` (two layers of width 128, window 50) with a full fp32 cache, with
CollectiveKV, and with its pools alone. The records are such a model's own, with weights at random.
Everything is read back and compared. A full cache of all users does not fit: as many are written as
fit the budget. LMDB waits for the disk at every commit, of 5,000 users each; Redis is a server of
its own on loopback, without persistence. Each row is a process of its own.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from collectivekv import FITS, SHARED
from peers.driving import write_table

from foretaste.recommenders.sasrec import SASRecConfig, SASRecNetwork
from foretaste.serving.stores import Event, StateChange, UserStore, open_store
from foretaste.serving.stores.base import LOG_RECORD
from foretaste.serving.stores.lmdb_store import LmdbStore

ITEMS, WINDOW, MOST = 10_000, SHARED["window"], 500
MEDIAN, SIGMA = 10, 1.2
BATCH = 5_000  # users in a call
# What the second visit makes of the bytes after the first: it brings as many again, LMDB needs free
# pages to write to, and Redis gives long strings that are appended to twice the room.
GROWTH = {"lmdb": 2.2, "redis": 6}
CACHES: dict[str, dict[str, Any]] = {
    "full fp32 cache": {"attention": "full"},
    "CollectiveKV": {"attention": "collective", "collective": FITS["sasrec"]["levels"]},
    "CollectiveKV, pools alone": {"attention": "collective", "collective": {"user_dim": 0}},
}
LOG = "event log"


class Batch(NamedTuple):
    """Some users and all that is to be known of them, made again from the seed when needed."""

    users: list[str]
    counts: np.ndarray  # [users], events of each
    items: np.ndarray  # [events]
    rng: np.random.Generator

    def records(self, made: np.ndarray) -> list[np.ndarray]:
        """Per user one of the records ``made`` for each event. To be called once."""
        drawn = made[self.rng.integers(0, len(made), self.counts.sum())]
        return np.split(drawn, np.cumsum(self.counts)[:-1])


@torch.no_grad()
def records_of(cache: str) -> np.ndarray:
    """Records that a model keeps of random histories, uint8 [n, width]."""
    torch.manual_seed(0)
    config = SASRecConfig.model_validate({**SHARED, **CACHES[cache]})
    network = SASRecNetwork(ITEMS, config).eval()
    state = network.extend(network.start(100), torch.randint(0, ITEMS, (100, WINDOW)))
    return state.records.flatten(0, 1).numpy()


def batches(users: int) -> Iterator[Batch]:
    """All users, a batch at a time."""
    for first in range(0, users, BATCH):
        rng = np.random.default_rng([0, first])
        names = [f"user-{number}" for number in range(first, min(first + BATCH, users))]
        drawn = np.exp(rng.normal(np.log(MEDIAN), SIGMA, len(names)))
        counts = np.clip(drawn.astype(np.int64), 1, MOST)
        yield Batch(names, counts, rng.integers(0, ITEMS, counts.sum()), rng)


class Clock:
    """Seconds within its ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.began


def write_logs(store: UserStore, users: int) -> float:
    """Append everybody's events, in two visits; the seconds that the store took."""
    clock = Clock()
    for visit in range(2):
        for batch in batches(users):
            events, starts = [], np.cumsum(batch.counts) - batch.counts
            for user, start, count in zip(
                batch.users, starts.tolist(), batch.counts.tolist(), strict=True
            ):
                half = start + count // 2
                begin, end = ((start, half), (half, start + count))[visit]
                items = batch.items[begin:end].tolist()
                times = range(begin - start, end - start)
                events += [Event(user, f"item-{i}", t) for i, t in zip(items, times, strict=True)]
            with clock:
                store.append(events)
    return clock.seconds


def read_logs(store: UserStore, users: int) -> float:
    """Read all logs and compare them; the seconds that the store took."""
    clock = Clock()
    number = np.array([int(item.removeprefix("item-")) for item in store.known_items()])
    for batch in batches(users):
        with clock:
            answers = store.read(batch.users, "none", WINDOW, MOST)
        items = number[np.concatenate([log.items for log, _ in answers])]
        times = np.concatenate([log.times for log, _ in answers])
        starts = np.repeat(np.cumsum(batch.counts) - batch.counts, batch.counts)
        np.testing.assert_array_equal(items, batch.items)
        np.testing.assert_array_equal(times, np.arange(len(times)) - starts)
    return clock.seconds


def write_states(
    store: UserStore, users: int, records: np.ndarray, full: Callable[[], bool]
) -> tuple[float, int]:
    """Begin states until ``full()``, then continue them; the seconds, and how many have one."""
    clock, reached = Clock(), 0
    for visit in range(2):
        for batch in batches(users if visit == 0 else reached):
            changes = []
            for user, count, made in zip(
                batch.users, batch.counts.tolist(), batch.records(records), strict=True
            ):
                half = count // 2
                since, until = ((0, half), (half, count))[visit]
                part, fresh = made[since:until], visit == 0
                changes.append(StateChange(user, "m", since, until, part, WINDOW, fresh))
            with clock:
                done = store.extend(changes)
            assert all(done)
            if visit == 0:
                reached += len(batch.users)
                if full():
                    break
    return clock.seconds, reached


def read_states(store: UserStore, users: int, records: np.ndarray) -> float:
    """Read the states and compare them; the seconds that the store took."""
    clock = Clock()
    for batch in batches(users):
        with clock:
            answers = store.read(batch.users, "m", WINDOW, 0)
        for (_, state), count, made in zip(
            answers, batch.counts.tolist(), batch.records(records), strict=True
        ):
            assert state is not None and state.consumed == count
            assert np.array_equal(state.records, made[-WINDOW:])
    return clock.seconds


def used_memory(store: UserStore) -> int:
    """Bytes that the Redis server has allocated."""
    import redis

    with redis.Redis.from_url(store.name) as client:
        return int(client.info("memory")["used_memory"])


def measure(url: str, kept: str, users: int, budget: int) -> dict[str, Any]:
    """Write one kind of bytes and read it back, in this process."""
    data = Path(url.removeprefix("lmdb:")) / "data.mdb"
    with open_store(url, timeout=None if url.startswith("lmdb:") else 60) as store:
        lmdb = isinstance(store, LmdbStore)

        def held() -> int:
            return data.stat().st_blocks * 512 if lmdb else used_memory(store)

        before, others = held(), store.pages() if lmdb else None
        if kept == LOG:
            wrote, reached = write_logs(store, users), users
            width, read = LOG_RECORD.itemsize, read_logs(store, users)
        else:
            growth, records = GROWTH["lmdb" if lmdb else "redis"], records_of(kept)
            wrote, reached = write_states(
                store, users, records, lambda: growth * (held() - before) > budget
            )
            width, read = records.shape[1], read_states(store, reached, records)
        if isinstance(store, LmdbStore) and others is not None:
            now = store.pages()
            taken = sum(now) - sum(others)
        else:
            taken = held() - before
        total = held()
    counts = np.concatenate([batch.counts for batch in batches(reached)])
    most = MOST if kept == LOG else WINDOW
    return {
        "store": url.partition(":")[0],
        "kept": kept,
        "bytes/event": width,
        "users": f"{reached:,}",
        "events/user": f"{np.minimum(counts, most).mean():.1f}",
        "records/user, bytes": float(round(np.minimum(counts, most).mean() * width)),
        "held/user, bytes": float(round(taken / reached)),
        "store in all, GB": f"{total / 1e9:.2f}",
        "write, s": f"{wrote:.0f}",
        "read back, s": f"{read:.0f}",
        "users read/s": f"{reached / read:,.0f}",
        "load": f"{os.getloadavg()[0]:.0f}",
        "peak RSS, GB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f}",
    }


def apart(url: str, kept: str, users: int, budget: int) -> dict[str, Any]:
    """`measure` in a process of its own."""
    given = ["--row", url, kept, "--users", str(users), "--budget", str(budget)]
    done = subprocess.run([sys.executable, __file__, *given], check=True, stdout=subprocess.PIPE)
    print(done.stdout.decode().strip(), flush=True)
    return json.loads(done.stdout)


def lmdb_rows(caches: list[str], users: int, budget: int) -> list[dict[str, Any]]:
    """The log, then each kind of record beside a copy of it."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        rows = [apart(f"lmdb:{log}", LOG, users, budget)]
        for kept in caches:
            copy = Path(folder) / "copy"
            shutil.copytree(log, copy)
            rows.append(apart(f"lmdb:{copy}", kept, users, budget))
            shutil.rmtree(copy)
        return rows


def redis_rows(caches: list[str], users: int, budget: int) -> list[dict[str, Any]]:
    """The log, then each kind of record after the one before was swept away."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
            try:
                time.sleep(1)
                url = f"redis://127.0.0.1:{port}/0"
                rows = [apart(url, LOG, users, budget)]
                for kept in caches:
                    rows.append(apart(url, kept, users, budget))
                    with open_store(url, timeout=60) as store:
                        store.sweep(gone=["m"])
                return rows
            finally:
                server.kill()


def main() -> None:
    """Measure both stores and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000, help="of LMDB")
    parser.add_argument("--redis-users", type=int, default=100_000, help="of Redis")
    parser.add_argument("--caches", nargs="+", choices=list(CACHES), default=list(CACHES))
    parser.add_argument("--stores", nargs="+", default=["lmdb", "redis"])
    parser.add_argument("--budget", type=int, default=6_000_000_000, help="bytes on disk of LMDB")
    parser.add_argument("--memory", type=int, default=3_000_000_000, help="bytes of Redis")
    parser.add_argument("--row", nargs=2, metavar=("URL", "CACHE"), help="measure in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    if args.row:
        url, kept = args.row
        print(json.dumps(measure(url, kept, args.users, args.budget)))
        return
    makers = {"lmdb": lmdb_rows, "redis": redis_rows}
    rows: list[dict[str, Any]] = []
    for kind in args.stores:
        lmdb = kind == "lmdb"
        users, budget = (args.users, args.budget) if lmdb else (args.redis_users, args.memory)
        log, first, *others = makers[kind](args.caches, users, budget)
        whole = first["held/user, bytes"]
        compared = {f"of {first['kept']}": "100%"}
        rows += [log | dict.fromkeys(compared, ""), first | compared]
        for row in others:
            rows.append(row | dict.fromkeys(compared, f"{row['held/user, bytes'] / whole:.2%}"))
    about = (
        f"Events per user: log-normal, median {MEDIAN}, sigma {SIGMA}, at most {MOST}; a state "
        f"keeps the last {WINDOW}. Held per user is with keys, headers and the room that pages and "
        "strings leave empty; 'store in all' is the file on disk (LMDB, log included) or what the "
        "server has allocated (Redis). The full cache of all users does not fit: as many as fit "
        "the budget. Redis gives long strings that are appended to twice the room, so the full "
        "cache looks larger there than its records are. Peak RSS counts the mapped file of LMDB "
        "and leaves out the Redis server. Load is that of the machine when the row ended, on "
        f"{os.cpu_count()} cores: where it is higher, other work made the seconds more. Written by "
        "`benchmarks/store.py`."
    )
    write_table(args.out, rows, about)


if __name__ == "__main__":
    main()
