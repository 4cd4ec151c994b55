"""Seconds of training until each library reaches the quality that RecBole reaches in its budget.

    .venv/bin/python benchmarks/time_to_quality.py --data ml-100k.parquet --budget 600

RecBole, as it comes, trains for the budget and is measured on validation now and then; its best
NDCG@10 (full catalog, seen items allowed, its own protocol) is the mark. Then the others train
until they pass it, the peers as they come and helped (see ``train_throughput.py``). Only training
counts, not validation. RecBole has no pass over the data in a short budget, so unless the budget is
hours long the mark is what it has reached by then, not where it converges.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peers.driving import Worker, write_table
from train_throughput import CONFIG, OF_DATA

RECBOLE = "recbole"
OWN = {"foretaste": {"batch_tokens": 2_000}}  # what validation chose in quality.py
STEPS = {"recbole, helped": 10.0, "rectools": 5.0, "rectools, helped": 5.0, "foretaste": 0.5}
"""Seconds of training between two looks at validation."""


def curve(worker: Worker, step: float, budget: float, mark: float) -> list[tuple[float, float]]:
    """(seconds of training, validation NDCG@10) until the budget is spent or the mark is passed."""
    points, spent = [], 0.0
    while spent < budget:
        spent += worker("train", seconds=step)["seconds"]
        found = worker("evaluate", masked=False, part="valid")["metrics"]["ndcg@10"]
        points.append((spent, found))
        print(worker.library, f"{spent:.0f} s {found:.4f}", flush=True)
        if found >= mark:
            break
    return points


def main() -> None:
    """Measure, print, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", type=Path, default=Path(".peers"))
    parser.add_argument("--budget", type=float, default=600, help="seconds of RecBole")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    config = CONFIG | OF_DATA.get(args.data.stem, {})
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        log = args.data.with_suffix(".log")
        workers = {
            one: stack.enter_context(Worker(one, args.peers, log)) for one in (RECBOLE, *STEPS)
        }
        for library, worker in workers.items():
            worker.load(args.data, config | OWN.get(library, {}))
        theirs = curve(workers[RECBOLE], args.budget / 10, args.budget, float("inf"))
        seconds, mark = max(theirs, key=lambda point: point[1])
        rows.append(_row(args.data, RECBOLE, seconds, mark, seconds))
        for library, step in STEPS.items():
            points = curve(workers[library], step, args.budget, mark)
            reached, found = points[-1]
            rows.append(_row(args.data, library, reached, found, seconds, found >= mark))
    about = (
        f"SASRec, {config}, {OWN}; mark: RecBole's best validation NDCG@10 within "
        f"{args.budget:.0f} s of training (not its convergence). Written by "
        "`benchmarks/time_to_quality.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


def _row(
    data: Path, library: str, seconds: float, ndcg: float, recbole: float, reached: bool = True
) -> dict[str, Any]:
    return {
        "data": data.stem,
        "library": library,
        "validation NDCG@10": f"{ndcg:.4f}",
        "seconds of training": f"{seconds:.1f}" if reached else f"not in {seconds:.0f}",
        "sooner than RecBole by": f"{recbole / seconds:.0f}x" if reached else "-",
    }


if __name__ == "__main__":
    main()
