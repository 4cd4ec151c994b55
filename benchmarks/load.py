"""How many requests a second the service answers with 99 % of them within 50 ms.

    .venv/bin/python benchmarks/load.py                      # memory, LMDB, Redis; 11 minutes
    .venv/bin/python benchmarks/load.py --attention collective --out load_collective.md
    .venv/bin/python benchmarks/load.py --soak 30 --rate 400 # half an hour at that rate, on LMDB
    .venv/bin/python benchmarks/load.py --smoke              # a minute or two, to see that it runs

``open_loop.py`` sends requests at a constant rate from a process of its own. A rate is passed when
99 % of all requests, events and lists together, are answered within 50 ms and none is refused. The
highest rate is searched by doubling, then by halving the interval, from kept states and from the
whole history. ``--minutes`` is shared by all searches: one that has used its part ends with the
interval that it has, and the table tells it. A soak without ``--rate`` comes after the searches, at
half of what LMDB bore; each of its minutes is a line of ``load_soak.md``.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
import polars as pl
import psutil
from open_loop import drive
from peers.driving import write_table

P99_MS = 50.0
MOST_TRIALS = 14
FIRST_RATE, LEAST_RATE = 200.0, 5.0
WARM_RATE = 50.0
GRACE = 45.0
"""Seconds over its time that a search may look for any rate that passes."""

FILLERS = 8
"""Threads that give users their histories; the service computes their lists together."""

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


def fill(url: str, args: argparse.Namespace, *, lists: bool) -> None:
    """Give every user a history and, with ``lists``, have one made for each, so that it is kept."""
    chosen = np.random.default_rng(1).integers(0, args.items, (args.users, args.length)).tolist()
    begin = 1_650_000_000
    events = [
        {"user_id": f"u{user}", "item_id": f"i{item:05}", "timestamp": begin + 60 * place}
        for user, items in enumerate(chosen)
        for place, item in enumerate(items)
    ]
    for first in range(0, len(events), 1_000):
        _post(f"{url}/v1/events", events[first : first + 1_000])
    if lists:
        with ThreadPoolExecutor(FILLERS) as pool:
            bodies = [{"user_id": f"u{user}"} for user in range(args.users)]
            list(pool.map(lambda body: _post(f"{url}/v1/recommendations", body), bodies))


def _post(url: str, body: Any) -> None:
    head = {"content-type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), head), timeout=60) as answer:
        answer.read()


# --- What is measured ----------------------------------------------------------------------------


def passes(report: dict[str, Any]) -> bool:
    return report["failed"] == 0 and report["p99"] < P99_MS


class Search(NamedTuple):
    """The report of the highest rate that passed, None for none; the lowest rate that failed."""

    best: dict[str, Any] | None
    failed: float


def highest(url: str, args: argparse.Namespace, end: float) -> Search:
    """Search until the interval is narrow, or the clock says ``end``."""
    best, low, high, rate = None, 0.0, float("inf"), FIRST_RATE
    for _ in range(MOST_TRIALS):
        report = drive(url, rate, args.seconds, args.users, args.items)
        print(f"  {json.dumps(report)}", file=sys.stderr, flush=True)
        if passes(report):
            best, low = report, rate
        else:
            high = rate
            time.sleep(2)  # what waited is worked off
        if high < CLOSE_ENOUGH * low or high < LEAST_RATE or (args.smoke and best):
            break
        late = time.monotonic() + args.seconds + 2 - end
        if late > (0 if best else GRACE):
            break
        rate = 2 * low if high == float("inf") else (low + high) / 2
    return Search(best, high)


def measure(run: Path, args: argparse.Namespace, end: float) -> list[dict[str, Any]]:
    """A row for each store, with states and without, all searches together by ``end``."""
    asked = [(kind, states) for kind in args.stores for states in (True, False)]
    found: dict[tuple[str, bool], Search] = {}
    for place, (kind, states) in enumerate(asked):
        now = time.monotonic()
        until = now + (end - now) / (len(asked) - place)
        with tempfile.TemporaryDirectory() as name, _store(kind, Path(name)) as store:
            print(f"{kind}, {'states' if states else 'recompute'}", file=sys.stderr, flush=True)
            with serving(run, store, states=states) as (url, _):
                fill(url, args, lists=states)
                drive(url, WARM_RATE, 2, args.users, args.items)
                found[kind, states] = highest(url, args, until)
    return [row(kind, states, found) for kind, states in asked]


def row(kind: str, states: bool, found: dict[tuple[str, bool], Search]) -> dict[str, Any]:
    """What one search came to; "rate" is for what follows."""
    (report, failed), (other, _) = found[kind, states], found[kind, False]
    shown = {"store": kind, "answers from": "kept states" if states else "the whole history"}
    if report is None:
        names = ("p50 ms", "p99 ms", "p99 ms of lists", "times recompute")
        none = {"requests/s": "none passed", "failed at": f"{failed:,.0f}"}
        return shown | none | dict.fromkeys(names, "-") | {"rate": 0.0}
    return shown | {
        "requests/s": f"{report['rate']:,.0f}",
        "failed at": "-" if failed == float("inf") else f"{failed:,.0f}",
        "p50 ms": f"{report['p50']:.1f}",
        "p99 ms": f"{report['p99']:.1f}",
        "p99 ms of lists": f"{report['p99 of lists']:.1f}",
        "times recompute": "-" if other is None else f"{report['rate'] / other['rate']:.1f}",
        "rate": report["rate"],
    }


@contextmanager
def _store(kind: str, folder: Path) -> Iterator[str]:
    if kind == "redis":
        with redis_url(folder) as url:
            yield url
    else:
        yield kind if kind == "memory" else f"lmdb:{folder / 'store'}"


def soak(run: Path, rate: float, args: argparse.Namespace) -> str:
    """A sentence about a long time on LMDB; its minutes go into ``load_soak.md``."""
    rows: list[dict[str, Any]] = []
    memory: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        _store("lmdb", Path(folder)) as store,
        serving(run, store, states=True) as (url, process),
    ):
        fill(url, args, lists=True)
        for minute in range(1, max(1, round(args.soak)) + 1):
            report = drive(url, rate, 6 if args.smoke else 60, args.users, args.items)
            memory.append(own_megabytes(process))
            rows.append(
                {
                    "minute": minute,
                    "requests": report["requests"],
                    "failed": report["failed"],
                    "p50 ms": f"{report['p50']:.1f}",
                    "p99 ms": f"{report['p99']:.1f}",
                    "own memory, MB": f"{memory[-1]:.0f}",
                }
            )
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    settled = memory[len(memory) // 4 :]
    slope = np.polyfit(range(len(settled)), settled, 1)[0] if len(settled) > 2 else 0.0
    failed, sent = (sum(one[key] for one in rows) for key in ("failed", "requests"))
    worst = max(float(one["p99 ms"]) for one in rows)
    text = (
        f"Soak: {len(rows)} minutes at {rate:,.0f} requests/s on LMDB, {sent:,} requests, "
        f"{failed} failed, worst p99 of a minute {worst:.1f} ms; memory of the server (anonymous, "
        "without the pages of the store's file) "
        f"{settled[0]:.0f} MB after a quarter of the time, {settled[-1]:.0f} MB at the end, "
        f"{slope:+.2f} MB a minute."
    )
    write_table(args.out.with_name("load_soak.md"), rows, f"{text} {_about(args)}")
    return text


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
    parser.add_argument("--seconds", type=float, default=8, help="of one trial")
    parser.add_argument("--minutes", type=float, default=10.5, help="of all searches together")
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    parser.add_argument("--rate", type=float, help="of the soak, in requests/s; without searches")
    parser.add_argument("--smoke", action="store_true", help="one trial each, a small catalog")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    if args.smoke:
        args.items, args.users, args.seconds = 500, 50, 3.0
    if args.rate and not args.soak:
        parser.error("--rate is of the soak: give its --soak MINUTES")
    if not args.rate and "redis" in args.stores and not shutil.which("redis-server"):
        parser.error("redis-server is not installed; leave redis out with --stores memory lmdb")
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or make_run(Path(folder), args.items, args.window, args.attention)
        if args.rate:
            print(soak(run, args.rate, args))
            return
        rows = measure(run, args, end)
        lmdb = [row["rate"] for row in rows if row["store"] == "lmdb"]
        text = soak(run, max(10.0, lmdb[0] / 2 if lmdb else 10.0), args) if args.soak else ""
    table = [{key: value for key, value in row.items() if key != "rate"} for row in rows]
    write_table(args.out, table, f"{_about(args)}\n\n{text}" if text else _about(args))
    print(args.out.read_text())


def _about(args: argparse.Namespace) -> str:
    """What was measured, and how."""
    return (
        f"SASRec, {args.attention} attention over {args.window} events; {args.items:,} items, "
        f"{args.users:,} users with {args.length} events each; half of the requests log an event, "
        "half ask for 20 items of the same user; "
        f"trials of {args.seconds:g} s; service and load on {os.cpu_count()} cores. LMDB waits for "
        "the disk at every commit; Redis writes its log to disk every second. "
        "Written by `benchmarks/load.py`."
    )


if __name__ == "__main__":
    main()
