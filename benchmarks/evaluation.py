"""Full-catalog evaluation: Foretaste, RecTools and RecBole in turn, and the same figures of all.

    .venv/bin/python benchmarks/evaluation.py --data ml-100k.parquet --data beauty.parquet

Each library scores, ranks and measures the test users of its own briefly trained SASRec of the
same size, by its own means, from the same last events. Two layers of ours can look back on more of
them, which is a row of its own. On given scores the three must agree on HR@10 and NDCG@10.
"""

import argparse
import itertools
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from peers.driving import LIBRARIES, Worker, write_table
from train_throughput import CONFIG, OF_DATA

WHOLE = "foretaste, all it reads"


def measure(
    data: Path, peers: Path, libraries: list[str], rounds: int
) -> tuple[dict[tuple[str, bool], list[float]], dict[str, dict[str, float]]]:
    """Users a second by library and masking, and each library's figures on the same scores."""
    speeds: dict[tuple[str, bool], list[float]] = {}
    figures = {}
    with ExitStack() as stack:
        log = data.with_suffix(".log")
        workers = {one: stack.enter_context(Worker(one, peers, log)) for one in libraries}
        for worker in workers.values():
            config = CONFIG | OF_DATA.get(data.stem, {})
            worker.load(data, config)
            worker("train", seconds=1)
            worker("evaluate", masked=False, part="test")  # warm
        for _ in range(rounds):
            for library, worker in workers.items():
                ways: dict[str, dict[str, int]] = {library: {}}
                if library == "foretaste":
                    ways = {library: {"events": CONFIG["max_len"]}, WHOLE: {}}
                for (way, more), masked in itertools.product(ways.items(), (False, True)):
                    done = worker("evaluate", masked=masked, part="test", seconds_only=True, **more)
                    rate = done["users"] / done["seconds"]
                    speeds.setdefault((way, masked), []).append(rate)
        with tempfile.TemporaryDirectory() as folder:
            paths = _scores(Path(folder))
            for library, worker in workers.items():
                figures[library] = worker("score_metrics", **paths)["metrics"]
        figures[WHOLE] = figures["foretaste"]
    return speeds, figures


def _scores(folder: Path) -> dict[str, str]:
    """Random scores without ties, in which targets do better than chance."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((5_000, 2_000)).astype(np.float32)
    targets = rng.integers(0, 2_000, 5_000)
    scores[np.arange(5_000), targets] += 2
    np.save(folder / "scores.npy", scores)
    np.save(folder / "targets.npy", targets)
    return {"scores": str(folder / "scores.npy"), "targets": str(folder / "targets.npy")}


def main() -> None:
    """Measure, print, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--peers", type=Path, default=Path(".peers"))
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for data in args.data:
        speeds, figures = measure(data, args.peers, args.libraries, args.rounds)
        for (library, masked), rates in speeds.items():
            ours = speeds["foretaste", masked]
            ratio = statistics.median(a / b for a, b in zip(ours, rates, strict=True))
            rows.append(
                {
                    "data": data.stem,
                    "library": library,
                    "seen items": "left out" if masked else "allowed",
                    "users/s": float(round(statistics.median(rates))),
                    "Foretaste is faster by": f"{ratio:.1f}x",
                    "NDCG@10 on given scores": f"{figures[library]['ndcg@10']:.12f}",
                    "HR@10 on given scores": f"{figures[library]['hr@10']:.12f}",
                }
            )
        print(rows[-6:], flush=True)
    about = (
        f"Scoring, ranking and measuring all test users; SASRec, {CONFIG}; median of "
        f"{args.rounds} rounds in turn. Written by `benchmarks/evaluation.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
