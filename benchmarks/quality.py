"""Quality of every recommender on MovieLens-100K and Beauty: tuned on validation, three seeds.

    .venv/bin/python benchmarks/quality.py --data ml-100k.parquet --data beauty.parquet

Leave-last-out, full catalog. Each configuration of ``GRIDS`` is fitted on train and judged on
validation; the best is fitted for every seed, and measured on test with seen items left out and
allowed. ``train+valid`` means fitted again on both for the number of epochs that validation chose:
what one would launch, and how the field measures EASE and its kin. Intervals are over users, of
each user's mean over the seeds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.driving import write_table

from foretaste.data.split import Split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, Recipe, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.metrics import bootstrap_mean, holm, paired_difference
from foretaste.recommenders.core.base import Exclude, Recommender
from foretaste.recommenders.core.ranking import rank_queries

METRICS = ("ndcg@10", "hr@10")

SEEN: dict[str, Exclude] = {"": "seen", ", seen allowed": "none"}
NETWORKS = ("sasrec", "gru4rec", "bert4rec", "hstu")

LINEAR: dict[str, list[dict[str, Any]]] = {
    "markov": [{"last": last} for last in (1, 3, 10)],
    "itemknn": [{"neighbours": n, "shrink": s} for n in (50, 200) for s in (0.0, 10.0, 50.0)],
    "ease": [{"l2": l2} for l2 in (30.0, 100.0, 300.0, 1_000.0, 3_000.0)],
    "als": [{"factors": f, "alpha": a} for f in (64, 128) for a in (1.0, 5.0, 20.0)],
}
# Networks take minutes each, so their grids are small.
SMALL = {"dropout": 0.2, "train.patience": 15, "train.batch_tokens": 2_000}
WINDOWS: list[dict[str, Any]] = [
    {**SMALL, "window": 50, "max_length": 100},
    {**SMALL, "window": 100, "max_length": 200},
    {**SMALL, "window": 100, "max_length": 200, "dropout": 0.3},
    {**SMALL, "window": 200, "max_length": 400, "dropout": 0.3},
]
GRIDS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "ml-100k": LINEAR
    | {
        "sasrec": WINDOWS,
        "gru4rec": [SMALL],
        "bert4rec": [SMALL],
        "hstu": [WINDOWS[1]],
    },
    "beauty": LINEAR
    | {
        name: [{"dropout": 0.5, "train.batch_tokens": 1_600, "train.patience": 8}]
        for name in NETWORKS
    },
}


def fit(recipe: Recipe, prepared: Split, seed: int) -> tuple[Recommender, int | None]:
    """A fitted model and the epoch that validation chose."""
    recommender = recipe.recommender()
    context = recipe.with_settings({"run.seed": seed}).context()
    return recommender, recommender.fit(prepared, context).best_epoch


def choose(data: str, name: str, source: Path, prepared: Split, folder: Path) -> Recipe:
    """The configuration with the best NDCG@10 on validation; what was found is kept."""
    options = GRIDS[data].get(name, [{}])
    recipes = [Recipe.build(_values(name, source, one)) for one in options]
    if len(recipes) == 1:
        return recipes[0]
    kept = folder / f"{name}-choice.json"
    known = dict(json.loads(kept.read_text())) if kept.exists() else {}
    for option, recipe in zip(options, recipes, strict=True):
        if str(option) not in known:
            recommender, _ = fit(recipe, prepared, 0)
            answers = rank_queries(recommender, prepared.valid, ["ndcg@10"])
            known[str(option)] = float(answers.metrics["ndcg@10"].mean())
            folder.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known, indent=2))
    values = [known[str(option)] for option in options]
    print(f"{data} {name}: {[f'{value:.4f}' for value in values]} of {options}", flush=True)
    return recipes[int(np.argmax(values))]


def _values(name: str, source: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    model = {key: value for key, value in parameters.items() if not key.startswith("train.")}
    train = {key[6:]: value for key, value in parameters.items() if key.startswith("train.")}
    return {
        "data": {"source": str(source)},
        "split": {"kind": "leave-last-out"},
        "model": {"name": name, **model},
        **({"train": train} if train else {}),
    }


class Figures:
    """Per-user figures of one way to fit a model on one data set, one file for each seed."""

    def __init__(self, folder: Path, name: str, fitted: str) -> None:
        """Those that are in ``folder``."""
        self.stem = folder / f"{name}-{fitted}"
        self.folder, self.pattern = folder, f"{name}-{fitted}-*.npz"

    def add(self, recommender: Recommender, prepared: Split, seed: int, **facts: float) -> None:
        """Measure on test, with seen items left out and allowed, and keep every user's figure."""
        found = {}
        for seen in SEEN:
            answers = rank_queries(recommender, prepared.test, METRICS, exclude=SEEN[seen])
            found |= {metric + seen: answers.metrics[metric] for metric in METRICS}
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = {name: np.float64(value) for name, value in facts.items()}
        arrays: dict[str, Any] = found | numbers
        np.savez(f"{self.stem}-{seed}.npz", **arrays)

    def has(self, seed: int) -> bool:
        """Whether a seed has been measured."""
        return Path(f"{self.stem}-{seed}.npz").exists()

    def fact(self, name: str, seed: int) -> float:
        """A number that was kept with a seed."""
        return float(np.load(f"{self.stem}-{seed}.npz")[name])

    def values(self, metric: str) -> np.ndarray:
        """Each user's mean over the seeds."""
        return np.mean([np.load(path)[metric] for path in self.paths], axis=0)

    @property
    def paths(self) -> list[Path]:
        """The files of all seeds."""
        return sorted(self.folder.glob(self.pattern))

    def row(self) -> dict[str, Any]:
        """Means, intervals and time."""
        row: dict[str, Any] = {"seeds": len(self.paths)}
        for seen in SEEN:
            for metric in METRICS:
                found = bootstrap_mean(self.values(metric + seen))
                row[metric + seen] = f"{found.value:.4f} ({found.low:.4f}-{found.high:.4f})"
        seconds = [float(np.load(path)["seconds"]) for path in self.paths]
        return row | {"seconds": f"{np.mean(seconds):.1f}"}


