"""Top-100 of 10 thousand to 1 million items: exact, against reading the matrix, and by an index.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/topk.py

The exact part takes turns between Foretaste, PyTorch's product and top-k, faiss's flat index, and
several ways of reading the matrix once, of which the fastest counts; one process for one thread and
one for two. The approximate part builds both kinds of ``ItemIndex`` of a million clustered vectors
and takes turns between them and the exact answer, one query at a time. Without faiss only the
first two are measured.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.driving import write_table
from torch import Tensor

K, DIM = 100, 64
ITEMS = (10_000, 100_000, 1_000_000)
BATCHES = (1, 8, 64)
EFFORTS = {"ivf": (8, 32, 128, 512), "hnsw": (200, 400, 800, 1_600)}
HAS_FAISS = importlib.util.find_spec("faiss") is not None


def turns(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median milliseconds of each call, made in turn for so long and at least nine times.

    Every round has an order of its own: what a call finds in cache, the one before it left there.
    """
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 9 or (time.perf_counter() < end and rounds < 1_000):
        for name in rng.permutation(list(calls)):
            begin = time.perf_counter()
            calls[name]()
            times[name].append(1e3 * (time.perf_counter() - begin))
        rounds += 1
    return {name: statistics.median(taken) for name, taken in times.items()}


def readers(weight: Tensor, pool: ThreadPoolExecutor, threads: int) -> dict[str, Callable]:
    """Ways of reading every byte of a matrix once."""
    flat, whole = weight.view(-1), weight.numpy().reshape(-1).view(np.int64)
    parts = np.array_split(whole, threads)
    return {
        "sum": flat.sum,
        "maximum": flat.amax,
        "sum of integers": flat.view(torch.int64).sum,
        "or": lambda: list(pool.map(np.bitwise_or.reduce, parts)),
        "or in this thread": lambda: np.bitwise_or.reduce(whole),
    }


