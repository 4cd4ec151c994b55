"""How many requests a second the service answers with 99 % of them within 50 ms.

    .venv/bin/python benchmarks/load.py               # memory, LMDB, Redis; states and recompute
    .venv/bin/python benchmarks/load.py --soak 30     # and then half an hour at half that rate
    .venv/bin/python benchmarks/load.py --smoke       # a minute, to see that it runs

``open_loop.py`` sends requests at a constant rate from a process of its own. A rate is passed when
99 % of all requests, events and lists together, are answered within 50 ms and none is refused. The
highest rate is searched by doubling, then by halving the interval.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import polars as pl
import psutil
from open_loop import drive
from peers.driving import write_table

P99_MS = 50.0
MOST_TRIALS = 14
FIRST_RATE = 50.0
CLOSE_ENOUGH = 1.08
"""Ratio between the lowest rate that failed and the highest that passed, at which search ends."""


# --- The service ---------------------------------------------------------------------------------


def make_run(folder: Path, items: int, window: int, attention: str) -> Path:
    """A SASRec of usual size on a synthetic log; what it has learnt is of no matter here."""
    from foretaste.experiments.recipe import Recipe
    from foretaste.experiments.running import train

    rng = np.random.default_rng(0)
    events = 8 * items
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(0, events // 40, events),
            "item_id": [f"i{item:05}" for item in np.arange(events) % items],
            "timestamp": np.sort(rng.integers(1_600_000_000, 1_700_000_000, events)),
        }
    )
    frame.write_parquet(folder / "log.parquet")
    recipe = {
        "data": {"source": str(folder / "log.parquet")},
        "model": {"name": "sasrec", "window": window, "attention": attention},
        "train": {"epochs": 1, "validate_queries": 50},
    }
    return train(Recipe.build(recipe), folder / "sasrec").path


@contextmanager
def serving(run: Path, store: str, *, states: bool) -> Iterator[tuple[str, psutil.Process]]:
    """The service in a process of its own."""
    command = [sys.executable, "-m", "foretaste.cli.main", "serve", str(run), "--store", store]
    command += ["--port", "0", "--json", "--set", f"serve.states={str(states).lower()}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        deadline = time.monotonic() + 120
        while True:
            try:
                urlopen(f"{url}/readyz", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def redis_url(folder: Path) -> Iterator[str]:
    """A Redis of our own on loopback, whose log reaches the disk every second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


def fill(url: str, users: int, length: int, items: int) -> None:
    """Give every user a history, and have a list made for each once."""
    rng = np.random.default_rng(1)
    for user in range(users):
        chosen = rng.integers(0, items, length).tolist()
        begin = 1_650_000_000
        body = [
            {"user_id": f"u{user}", "item_id": f"i{item:05}", "timestamp": begin + 60 * place}
            for place, item in enumerate(chosen)
        ]
        for first in range(0, length, 1_000):
            _post(f"{url}/v1/events", body[first : first + 1_000])
        _post(f"{url}/v1/recommendations", {"user_id": f"u{user}"})