def measure(
    source: Path, models: list[str], seeds: list[int], runs: Path, *, refit: bool = True
) -> None:
    """Fit and measure what is not there yet."""
    dataset = load_dataset(DataSection(source=str(source)))
    prepared = split_dataset(dataset, SplitSection(kind="leave-last-out"))
    whole = split_dataset(dataset, SplitSection(kind="leave-last-out", refit=True))
    folder = runs / source.stem
    for name in models:
        trained = name in NETWORKS
        of_seeds = seeds if trained or name == "als" else [0]
        first, again = Figures(folder, name, "train"), Figures(folder, name, "train+valid")
        missing = [seed for seed in of_seeds if not first.has(seed)]
        refits = not trained or (name == "sasrec" and refit)
        missing_again = [seed for seed in of_seeds if refits and not again.has(seed)]
        if not missing and not missing_again:
            continue
        recipe = choose(source.stem, name, source, prepared, folder)
        for seed in missing:
            begin = time.perf_counter()
            recommender, best = fit(recipe, prepared, seed)
            seconds = time.perf_counter() - begin
            first.add(recommender, prepared, seed, seconds=seconds, best=best or 0)
            print(source.stem, name, seed, best, first.row(), flush=True)
        for seed in missing_again:
            best = int(first.fact("best", seed))
            more = {"train.epochs": best, "train.patience": 0} if trained else {}
            begin = time.perf_counter()
            recommender, _ = fit(recipe.with_settings(more), whole, seed)
            again.add(recommender, whole, seed, seconds=time.perf_counter() - begin)
            print(source.stem, name, seed, "again", again.row(), flush=True)


def rows_of(data: str, models: list[str], runs: Path) -> list[dict[str, Any]]:
    """Best first within what was fitted on, each compared with SASRec fitted on the same."""
    rows = []
    for fitted in ("train", "train+valid"):
        known = {name: Figures(runs / data, name, fitted) for name in models}
        group = {name: one for name, one in known.items() if one.paths}
        values = {name: one.values("ndcg@10") for name, one in group.items()}
        others = [name for name in group if name != "sasrec" and "sasrec" in group]
        tests = [paired_difference(values[name], values["sasrec"]) for name in others]
        corrected = holm([test.p_value for test in tests])
        against = {
            name: f"{test.difference:+.4f} (p {p:.4f})"
            for name, test, p in zip(others, tests, corrected, strict=True)
        }
        for name in sorted(group, key=lambda name: -values[name].mean()):
            row = {"data": data, "fitted on": fitted, "model": name} | group[name].row()
            rows.append(row | {"NDCG@10 minus SASRec's": against.get(name, "")})
    return rows


def main() -> None:
    """Measure what is missing, and write the table of all that is there beside this script."""
    models = ["popularity", "markov", "itemknn", "ease", "als", *NETWORKS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-refit", action="store_true", help="leave out SASRec's second fit")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    for source in args.data:
        measure(source.resolve(), args.models, args.seeds, args.runs, refit=not args.no_refit)
    rows = [row for source in args.data for row in rows_of(source.stem, models, args.runs)]
    about = (
        "Leave-last-out, full catalog, mean (95 % interval over users); p is Holm-corrected. "
        "Columns say whether seen items were left out (default) or allowed. Seconds are of "
        "one fit on one or two cores. Written by `benchmarks/quality.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
