"""Speed of writing semantic IDs: one user, and a batch; by beams, levels and size of the catalog.

    .venv/bin/python benchmarks/decoding.py

TIGER's beam search, the same beam search over parallel codes, S2GR, and MDGR with every number of
warm-up slots answer the same questions for the same number of items, in turn, in one process. What
is timed depends on shapes, and for a beam search on how soon a prefix is left one item, which it
does not ask about. Networks have their first weights and codes are drawn at random: of 10,000 items
most are alone after two codes of 256. What each way finds is measured by ``generative_quality.py``.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from peers.driving import write_table

from foretaste.codes.opq import OPQConfig
from foretaste.codes.rqkmeans import RQKMeansConfig
from foretaste.codes.table import Codes
from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.core.registry import find

NETWORK: dict[str, Any] = {"dim": 64, "layers": 2, "decoder_layers": 2, "heads": 2}
HISTORY = 20
K = 10


class Way(NamedTuple):
    """A way to answer; ``ordered`` says whether its codes are residual or parallel."""

    name: str
    model: str
    ordered: bool
    parameters: dict[str, Any] = {}  # noqa: RUF012 - never written on


def ways(levels: int) -> list[Way]:
    """Those compared, the reference first."""
    found = [
        Way("TIGER, beam", "tiger", ordered=True),
        Way("autoregressive over parallel codes", "tiger", ordered=False),
        Way("S2GR, a thought before each code", "s2gr", ordered=True),
        Way("S2GR, blank thoughts", "s2gr", True, {"thinking": "blank"}),
    ]
    return found + [
        Way(f"MDGR, {slots} warm-up", "mdgr", False, {"warm_up": slots, "warm_beams": 8})
        for slots in range(levels + 1)
    ]


def made(way: Way, items: int, levels: int, size: int, beams: int, reads: str) -> Generator:
    """A model of this shape that has learnt nothing."""
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, size, (items + items // 8, levels)), axis=0)
    table = rng.permutation(rows)[:items].astype(np.int32)
    if len(table) < items:
        raise SystemExit(f"{size} codes at {levels} levels are too few for {items:,} items")
    ids = pl.Series("item_id", [str(number) for number in range(items)])
    books = tuple(rng.normal(size=(size, 8)).astype(np.float32) for _ in range(levels))
    tokenizer = (RQKMeansConfig if way.ordered else OPQConfig)(levels=levels, size=size)
    shape = NETWORK | {"reads": reads, "beams": beams, "codes": CodingConfig(tokenizer=tokenizer)}
    model = find(way.model)(**shape, **way.parameters)
    assert isinstance(model, Generator)
    model.codes = Codes(ids, table, (size,) * levels, table, books, way.ordered)
    model.catalog = Catalog.from_items(ids, None)
    model.popularity = rng.zipf(1.5, items)
    torch.manual_seed(0)
    model.network = model._network(model.codes).eval()
    return model


def median_of(asks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(rounds + 1):
        for name, ask in asks.items():
            begin = time.perf_counter()
            ask()
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(found)) for name, found in seconds.items()}


def measure(
    items: int, levels: int, size: int, beams: int, reads: str, rounds: int
) -> list[dict[str, Any]]:
    """Rows of one shape."""
    rng = np.random.default_rng(1)
    models = {way.name: made(way, items, levels, size, beams, reads) for way in ways(levels)}
    one = Sequences.from_lists([rng.integers(0, items, HISTORY)])
    many = Sequences.from_lists([rng.integers(0, items, HISTORY) for _ in range(64)])
    asked = {"one": one, "many": many}
    found = {
        kind: median_of(
            {
                name: (lambda m=model, q=queries: m.recommend(q, K))
                for name, model in models.items()
            },
            rounds,
        )
        for kind, queries in asked.items()
    }
    reference = next(iter(models))
    return [
        {
            "items": f"{items:,}",
            "levels": levels,
            "beams": beams,
            "reads": reads,
            "way": name,
            "one user, ms": f"{1000 * found['one'][name]:.1f}",
            "faster than TIGER by": f"{found['one'][reference] / found['one'][name]:.2f}x",
            "64 users, users/s": f"{64 / found['many'][name]:,.0f}",
            "faster by": f"{found['many'][reference] / found['many'][name]:.2f}x",
        }
        for name in models
    ]


def main() -> None:
    """Measure, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    first = args.items[0]
    for items in args.items:
        rows += measure(items, 4, 256, 30, "codes", args.rounds)
    for beams in (10, 100):
        rows += measure(first, 4, 256, beams, "codes", args.rounds)
    rows += measure(first, 8, 256, 30, "codes", args.rounds)
    rows += measure(first, 4, 256, 30, "items", args.rounds)
    about = (
        f"The {K} best of a catalog for histories of {HISTORY} items; width 64, 2 + 2 blocks, "
        f"{args.threads} thread; medians of {args.rounds} rounds in turn, the whole answer from "
        "history to list. Written by `benchmarks/decoding.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