def _post(url: str, body: Any) -> None:
    head = {"content-type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), head), timeout=60) as answer:
        answer.read()


# --- What is measured ----------------------------------------------------------------------------


def passes(report: dict[str, Any]) -> bool:
    return report["failed"] == 0 and report["p99"] < P99_MS


def highest(url: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """The report of the highest rate that passes; None when not even the first does."""
    best, low, high, rate = None, 0.0, float("inf"), FIRST_RATE
    for _ in range(MOST_TRIALS):
        report = drive(url, rate, args.seconds, args.users, args.items)
        print(f"  {json.dumps(report)}", file=sys.stderr, flush=True)
        if passes(report):
            best, low = report, rate
        else:
            high = rate
            time.sleep(2)  # what waited is worked off
        if high / max(low, 1.0) < CLOSE_ENOUGH or (args.smoke and best):
            break
        rate = 2 * low if high == float("inf") else (low + high) / 2
    return best


def measure(run: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each store, with states and without."""
    rows = []
    for kind in args.stores:
        found = {}
        for states in (True, False):
            with tempfile.TemporaryDirectory() as name, _store(kind, Path(name)) as store:
                print(f"{kind}, {'states' if states else 'recompute'}", file=sys.stderr, flush=True)
                with serving(run, store, states=states) as (url, _):
                    fill(url, args.users, args.length, args.items)
                    drive(url, FIRST_RATE, 2, args.users, args.items)  # warm
                    found[states] = highest(url, args)
        for states, report in found.items():
            other = found[False]
            rows.append(
                {
                    "store": kind,
                    "answers from": "kept states" if states else "the whole history",
                    "requests/s": "none passed" if report is None else f"{report['rate']:,.0f}",
                    "p50 ms": "-" if report is None else f"{report['p50']:.1f}",
                    "p99 ms": "-" if report is None else f"{report['p99']:.1f}",
                    "p99 ms of lists": "-" if report is None else f"{report['p99 of lists']:.1f}",
                    "times recompute": "-"
                    if report is None or other is None
                    else f"{report['rate'] / other['rate']:.1f}",
                    "rate": 0.0 if report is None else report["rate"],
                }
            )
    return rows


@contextmanager
def _store(kind: str, folder: Path) -> Iterator[str]:
    if kind == "redis":
        with redis_url(folder) as url:
            yield url
    else:
        yield kind if kind == "memory" else f"lmdb:{folder / 'store'}"


def soak(run: Path, rate: float, args: argparse.Namespace) -> str:
    """A sentence about memory and latency over a long time, on LMDB."""
    samples: list[tuple[float, float]] = []
    reports = []
    with (
        tempfile.TemporaryDirectory() as folder,
        _store("lmdb", Path(folder)) as store,
        serving(run, store, states=True) as (url, process),
    ):
        fill(url, args.users, args.length, args.items)
        end = time.monotonic() + 60 * args.soak
        while time.monotonic() < end:
            stretch = min(30.0, max(5.0, end - time.monotonic()))
            reports.append(drive(url, rate, stretch, args.users, args.items))
            samples.append((time.monotonic(), own_megabytes(process)))
            print(f"  {samples[-1]} {json.dumps(reports[-1])}", file=sys.stderr, flush=True)
    settled = np.array(samples[len(samples) // 4 :])
    slope = np.polyfit(settled[:, 0] / 60, settled[:, 1], 1)[0] if len(settled) > 2 else 0.0
    failed, sent = (sum(report[key] for report in reports) for key in ("failed", "requests"))
    return (
        f"Soak: {args.soak:g} minutes at {rate:,.0f} requests/s on LMDB, {sent:,} requests, "
        f"{failed} failed, worst p99 of a stretch {max(r['p99'] for r in reports):.1f} ms; "
        f"memory of the server (anonymous, without the pages of the store's file) "
        f"{settled[0, 1]:.0f} MB after a quarter of the time, {settled[-1, 1]:.0f} MB at the end, "
        f"{slope:+.2f} MB a minute."
    )


def own_megabytes(process: psutil.Process) -> float:
    """Anonymous memory: pages of LMDB's file come and go with the system's cache."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1_024


def main() -> None:
    """Measure, print, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder; by default a SASRec is made")
    parser.add_argument("--stores", nargs="+", default=["memory", "lmdb", "redis"])
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--length", type=int, default=200, help="events of a user at the start")
    parser.add_argument("--window", type=int, default=200, help="events that an event looks at")
    parser.add_argument("--attention", choices=["full", "collective"], default="full")
    parser.add_argument("--seconds", type=float, default=10, help="of one trial")
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    parser.add_argument("--smoke", action="store_true", help="one trial each, a small catalog")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    if args.smoke:
        args.items, args.users, args.seconds = 500, 50, 3.0
    if "redis" in args.stores and not shutil.which("redis-server"):
        parser.error("redis-server is not installed; leave redis out with --stores memory lmdb")
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or make_run(Path(folder), args.items, args.window, args.attention)
        rows = measure(run, args)
        lmdb = [row["rate"] for row in rows if row["store"] == "lmdb"]
        text = soak(run, max(10.0, lmdb[0] / 2 if lmdb else 10.0), args) if args.soak else ""
    table = [{key: value for key, value in row.items() if key != "rate"} for row in rows]
    about = (
        f"SASRec, {args.attention} attention over {args.window} events; {args.items:,} items, "
        f"{args.users:,} users with {args.length} events each; half of the requests log an event, "
        "half ask for 20 items of the same user; "
        f"trials of {args.seconds:g} s; service and load on {os.cpu_count()} cores. LMDB waits for "
        "the disk at every commit; Redis writes its log to disk every second. "
        "Written by `benchmarks/load.py`."
    )
    write_table(args.out, table, f"{about}\n\n{text}" if text else about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
