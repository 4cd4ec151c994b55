"""Training speed: Foretaste, RecTools and RecBole in turn, in one run, each in its own process.

    make bench-peers
    .venv/bin/python benchmarks/train_throughput.py --data ml-100k.parquet --data beauty.parquet

The data comes from ``benchmarks/peers/prepare.py``. Each round gives every library the machine
for a while, alone; machines are noisy, so what is claimed is the median of the rounds' ratios. The
rate of a float32 matrix product is measured in every round, by the same process as Foretaste.

A target is a next item that the loss is computed for. RecBole makes one training row of each
prefix, so that it reads a whole window for every target; that is its way, and a part of its speed.
"""

import argparse
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peers.driving import LIBRARIES, Worker, write_table

CONFIG: dict[str, Any] = {"dim": 64, "layers": 2, "heads": 2, "max_len": 50, "threads": 2}
OF_DATA = {"ml-100k": {"dropout": 0.2}, "beauty": {"dropout": 0.5, "batch_tokens": 1_600}}


def measure(data: Path, peers: Path, libraries: list[str], rounds: int, seconds: float) -> dict:
    """Targets a second of every library in every round, and the matrix rate."""
    log = data.with_suffix(".log")
    rates: dict[str, list[float]] = {library: [] for library in (*libraries, "matmul")}
    facts: dict[str, Any] = {}
    with ExitStack() as stack:
        workers = {one: stack.enter_context(Worker(one, peers, log)) for one in libraries}
        config = CONFIG | OF_DATA.get(data.stem, {})
        for library, worker in workers.items():
            facts[library] = worker.load(data, config)
            worker("train", seconds=min(seconds, 15))  # first steps are slow
        for number in range(rounds):
            rates["matmul"].append(workers["foretaste"]("matmul")["flops"])
            for library, worker in workers.items():
                done = worker("train", seconds=seconds)
                rates[library].append(done["targets"] / done["seconds"])
            print(number, {name: round(values[-1]) for name, values in rates.items()}, flush=True)
    return {"rates": rates, "facts": facts}


def summarise(data: Path, found: dict, libraries: list[str]) -> list[dict[str, Any]]:
    """One row for each library: median speed, ratio, and use of the matrix rate."""
    ours, rows = found["rates"]["foretaste"], []
    for library in libraries:
        theirs = found["rates"][library]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        row: dict[str, Any] = {
            "data": data.stem,
            "library": library,
            "version": found["facts"][library]["versions"][library.split(",")[0]],
            "targets/s": float(round(statistics.median(theirs))),
            "lowest": float(round(min(theirs))),
            "highest": float(round(max(theirs))),
            "Foretaste is faster by": f"{statistics.median(ratios):.1f}x",
            "share of matrix rate": "",
        }
        if library == "foretaste":
            flops = found["facts"]["foretaste"]["flops_per_target"]
            pairs = zip(ours, found["rates"]["matmul"], strict=True)
            used = statistics.median(rate * flops / matmul for rate, matmul in pairs)
            row["share of matrix rate"] = f"{used:.0%}"
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--peers", type=Path, default=Path(".peers"))
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    rows = []
    for data in args.data:
        found = measure(data, args.peers, args.libraries, args.rounds, args.seconds)
        rows += summarise(data, found, args.libraries)
    about = (
        f"SASRec, {CONFIG}, {OF_DATA}; {args.rounds} rounds of {args.seconds:.0f} s in turn. Peers "
        "as they come and helped: buffers kept by malloc settings, and RecBole's anomaly "
        "detection, which its import switches on, off. Written by "
        "`benchmarks/train_throughput.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
