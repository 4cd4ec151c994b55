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
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.ranking import rank_queries

METRICS = ("ndcg@10", "hr@10")
NETWORKS = ("sasrec", "gru4rec", "bert4rec", "hstu")

GRIDS: dict[str, dict[str, list[dict[str, Any]]]] = {}


def fit(recipe: Recipe, prepared: Split, seed: int) -> tuple[Recommender, int | None]:
    """A fitted model and the epoch that validation chose."""
    recommender = recipe.recommender()
    context = recipe.with_settings({"run.seed": seed}).context()
    return recommender, recommender.fit(prepared, context).best_epoch


def choose(data: str, name: str, source: Path, prepared: Split) -> Recipe:
    """The configuration with the best NDCG@10 on validation."""
    options = GRIDS[data].get(name, [{}])
    recipes = [Recipe.build(_values(name, source, one)) for one in options]
    if len(recipes) == 1:
        return recipes[0]
    values = []
    for recipe in recipes:
        recommender, _ = fit(recipe, prepared, 0)
        answers = rank_queries(recommender, prepared.valid, ["ndcg@10"])
        values.append(float(answers.metrics["ndcg@10"].mean()))
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
    """Per-user figures of one way to fit a model, added up over seeds."""

    def __init__(self) -> None:
        """None yet."""
        self.sums: dict[tuple[str, bool], np.ndarray] = {}
        self.seeds, self.seconds = 0, 0.0

    def add(self, recommender: Recommender, prepared: Split, seconds: float) -> None:
        """Measure on test, with seen items left out and allowed."""
        self.seeds, self.seconds = self.seeds + 1, self.seconds + seconds
        for masked in (True, False):
            exclude = "seen" if masked else "none"
            answers = rank_queries(recommender, prepared.test, METRICS, exclude=exclude)
            for metric in METRICS:
                known = self.sums.get((metric, masked), 0)
                self.sums[metric, masked] = known + answers.metrics[metric]

    def values(self, metric: str, masked: bool) -> np.ndarray:
        """Each user's mean over the seeds."""
        return self.sums[metric, masked] / self.seeds

    def row(self) -> dict[str, Any]:
        """Means, intervals and time."""
        row: dict[str, Any] = {"seeds": self.seeds}
        for masked in (True, False):
            seen = "" if masked else ", seen allowed"
            for metric in METRICS:
                found = bootstrap_mean(self.values(metric, masked))
                row[metric + seen] = f"{found.value:.4f} ({found.low:.4f}-{found.high:.4f})"
        return row | {"seconds": round(self.seconds / self.seeds, 1)}


def measure(source: Path, models: list[str], seeds: int) -> dict[tuple[str, str], Figures]:
    """Figures by model and by what it was fitted on."""
    dataset = load_dataset(DataSection(source=str(source)))
    prepared = split_dataset(dataset, SplitSection(kind="leave-last-out"))
    whole = split_dataset(dataset, SplitSection(kind="leave-last-out", refit=True))
    table: dict[tuple[str, str], Figures] = {}
    for name in models:
        recipe = choose(source.stem, name, source, prepared)
        trained = name in NETWORKS
        for seed in range(seeds if trained or name == "als" else 1):
            begin = time.perf_counter()
            recommender, best = fit(recipe, prepared, seed)
            seconds = time.perf_counter() - begin
            table.setdefault((name, "train"), Figures()).add(recommender, prepared, seconds)
            if trained and name != "sasrec":
                continue
            again = {"train.epochs": best, "train.patience": 0} if trained else {}
            begin = time.perf_counter()
            recommender, _ = fit(recipe.with_settings(again), whole, seed)
            seconds = time.perf_counter() - begin
            table.setdefault((name, "train+valid"), Figures()).add(recommender, whole, seconds)
            print(json.dumps([source.stem, name, seed, best]), flush=True)
        print({key: one.row() for key, one in table.items() if key[0] == name}, flush=True)
    return table


def rows_of(data: str, table: dict[tuple[str, str], Figures]) -> list[dict[str, Any]]:
    """Best first within what was fitted on, each compared with SASRec fitted on the same."""
    rows = []
    for fitted in ("train", "train+valid"):
        group = {name: one for (name, on), one in table.items() if on == fitted}
        group = dict(
            sorted(group.items(), key=lambda pair: -pair[1].values("ndcg@10", True).mean())
        )
        sasrec = group["sasrec"].values("ndcg@10", True)
        others = [name for name in group if name != "sasrec"]
        tests = [paired_difference(group[name].values("ndcg@10", True), sasrec) for name in others]
        corrected = dict(zip(others, holm([test.p_value for test in tests]), strict=True))
        against = {
            name: f"{test.difference:+.4f} (p {corrected[name]:.4f})"
            for name, test in zip(others, tests, strict=True)
        }
        for name, one in group.items():
            difference = against.get(name, "")
            rows.append(
                {"data": data, "fitted on": fitted, "model": name}
                | one.row()
                | {"NDCG@10 minus SASRec's": difference}
            )
    return rows


def main() -> None:
    """Measure, print, and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument(
        "--models",
        nargs="+",
        default=["popularity", "markov", "itemknn", "ease", "als", *NETWORKS],
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    rows = []
    for source in args.data:
        rows += rows_of(source.stem, measure(source.resolve(), args.models, args.seeds))
        about = (
            "Leave-last-out, full catalog, mean (95 % interval over users); p is Holm-corrected. "
            "Columns say whether seen items were left out (default) or allowed. Seconds are of "
            "one fit on 2 cores. Written by `benchmarks/quality.py`."
        )
        write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
