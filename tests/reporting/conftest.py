"""Run folders as ``foretaste train`` leaves them, with believable figures and no training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foretaste.metrics import bootstrap_mean, user_slices

DAY = 86_400_000
BEGIN = 1_362_009_600_000  # 28 February 2013
METRICS = ("ndcg@10", "hr@10", "recall@10", "precision@10", "mrr@10", "map@10")
TITLES = (
    "Iron Man 3 (2013)", "Man of Steel (2013)", "World War Z (2013)", "Oblivion (2013)",
    "Star Trek Into Darkness (2013)", "Now You See Me (2013)", "The Great Gatsby (2013)",
    "Django Unchained (2012)", "Silver Linings Playbook (2012)", "Argo (2012)",
    "Fast & Furious 6 (2013)", "The Croods (2013)", "Monsters University (2013)",
    "The Hangover Part III (2013)", "Olympus Has Fallen (2013)", "G.I. Joe: Retaliation (2013)",
    "Life of Pi (2012)", "Les Misérables (2012)", "Skyfall (2012)", "Looper (2012)",
    "The Place Beyond the Pines (2012)", "Pacific Rim (2013)", "This Is the End (2013)",
    "Despicable Me 2 (2013)", "The Wolverine (2013)", "The Conjuring (2013)", "Elysium (2013)",
    "Before Midnight (2013)", "Trance (2013)", "Spring Breakers (2012)", "Side Effects (2013)",
    "Mama (2013)", "Oz the Great and Powerful (2013)", "Cloud Atlas (2012)",
    "Zero Dark Thirty (2012)", "Amour (2012)",
)  # fmt: skip
SPEC = {
    "popularity": {"level": 0.062, "seconds": 0.03, "coverage": 0.004, "gini": 0.996, "lift": 4.1},
    "ease": {"level": 0.089, "seconds": 9.4, "coverage": 0.143, "gini": 0.948, "lift": 1.7},
    "sasrec": {"level": 0.108, "seconds": 412.0, "coverage": 0.216, "gini": 0.913, "lift": 1.4},
}

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run folder: ``make_run("sasrec", name="a", without=("samples.json",))``."""

    def make(model: str, **options: Any) -> Path:
        return write_run(tmp_path / "runs" / options.pop("name", model), model, **options)

    return make


@pytest.fixture
def three_runs(make_run: MakeRun) -> list[Path]:
    """Popularity, EASE and SASRec on one split."""
    return [make_run(model) for model in SPEC]


def write_run(
    folder: Path,
    model: str,
    *,
    record: dict[str, Any] | None = None,
    title: str = "",
    without: tuple[str, ...] = (),
    users: int = 1500,
    level: float | None = None,
) -> Path:
    """A run folder of a model; ``record`` replaces sections of ``run.json``."""
    folder.mkdir(parents=True)
    frame = per_query(model, users, level or SPEC[model]["level"])
    files = {
        "recipe.toml": _recipe(model),
        "run.json": json.dumps(_record(model) | (record or {})),
        "metrics.json": json.dumps(
            {part: _summary(frame, model, part) for part in ("valid", "test")}
        ),
        "samples.json": json.dumps(_lists(model, title)),
    }
    for name, content in files.items():
        if name not in without:
            (folder / name).write_text(content, encoding="utf-8")
    if "metrics.parquet" not in without:
        frame.write_parquet(folder / "metrics.parquet")
    return folder


def per_query(model: str, users: int, level: float) -> pl.DataFrame:
    """Figures of every user; users are easy or hard for all models alike."""
    parts = []
    for part, seed in (("valid", 1), ("test", 2)):
        shared = np.random.default_rng(seed)
        lengths = np.minimum(shared.geometric(0.06, users) - 1, 400)
        ease = shared.beta(1.2, 4.0, users) * (0.5 + 0.25 * np.log1p(lengths))
        own = np.random.default_rng([seed, len(model)])
        chance = np.clip(ease / ease.mean() * level * 2.1 + own.normal(0, 0.01, users), 0, 0.98)
        hit = own.random(users) < chance
        rank = np.where(hit, own.integers(1, 11, users), 0)
        gain = np.where(hit, 1 / np.log2(np.maximum(rank, 1) + 1), 0.0)
        reciprocal = np.where(hit, 1 / np.maximum(rank, 1), 0.0)
        columns: dict[str, np.ndarray] = dict(
            zip(
                METRICS,
                (gain, hit * 1.0, hit * 0.8, hit * 0.1, reciprocal, reciprocal),
                strict=True,
            )
        )
        columns["novelty@10"] = own.normal(
            {"popularity": 7.1, "ease": 9.3}.get(model, 9.8), 0.8, users
        )
        columns["ild@10"] = np.clip(own.normal(0.74, 0.08, users), 0, 1)
        parts.append(
            pl.DataFrame(
                {
                    "part": [part] * users,
                    "user_id": [str(1000 + user) for user in range(users)],
                    "history_length": lengths,
                    **columns,
                }
            )
        )
    return pl.concat(parts)


