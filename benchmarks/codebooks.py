"""S2GR's codebook (CoBa) beside RQ-VAE, residual k-means and OPQ: what the codes are like.

    .venv/bin/python benchmarks/codebooks.py --amazon amazon18-office amazon18-industrial

MovieTweetings is embedded; the two Amazon folders are read as ``amazon18.py`` says. Items are those
of the training part; their texts (titles; on MovieTweetings genres too, on Industrial
descriptions too) become 128 numbers by TF-IDF and SVD. Every tokenizer gets 3 levels (OPQ: slots)
of 256 codes and its own defaults. Each figure is the mean of three seeds and their standard
deviation. Faiss's OPQ (one seed, 50 rounds) stands beside ours. What codes do to a recommender's
lists is another benchmark's question.
"""

import argparse
import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from amazon18 import published_split
from peers.driving import write_table

from foretaste.codes.report import stability_of
from foretaste.codes.tokenizer import FitContext, find
from foretaste.data.split import Queries, Split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.language.embed import embed
from foretaste.language.texts import item_texts

HERE = Path(__file__).resolve()
TOKENIZERS = ("rqvae", "coba", "rqkmeans", "opq")
FAISS = "faiss"
LEVELS = 3

ABOUT = (
    "Three levels (opq: slots) of 256 codes, TF-IDF vectors of the items of train, three seeds: "
    "mean ± standard deviation. Used: codes that any item has. Perplexity: of 256, by level. "
    "Collided: items that shared their nearest codes before collisions were resolved. Neighbours "
    "kept: of an item's ten nearest by its vector, those among the ten nearest by its codes. Next "
    "agrees: held-out steps from one item to the next that stay within a first code (first slot), "
    "by chance in brackets. Stable: items with the matching first code under another seed. Lost: "
    "share of the vectors' variance; CoBa codes smoothed vectors, so it must lose more of the "
    "plain ones. Written by `benchmarks/codebooks.py`."
)


class Seed(NamedTuple):
    """What one seed came to; lists are by level."""

    used: float
    perplexity: list[float]
    collided: float
    kept: float
    agrees: float
    chance: float
    lost: float
    seconds: float


def prepared(folder: Path | None) -> Split:
    """The embedded data cut at a point in time, or the published questions of a folder."""
    if folder is not None:
        return published_split(folder)
    return split_dataset(load_dataset(DataSection(source="movietweetings")), SplitSection())


def next_steps(queries: Queries) -> np.ndarray:
    """Pairs int ``[n, 2]``: the last item of a history and the first answer, both in train."""
    asked = np.flatnonzero(queries.histories.lengths)
    last = queries.histories.items[queries.histories.offsets[1:][asked] - 1]
    pairs = np.column_stack([last, queries.targets.items[queries.targets.offsets[:-1][asked]]])
    return pairs[(pairs[:, 1] >= 0) & (pairs[:, 0] != pairs[:, 1])]


def measure(name: str, cut: Split, vectors: np.ndarray, seeds: list[int]) -> dict[str, Any]:
    """One tokenizer with every seed."""
    steps, found, tables = next_steps(cut.test), [], []
    for seed in seeds:
        tokenizer = find(name)(levels=LEVELS)
        begin = time.process_time()
        codes = tokenizer.fit(vectors, sequences=cut.train, context=FitContext(seed, "cpu"))
        seconds = time.process_time() - begin
        report = tokenizer.report(vectors)
        tables.append(codes.nearest)
        first = codes.nearest[:, 0]
        shares = np.bincount(first) / len(first)
        found.append(
            Seed(
                float(np.mean([level.used / level.size for level in report.levels])),
                [level.perplexity for level in report.levels],
                report.collisions.before / report.items,
                report.neighbours.overlap,
                float((first[steps[:, 0]] == first[steps[:, 1]]).mean()),
                float(np.square(shares).sum()),
                report.error,
                seconds,
            )
        )
    stable = [stability_of(one, [other]).agreement[0] for one, other in combinations(tables, 2)]
    return {"items": len(vectors), "seeds": [one._asdict() for one in found], "stable": stable}