def measure_exact(threads: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each catalog and batch, in this process."""
    from foretaste.nn.topk import top_k

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    rows = []
    for items in ITEMS:
        weight = torch.randn(items, DIM)
        flat = _flat(weight, threads)
        for batch in BATCHES:
            vectors = torch.randn(batch, DIM)
            with ThreadPoolExecutor(threads) as pool:
                reading = readers(weight, pool, threads)
                calls: dict[str, Callable[[], Any]] = {
                    "ours": partial(top_k, vectors, weight, K),
                    "plain": lambda v=vectors, w=weight: (v @ w.T).topk(K),
                }
                if flat is not None:
                    calls["flat"] = partial(flat.search, vectors.numpy(), K)
                took = turns(reading | calls, seconds)
            _agree(calls["ours"](), calls["plain"]())
            read = min(took[name] for name in reading)
            row = {
                "threads": threads,
                "items": f"{items:,}",
                "queries": batch,
                "reading, ms": read,
                "Foretaste, ms": took["ours"],
                "PyTorch, ms": took["plain"],
                "faiss flat, ms": took.get("flat", "-"),
                "Foretaste / reading": f"{took['ours'] / read:.2f}",
                "PyTorch / Foretaste": f"{took['plain'] / took['ours']:.2f}",
            }
            if flat is not None:
                row["faiss flat / Foretaste"] = f"{took['flat'] / took['ours']:.2f}"
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def _flat(weight: Tensor, threads: int) -> Any:
    if not HAS_FAISS:
        return None
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(DIM)
    index.add(weight.numpy())
    return index


def _agree(ours: Any, plain: Any) -> None:
    """What is timed must be the answer."""
    torch.testing.assert_close(ours.values, plain.values)
    assert (ours.indices == plain.indices).float().mean() > 0.99


def clustered(items: int, queries: int = 200) -> tuple[Tensor, Tensor]:
    """Item vectors in 5,000 clusters, large and small, of unequal lengths, and queries near items.

    Centres are normal; their shares fall as Zipf's law with exponent 0.8; an item is its centre
    plus 0.7 times a normal vector, times a log-normal length (sigma 0.2); a query is a random item
    plus 0.5 times a normal vector.
    """
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 5_001) ** 0.8
    centres = rng.standard_normal((5_000, DIM), dtype=np.float32)
    weight = 0.7 * rng.standard_normal((items, DIM), dtype=np.float32)
    weight += centres[rng.choice(5_000, items, p=share / share.sum())]
    weight *= rng.lognormal(0, 0.2, (items, 1)).astype(np.float32)
    vectors = 0.5 * rng.standard_normal((queries, DIM), dtype=np.float32)
    vectors += weight[rng.integers(items, size=queries)]
    return torch.from_numpy(vectors), torch.from_numpy(weight)


def measure_index(items: int, kinds: list[str], seconds: float) -> list[dict[str, Any]]:
    """A row for each kind and effort, in this process."""
    from foretaste.nn.item_index import ItemIndex
    from foretaste.nn.topk import top_k

    vectors, weight = clustered(items)
    rows = []
    for kind in kinds:
        begin = time.perf_counter()
        index = ItemIndex.build(weight, kind)  # type: ignore[arg-type]
        built = time.perf_counter() - begin
        megabytes = sum(array.nbytes for array in index.arrays().values()) / 1e6
        for effort in EFFORTS[kind]:
            index.effort = effort
            asked = iter(range(10**9))

            def one(asked=asked) -> Tensor:
                place = next(asked) % len(vectors)
                return vectors[place : place + 1]

            took = turns(
                {
                    "index": lambda index=index, one=one: index.top_k(one(), K),
                    "exact": lambda one=one: top_k(one(), weight, K, threads=1),
                },
                seconds,
            )
            rows.append(
                {
                    "items": f"{items:,}",
                    "index": kind,
                    "built, s": built,
                    "size, MB": megabytes,
                    "effort": effort,
                    f"recall@{K}": index.recall(vectors, K),
                    "one query, ms": took["index"],
                    "exact, ms": took["exact"],
                    "faster by": f"{took['exact'] / took['index']:.1f}x",
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _in_process(threads: int, arguments: list[str]) -> list[dict[str, Any]]:
    """The rows of a process with so many threads for every library."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    return json.loads(done.stdout)


def main() -> None:
    """Measure in processes of their own and write the tables beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each cell")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="*", default=list(EFFORTS), help="of approximate index")
    parser.add_argument("--items", type=int, default=1_000_000, help="of the approximate part")
    parser.add_argument("--part", choices=["exact", "index"], help="measure this in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    if args.part == "exact":
        print(json.dumps(measure_exact(args.threads[0], args.seconds)))
        return
    if args.part == "index":
        print(json.dumps(measure_index(args.items, args.kinds, args.seconds)))
        return
    seconds = ["--seconds", str(args.seconds)]
    rows = []
    for threads in args.threads:
        part = ["--part", "exact", "--threads", str(threads)]
        rows += _in_process(threads, [*part, *seconds])
    about = (
        f"Top {K} of random vectors, dim {DIM}, float32; median of turns of {args.seconds:g} s a "
        "row; reading is the fastest of five reductions over the matrix. Written by "
        "`benchmarks/topk.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())
    if not HAS_FAISS or not args.kinds:
        return
    part = ["--part", "index", "--items", str(args.items), "--kinds", *args.kinds]
    rows = _in_process(max(args.threads), [*part, *seconds])
    about = (
        f"`ItemIndex` of clustered vectors, dim {DIM} (5,000 Zipf-sized clusters, noise 0.7 of a "
        "centre's spread, log-normal lengths); 200 queries near items, one at a time, exact "
        f"re-scoring included; built by {max(args.threads)} threads, asked by one. Written by "
        "`benchmarks/topk.py`."
    )
    out = args.out.with_stem(args.out.stem + "_index")
    write_table(out, rows, about)
    print(out.read_text())


if __name__ == "__main__":
    main()