def _summary(frame: pl.DataFrame, model: str, part: str) -> dict[str, Any]:
    frame = frame.filter(pl.col("part") == part)
    spec = SPEC[model]
    masks = user_slices(frame["history_length"].to_numpy())
    recall = frame["recall@10"].mean()
    assert isinstance(recall, float)
    return {
        "model": model, "split": "global-time", "part": part, "exclude": "seen",
        "users": frame.height, "seconds": 0.4 + spec["seconds"] / 200,
        "metrics": {name: _interval(frame[name].to_numpy()) for name in frame.columns[3:]},
        "lists": {"coverage@10": spec["coverage"], "gini@10": spec["gini"],
                  "popularity_lift@10": spec["lift"],
                  "head_share@10": 1.0 if model == "popularity" else 0.7 + spec["lift"] / 10},
        "slices": {
            "users": {
                name: {"users": int(mask.sum()),
                       "metrics": {m: _interval(frame[m].to_numpy()[mask]) for m in METRICS[:2]}}
                for name, mask in masks.items()
            },
            "items": {"head": {"targets": 2210, "recall@10": recall * 1.25},
                      "tail": {"targets": 645, "recall@10": recall * (1.8 - spec["gini"])
                               * (model != "popularity") * 0.5},
                      "new": {"targets": 388, "recall@10": 0.0}},
        },
    }  # fmt: skip


def _interval(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return {"value": None, "low": None, "high": None}
    return {key: float(end) for key, end in bootstrap_mean(values, resamples=200)._asdict().items()}


def _record(model: str) -> dict[str, Any]:
    seconds = SPEC[model]["seconds"]
    epochs = _epochs() if model == "sasrec" else []
    return {
        "format": 1, "status": "done", "model": model, "seed": 0,
        "command": f"foretaste train --data movietweetings --model {model} --run runs/{model}",
        "started": "2026-03-02T09:14:07+00:00",
        "versions": {"python": "3.11.7", "foretaste": "0.1.0", "numpy": "2.2.1", "polars": "1.20.0",
                     "torch": "2.6.0"},
        "machine": {"system": "Linux", "cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 2,
                    "memory_bytes": 8_200_000_000, "device": "cpu", "threads": 2},
        "data": {
            "name": "movietweetings", "fingerprint": "5f2c9a7be01d44c8", "users": 16_554,
            "items": 10_506, "interactions": 100_000, "first_time_ms": BEGIN,
            "last_time_ms": BEGIN + 183 * DAY,
            "notes": ["2,310 repeated user-item pairs: the first of each was kept"],
            "history_lengths": {"1-4": 10_913, "5-19": 4_448, "20-99": 1_105, "100+": 88},
            "events_by_period": _periods(), "licence": "MIT",
        },
        "split": {
            "kind": "global-time", "cuts_ms": [BEGIN + 137 * DAY, BEGIN + 160 * DAY],
            "train_interactions": 80_000, "vocabulary": 9_412, "valid_queries": 1_500,
            "test_queries": 1_500, "unseen_target_share": 0.119,
            "notes": ["12 % of test targets are items that do not occur in training"],
        },
        "leakage": {"checks": ["vocabulary", "targets in their own history",
                               "duplicates across the cut", "training after the cut",
                               "split protocol"], "findings": []},
        "fit": {"seconds": seconds, "best_epoch": 21 if epochs else None,
                "stopped": "patience" if epochs else "done",
                "metric": "ndcg@10" if epochs else None, "epochs": epochs, "details": {}},
        "wall_seconds": seconds + 6.2, "peak_memory_bytes": 400_000_000 + int(seconds * 2e6),
    }  # fmt: skip


def _epochs() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [
        {
            "epoch": epoch,
            "loss": 5.1 + 3.9 * math.exp(-epoch / 7) + rng.normal(0, 0.02),
            "targets": 79_000,
            "seconds": 13.7,
            "valid": 0.112 * (1 - math.exp(-epoch / 5)) - 0.00003 * max(0, epoch - 21) ** 2
            + rng.normal(0, 0.0007) + 0.003 * (epoch == 21),
        }
        for epoch in range(1, 31)
    ]  # fmt: skip


def _periods() -> list[list[Any]]:
    rng = np.random.default_rng(4)
    days = np.arange(60) * 3.05
    counts = 1500 + 350 * np.sin(days / 9) + rng.normal(0, 120, 60) + 5 * days
    dates = (np.datetime64("2013-02-28") + days.astype(int)).astype(str)
    return [[date, int(count)] for date, count in zip(dates, counts, strict=True)]


def _lists(model: str, title: str) -> list[dict[str, Any]]:
    rows = []
    for user in range(6):
        rng = np.random.default_rng(user)
        order = rng.permutation(len(TITLES))
        history, targets = order[: 3 + user], order[12 : 14 + user % 3]
        own = np.random.default_rng([user, len(model)])
        pool = np.setdiff1d(np.arange(len(TITLES)), history)
        chosen = pool[:10] if model == "popularity" else own.permutation(pool)[:10]
        rows.append({
            "user_id": str(1000 + 37 * user),
            "history": [TITLES[item] for item in history] + ([title] if title else []),
            "targets": [TITLES[item] for item in targets],
            "recommended": [
                {"item_id": f"14{item:05d}", "title": title or TITLES[item],
                 "score": 4.0 - place * 0.2, "hit": bool(item in targets)}
                for place, item in enumerate(chosen)
            ],
        })  # fmt: skip
    return rows


def _recipe(model: str) -> str:
    train = (
        '[train]\nepochs = 30\npatience = 8\nmetric = "ndcg@10"\nlearning_rate = 0.001\n\n'
        if model == "sasrec"
        else ""
    )
    own = {"sasrec": "dim = 64\nlayers = 2\nheads = 2\n", "ease": "l2 = 250.0\n"}.get(model, "")
    return (
        '[data]\nsource = "movietweetings"\nk_core = 0\n\n'
        '[split]\nkind = "global-time"\nvalid_share = 0.1\ntest_share = 0.1\n\n'
        f'[model]\nname = "{model}"\n{own}\n{train}'
        f'[evaluate]\nmetrics = {json.dumps(METRICS)}\nk = 10\nexclude = "seen"\n\n'
        "[run]\nseed = 0\n"
    )