def faiss_opq(vectors: np.ndarray) -> dict[str, Any]:
    """Faiss's own OPQ with the same slots and codes, on one thread."""
    import faiss  # pyright: ignore[reportMissingImports]

    faiss.omp_set_num_threads(1)
    width = vectors.shape[1] // LEVELS * LEVELS
    centred = np.ascontiguousarray(vectors - vectors.mean(0), np.float32)
    begin = time.process_time()
    rotation = faiss.OPQMatrix(vectors.shape[1], LEVELS, width)
    rotation.train(centred)
    turned = rotation.apply(centred)
    quantizer = faiss.ProductQuantizer(width, LEVELS, 8)
    quantizer.train(turned)
    codes = quantizer.compute_codes(turned)
    seconds = time.process_time() - begin
    lost = np.square(centred - rotation.reverse_transform(quantizer.decode(codes))).sum()
    groups = np.unique(codes, axis=0, return_counts=True)[1]
    ours = find("opq")(levels=LEVELS)
    nearest = ours.fit(vectors, context=FitContext(0, "cpu")).nearest
    return {
        "items": len(vectors),
        "collided": float(groups[groups > 1].sum() / len(vectors)),
        "lost": float(lost / np.square(centred).sum()),
        "ours": float(
            np.square(vectors - ours.reconstruct(nearest)).sum() / np.square(centred).sum()
        ),
        "seconds": seconds,
    }


def row(data: str, name: str, kept: dict[str, Any]) -> dict[str, str]:
    """A line of the table."""
    if "seeds" not in kept:
        return {
            "data": data,
            "tokenizer": "opq of faiss",
            "items": f"{kept['items']:,}",
            "used": "–",
            "perplexity": "–",
            "collided": f"{kept['collided']:.1%}",
            "neighbours kept": "–",
            "next agrees": "–",
            "stable": "–",
            "lost": f"{kept['lost']:.1%} before any moved (ours then: {kept['ours']:.1%})",
            "CPU, s": f"{kept['seconds']:.0f}",
        }
    seeds = [Seed(**one) for one in kept["seeds"]]
    levels = np.mean([one.perplexity for one in seeds], axis=0)
    return {
        "data": data,
        "tokenizer": name,
        "items": f"{kept['items']:,}",
        "used": spread([one.used for one in seeds]),
        "perplexity": " / ".join(f"{level:.0f}" for level in levels),
        "collided": spread([one.collided for one in seeds]),
        "neighbours kept": spread([one.kept for one in seeds]),
        "next agrees": f"{spread([one.agrees for one in seeds])} "
        f"({np.mean([one.chance for one in seeds]):.1%})",
        "stable": spread(kept["stable"]),
        "lost": spread([one.lost for one in seeds]),
        "CPU, s": f"{np.mean([one.seconds for one in seeds]):.0f}",
    }


def spread(values: list[float]) -> str:
    """Mean and standard deviation of shares."""
    return f"{np.mean(values):.1%} ± {np.std(values, ddof=1):.1%}"


def main() -> None:
    """Measure what is not measured yet and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amazon", type=Path, nargs="*", default=[], help="folders of amazon18")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", choices=TOKENIZERS, nargs="*", default=TOKENIZERS)
    args = parser.parse_args()
    raw = HERE.parent / "results" / "raw" / "codebooks.json"
    kept = json.loads(raw.read_text()) if raw.exists() else {}
    for folder in (None, *args.amazon):
        data = "movietweetings" if folder is None else folder.name
        missing = [name for name in (*args.only, FAISS) if f"{data} {name}" not in kept]
        if not missing:
            continue
        cut = prepared(folder)
        vectors = embed(item_texts(cut.catalog))
        for name in missing:
            kept[f"{data} {name}"] = (
                faiss_opq(vectors) if name == FAISS else measure(name, cut, vectors, args.seeds)
            )
            print(row(data, name, kept[f"{data} {name}"]), flush=True)
            raw.parent.mkdir(parents=True, exist_ok=True)
            raw.write_text(json.dumps(kept, indent=1))
    names = (*TOKENIZERS, FAISS)
    order = sorted(kept, key=lambda key: (key.split()[0], names.index(key.split()[1])))
    rows = [row(*key.split(), kept[key]) for key in order]
    write_table(HERE.with_suffix(".md"), rows, ABOUT)


if __name__ == "__main__":
    main()
