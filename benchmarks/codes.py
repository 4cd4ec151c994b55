"""Codes: time and memory of the four tokenizers for 100 thousand and a million items, the trie.

    .venv/bin/python benchmarks/codes.py

Vectors are made: 10,000 clusters in 128 dimensions, mapped from a file. Each time is that of a
process of its own; "CPU, s" is what all its threads computed together, which a busy machine does
not change. Peak memory is that of the whole process. How good codes of real items are is measured
by ``codebooks.py``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers.driving import write_table

TOKENIZERS = ("rqkmeans", "rqvae", "coba", "opq")
HERE = Path(__file__).resolve()


def make_vectors(path: Path, items: int, width: int = 128) -> None:
    """Clustered unit vectors, written a part at a time."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10_000, width)).astype(np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (items, width))
    for first in range(0, items, 100_000):
        own = centres[rng.integers(10_000, size=min(100_000, items - first))]
        own = own + 0.5 * rng.standard_normal(own.shape).astype(np.float32)
        out[first : first + len(own)] = own / np.linalg.norm(own, axis=1, keepdims=True)
    out.flush()


def timing(name: str, path: Path) -> dict[str, Any]:
    """One tokenizer on made vectors: time and memory."""
    from foretaste.codes.tokenizer import FitContext, find
    from foretaste.data.sequences import Sequences, offsets_of
    from foretaste.experiments.machine import peak_memory

    vectors = np.load(path, mmap_mode="r")
    rng = np.random.default_rng(0)
    users = len(vectors) // 2
    histories = Sequences(
        rng.integers(len(vectors), size=10 * users, dtype=np.int32),
        offsets_of(np.full(users, 10)),
    )
    tokenizer = find(name)()
    computed, begin = time.process_time(), time.perf_counter()
    codes = tokenizer.fit(
        vectors,
        sequences=histories if name == "coba" else None,
        context=FitContext(0, "cpu"),
    )
    seconds, computed = time.perf_counter() - begin, time.process_time() - computed
    new = np.array(vectors[:1_000]) + np.float32(0.01)
    again = time.process_time()
    tokenizer.assign(new)
    return {
        "items": f"{len(vectors):,}",
        "fit, s": f"{seconds:.0f}",
        "CPU, s": f"{computed:.0f}",
        "moved": f"{codes.moved.mean():.1%}",
        "1,000 new items, CPU ms": f"{1e3 * (time.process_time() - again):.0f}",
        "peak, GB": f"{peak_memory() / 1e9:.2f}",
    }


def search(items: int) -> list[dict[str, Any]]:
    """Trie and slot index of random codes, 4 levels of 256: build, memory, a step, a scoring."""
    import torch

    from foretaste.codes.parallel import SlotIndex
    from foretaste.codes.trie import Trie

    rng = np.random.default_rng(0)
    table = np.unique(rng.integers(0, 256, (items + items // 20, 4), np.int32), axis=0)
    table = table[rng.permutation(len(table))[:items]]
    rows = []
    begin = time.process_time()
    trie = Trie.from_table(table)
    built = time.process_time() - begin
    states = trie.step(trie.start(256), torch.from_numpy(table[:256, 0]).long())
    tokens = torch.from_numpy(table[:256, 1]).long()

    def go_on() -> None:
        trie.mask(trie.step(states, tokens), 256)

    rows.append(_index_row("trie", trie.nbytes, items, built, "256 steps with masks", go_on))
    begin = time.process_time()
    index = SlotIndex.from_table(table, 256)
    built = time.process_time() - begin
    log_probs = torch.randn(1, 4, 256).log_softmax(2)

    def score() -> None:
        index.top_items(log_probs, 10)

    rows.append(_index_row("slots", index.nbytes, items, built, "best 10 of all items", score))
    return rows


def _index_row(
    name: str, size: int, items: int, built: float, what: str, work: Any
) -> dict[str, Any]:
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return {
        "index": name,
        "items": f"{items:,}",
        "MB": f"{size / 1e6:.1f}",
        "bytes an item and level": f"{size / items / 4:.1f}",
        "build, CPU s": f"{built:.1f}",
        "asked": what,
        "ms": f"{1e3 * min(times):.2f}",
    }


def _alone(*arguments: str) -> Any:
    """This script in a process of its own."""
    command = [sys.executable, str(HERE), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


ABOUT = {
    "timing": "Clustered vectors of 128 numbers, mapped from a file; default settings, one thread. "
    "Written by `benchmarks/codes.py`.",
    "search": "Random codes, 4 levels of 256, one thread; ms are the best of 20. Written by "
    "`benchmarks/codes.py`.",
}


def measured(args: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Part, key and row of everything that was asked for, one after the other."""
    if "timing" in args.parts:
        for items in args.sizes:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "vectors.npy"
                make_vectors(path, items)
                for name in args.only:
                    found = _alone("--measure", "timing", name, str(path))
                    yield "timing", f"{items:9} {name}", {"tokenizer": name, **found}
    if "search" in args.parts:
        for items in args.sizes:
            for row in _alone("--measure", "search", str(items)):
                yield "search", f"{items:9} {row['index']}", row


def main() -> None:
    """Measure what is asked for and write the tables beside this script.

    Rows are kept in ``results/raw/codes.json``, so that parts can be measured one at a time.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", choices=ABOUT, nargs="*", default=list(ABOUT))
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--only", choices=TOKENIZERS, nargs="*", default=TOKENIZERS)
    parser.add_argument("--measure", nargs="*", help="used by this script itself")
    args = parser.parse_args()
    if args.measure:
        kind, *rest = args.measure
        timed = kind == "timing"
        result: Any = timing(rest[0], Path(rest[1])) if timed else search(int(rest[0]))
        print(json.dumps(result))
        return
    raw = HERE.parent / "results" / "raw" / "codes.json"
    kept = json.loads(raw.read_text()) if raw.exists() else {}
    for part, key, row in measured(args):
        print(row, flush=True)
        kept.setdefault(part, {})[key] = row
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_text(json.dumps(kept, indent=1))
    for part, rows in ((part, kept[part]) for part in ABOUT if part in kept):
        path = HERE.with_suffix(".md") if part == "timing" else HERE.with_name(f"codes_{part}.md")
        write_table(path, [rows[key] for key in sorted(rows)], ABOUT[part])


if __name__ == "__main__":
    main()
