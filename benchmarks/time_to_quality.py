"""Seconds of training until each library reaches the quality at which RecBole stops by itself.

    .venv/bin/python benchmarks/time_to_quality.py --data ml-100k.parquet

First RecBole trains by its own rule: a look at validation after every epoch, and an end when ten
in a row found nothing better. Its best NDCG@10 (full catalog, seen items allowed, its own protocol)
is the mark. That takes an hour or more, so it is done once, by the helped RecBole (see
``train_throughput.py``; the same arithmetic, sooner), and what it found is kept in ``--runs``.
Then every library has the machine in turn: RecBole, as it comes and helped, trains for a while to
measure its speed, and its seconds are the targets it had seen at its best, by that speed; the
others train until they pass the mark. Only training counts, not validation.
"""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peers.driving import Worker, write_table
from train_throughput import CONFIG, OF_DATA

STOPPING_STEP = 10  # RecBole's own default
OWN = {"foretaste": {"batch_tokens": 2_000}}  # what validation chose in quality.py
STEPS = {"rectools": 15.0, "rectools, helped": 10.0, "foretaste": 1.0}
"""Seconds of training between two looks at validation."""


def converge(worker: Worker, most: int) -> list[dict[str, float]]:
    """Targets, seconds and validation NDCG@10 after each epoch, until RecBole's rule ends it."""
    points: list[dict[str, float]] = []
    targets = seconds = 0.0
    while len(points) < most and _since_best(points) < STOPPING_STEP:
        done = worker("train_epoch")
        targets, seconds = targets + done["targets"], seconds + done["seconds"]
        points.append({"targets": targets, "seconds": seconds, "ndcg@10": _validate(worker)})
        print(worker.library, len(points), points[-1], flush=True)
    return points


def _since_best(points: list[dict[str, float]]) -> int:
    found = [point["ndcg@10"] for point in points]
    return len(found) - 1 - found.index(max(found)) if found else 0


def _validate(worker: Worker) -> float:
    return worker("evaluate", masked=False, part="valid")["metrics"]["ndcg@10"]


def reach(worker: Worker, step: float, budget: float, mark: float) -> tuple[float, float]:
    """Seconds of training and best NDCG@10 when the mark is passed or the budget spent."""
    spent, best = 0.0, 0.0
    while spent < budget and best < mark:
        spent += worker("train", seconds=step)["seconds"]
        found = _validate(worker)
        best = max(best, found)
        print(worker.library, f"{spent:.0f} s {found:.4f}", flush=True)
    return spent, best


def main() -> None:
    """Measure what is missing, print, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", type=Path, default=Path(".peers"))
    parser.add_argument("--runs", type=Path, default=Path("runs/time_to_quality"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most-epochs", type=int, default=200, help="of RecBole")
    parser.add_argument("--budget", type=float, default=600, help="seconds of each other library")
    parser.add_argument("--seconds", type=float, default=30, help="of RecBole's speed, each form")
    parser.add_argument("--only-converge", action="store_true", help="stop after RecBole's hour")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    config = CONFIG | OF_DATA.get(args.data.stem, {}) | {"threads": args.threads}
    log, kept = args.data.with_suffix(".log"), args.runs / f"{args.data.stem}.json"

    def started(library: str, stack: ExitStack) -> Worker:
        worker = stack.enter_context(Worker(library, args.peers, log))
        worker.load(args.data, config | OWN.get(library, {}))
        return worker

    if not kept.exists():
        with ExitStack() as stack:
            points = converge(started("recbole, helped", stack), args.most_epochs)
        args.runs.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(points, indent=2))
    if args.only_converge:
        return
    points = json.loads(kept.read_text())
    best = max(points, key=lambda point: point["ndcg@10"])
    mark, theirs, rows = best["ndcg@10"], 0.0, []
    for library in ("recbole", "recbole, helped"):
        with ExitStack() as stack:
            worker = started(library, stack)
            worker("train", seconds=10)  # first steps are slow
            done = worker("train", seconds=args.seconds)
        seconds = best["targets"] / (done["targets"] / done["seconds"])
        theirs = theirs or seconds
        rows.append(_row(args.data, library, seconds, mark, theirs))
    for library, step in STEPS.items():
        with ExitStack() as stack:
            seconds, found = reach(started(library, stack), step, args.budget, mark)
        rows.append(_row(args.data, library, seconds, found, theirs, found >= mark))
    about = (
        f"SASRec, {config}, {OWN}; mark: the validation NDCG@10 of RecBole's best epoch, "
        f"{points.index(best) + 1} of {len(points)}, where its own rule "
        f"{'stopped it' if _since_best(points) >= STOPPING_STEP else 'had not stopped it yet'}; "
        "its seconds are that epoch's targets by its speed in this run. Written by "
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
