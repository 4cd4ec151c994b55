"""Codebooks against item vectors in a federation: bytes, quality, noise, items nobody chose.

    .venv/bin/python benchmarks/rqfedrec.py --data movietweetings
    .venv/bin/python benchmarks/rqfedrec.py --data ml-100k \\
        --log ml-100k.parquet --items ml-100k.item
    .venv/bin/python benchmarks/rqfedrec.py --data amazon18-office \\
        --log office/interactions.parquet --items office/items.parquet

Split by leave-last-out, as the papers of this line do. Every arm is tuned on validation alone, by
as many trials as any other, and answers with the state of the round that was best there; every
client with its own head. One file for each trial and run is kept in ``results/raw/rqfedrec``, so
that a benchmark that was cut off goes on where it was. The items of MovieLens-100K are RecBole's
file or one that ``--items`` of Foretaste reads.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import pack, unpack
from peers.driving import read_table, write_table
from rqfedrec_runs import DIM, MEASURED, Arm, federate, popular, questions, read_split
from scipy.stats import ttest_1samp

from foretaste.data.split import Split
from foretaste.metrics import paired_difference

HERE = Path(__file__).resolve()
RAW = HERE.parent / "results" / "raw" / "rqfedrec"
INT8 = {"precision": "int8", "upload": "int8"}
ROWS, SKETCH = 2 * 64 + 12 * 32, 1024
"""Code vectors of coded arms, and rows of their sketch."""
SENT = (ROWS + SKETCH) * (DIM + 4) + 4 * ROWS
"""Bytes that a client of the curriculum sends: a number each, a step a row, counts of codes."""
OF_DATA: dict[str, dict[str, Any]] = {
    "ml-100k": {"rounds": 200, "clients": 1.0},
    "movietweetings": {"rounds": 100, "clients": 0.2, "evaluate_every": 3},
    "amazon18-office": {"rounds": 300, "clients": 0.2},
}
REFRESH = {"ml-100k": 5, "movietweetings": 5, "amazon18-office": 20}
"""Rounds between new codes, which go down anew: rarer on the largest catalog."""
RATES = {
    "ml-100k": (0.01, 0.03),
    "movietweetings": (0.003, 0.01),
    "amazon18-office": (0.003, 0.01),
}
"""Of the server's steps."""
HEADS = {"regularization": (1e-3, 1e-2)}
SERVER_ITEMS = {"items_rate": (0.03, 0.06)}
FLOAT32 = {"precision": "float32", "upload": "float32"}
COARSE = {
    **FLOAT32,
    "sketch": 64,
    "collaborative_levels": 6,
    "items_rate": 0.06,
}
"""As many bytes as by default, spent on float32 instead of on codes and sketch."""


def arms(items: int, refresh: int) -> dict[str, Arm]:
    """All arms; small and hashed tables get the bytes that coded arms send up, or a little more.

    A small table is sent as bytes where that lets it be wider.
    """
    plain = {"refresh": 0, "sketch": 0, "first_mix": 0.5, "last_mix": 0.5}
    made = {"refresh": refresh}
    fixed = {"first_mix": (0.5, 0.9), "last_mix": (0.9,)}
    whole, bytes_each = -(-SENT // (4 * items)), -(-SENT // items) - 4
    small = (whole, {}) if whole >= bytes_each else (min(DIM, bytes_each), INT8)
    return {
        "pfedrec": Arm("pfedrec", {}, HEADS),
        "pfedrec, int8": Arm("pfedrec", INT8, HEADS),
        "fedmf": Arm("fedmf", {}, HEADS),
        "fedrap": Arm("fedrap", {}, {"own_rate": (10.0, 50.0)}),
        "small dim": Arm("pfedrec", small[1], HEADS, small[0]),
        "hashed": Arm("pfedrec", {"rows": -(-SENT // (DIM + 4)), **INT8}, {"hashes": (1, 2)}),
        "random codes": Arm("rqfedrec", plain | {"semantic": "random"}, HEADS),
        "semantic only": Arm("rqfedrec", {"semantic_levels": 8, "collaborative_levels": 0}, HEADS),
        "collaborative only": Arm(
            "rqfedrec", made | {"semantic_levels": 0, "collaborative_levels": 16}, HEADS
        ),
        "fixed mix": Arm("rqfedrec", made, fixed),
        "curriculum": Arm("rqfedrec", made, HEADS),
        "curriculum, a node a user": Arm("rqfedrec", made, HEADS, alone=True),
        "curriculum, float32": Arm("rqfedrec", made | FLOAT32, HEADS),
        "curriculum, mean over all": Arm("rqfedrec", made | {"average": "all"}, HEADS),
        "curriculum, no sketch": Arm("rqfedrec", made | {"sketch": 0}, HEADS),
        "curriculum, coarse": Arm("rqfedrec", made | COARSE, SERVER_ITEMS),
    }


def trials(arm: Arm, rates: tuple[float, ...]) -> list[dict[str, Any]]:
    """Settings that are tried, four for every arm."""
    name, values = next(iter(arm.knob.items()))
    found = []
    for rate, value in itertools.product(rates, values):
        extra = {name: value} | ({"last_mix": value} if name == "first_mix" else {})
        found.append({**arm.settings, "server": {"learning_rate": rate}, **extra})
    return found


class Bench:
    """All runs on one data set."""

    def __init__(self, name: str, data: Split, **more: Any) -> None:
        """``more`` overrides settings of the data set, such as ``rounds``."""
        self.name, self.data, self.arms = name, data, arms(data.items, REFRESH[name])
        self.common = OF_DATA[name] | more

    def run(self, arm: str, seed: int, *, noise: float = 0.0, cold: float = 0.0) -> dict[str, Any]:
        """One run with the settings that validation chose, from its file where there is one."""
        kind = f"noise-{noise}" if noise else f"cold-{cold}" if cold else "plain"
        settings = {**self.arms[arm].settings, **self.tuned(arm)}  # trials may be of older arms
        return self._kept(f"{kind}-{arm}-{seed}", arm, settings, seed, noise, cold)

    def tuned(self, arm: str) -> dict[str, Any]:
        """The settings of the trial with the best validation figure, of seed 100."""
        found = [
            self._kept(f"trial-{arm}-{number}", arm, settings, 100, 0.0, 0.0)
            for number, settings in enumerate(trials(self.arms[arm], RATES[self.name]))
        ]
        return max(found, key=lambda one: one["valid"])["settings"]

    def _kept(
        self, key: str, arm: str, settings: dict[str, Any], seed: int, noise: float, cold: float
    ) -> dict[str, Any]:
        path = RAW / self.name / f"{key.replace(' ', '_')}.json"
        if path.exists():
            return json.loads(path.read_text())
        asked = questions(self.data, seed, noise, cold)
        found = federate(self.arms[arm], {**self.common, **settings}, asked, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.replace(path)
        figure = np.mean(found["figures"]["ndcg@10"])
        print(f"{self.name} {key}: valid {found['valid']:.4f} test {figure:.4f}", flush=True)
        return found

    def figures(self, arm: str, seeds: list[int], metric: str, **what: float) -> np.ndarray:
        """A figure of every user, mean over seeds (cold items differ by seed: users in a row)."""
        runs = [np.array(self.run(arm, seed, **what)["figures"][metric]) for seed in seeds]
        return np.concatenate(runs) if what.get("cold") else np.mean(runs, 0)


def quality(bench: Bench, seeds: list[int], chosen: list[str]) -> list[dict[str, Any]]:
    """Bytes and figures of all arms, with differences of the same users to PFedRec and to ours."""
    everybody = questions(bench.data, 0, 0.0, 0.0)
    counts, targets = bench.data.popularity, everybody.test_targets.items
    rare = (targets >= 0) & (counts[np.maximum(targets, 0)] <= np.median(counts))
    base, other = bench.run("pfedrec", seeds[0]), bench.figures("pfedrec", seeds, "ndcg@10")
    ours = bench.figures("curriculum", seeds, "ndcg@10")
    known, rows = popular(everybody), []
    for arm in ("popularity", *chosen):
        row: dict[str, Any] = {"data": bench.name, "arm": arm}
        row |= dict.fromkeys(("down", "up", "times less"), "")
        figures = known
        if arm != "popularity":
            first = bench.run(arm, seeds[0])
            less = (base["down"] + base["up"]) / (first["down"] + first["up"])
            row["down"], row["up"] = f"{first['down']:,.0f}", f"{first['up']:,.0f}"
            row["times less"] = f"{less:.1f}"
            figures = {name: bench.figures(arm, seeds, name) for name in known}
        for metric in (*MEASURED, *(f"{name} of 100" for name in MEASURED)):
            row[metric] = f"{figures[metric].mean():.4f}"
        row["ndcg@10 - pfedrec"] = _difference(figures["ndcg@10"], other)
        row["curriculum - this"] = _difference(ours, figures["ndcg@10"])
        row["ndcg@10, rarer half of items"] = f"{figures['ndcg@10'][rare].mean():.4f}"
        rows.append(row)
    return rows


def _difference(mine: np.ndarray, other: np.ndarray) -> str:
    found = paired_difference(mine, other)
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def noise_rows(bench: Bench, seeds: list[int], chosen: list[str]) -> list[dict[str, Any]]:
    """What random events in all histories take away."""
    rows = []
    for arm in chosen:
        whole = bench.figures(arm, seeds, "ndcg@10")
        row = {"data": bench.name, "arm": arm, "without": f"{whole.mean():.4f}"}
        for noise in (0.1, 0.2, 0.3):
            found = bench.figures(arm, seeds, "ndcg@10", noise=noise)
            drop = 1 - found.mean() / whole.mean()
            row[f"{noise:.0%} random"] = f"{found.mean():.4f} ({-drop:+.1%})"
            row[f"loss at {noise:.0%}"] = _difference(found, whole)
        rows.append(row)
    return rows


def cold_rows(bench: Bench, seeds: list[int], chosen: list[str]) -> list[dict[str, Any]]:
    """Targets among a tenth of the items that comes only after training."""
    metrics = ("ndcg@10", "hr@10 of 100", "ndcg@10 of new", "hr@10 of new")
    base = {metric: bench.figures("pfedrec", seeds, metric, cold=0.1) for metric in metrics}
    rows = []
    for arm in chosen:
        row = {"data": bench.name, "arm": arm, "targets": f"{len(base['ndcg@10']):,}"}
        for metric, other in base.items():
            mine = bench.figures(arm, seeds, metric, cold=0.1)
            row[metric] = f"{mine.mean():.4f}"
            row[f"{metric} - pfedrec"] = _difference(mine, other)
        rows.append(row)
    return rows


def seed_rows(bench: Bench, seeds: list[int], chosen: list[str]) -> list[dict[str, Any]]:
    """How far seeds are apart, and whether a difference to PFedRec outlasts them."""

    def of(arm: str) -> np.ndarray:  # [seeds, users]
        return np.array([bench.run(arm, seed)["figures"]["ndcg@10"] for seed in seeds])

    other, rows = of("pfedrec"), []
    for arm in chosen:
        figures = of(arm)
        means, beyond = figures.mean(1), figures.mean(1) - other.mean(1)
        row = {
            "data": bench.name,
            "arm": arm,
            "seeds": len(seeds),
            "ndcg@10": f"{means.mean():.4f}",
            "lowest": f"{means.min():.4f}",
            "highest": f"{means.max():.4f}",
            "deviation": f"{means.std(ddof=1):.4f}",
        }
        row |= dict.fromkeys(("ndcg@10 - pfedrec", "the same, over seeds", "seeds above it"), "")
        if arm != "pfedrec":
            over = ttest_1samp(beyond, 0).confidence_interval()
            row["ndcg@10 - pfedrec"] = _difference(figures.mean(0), other.mean(0))
            row["the same, over seeds"] = f"[{over.low:+.4f}, {over.high:+.4f}]"
            row["seeds above it"] = str((beyond > 0).sum())
        rows.append(row)
    return rows


def arithmetic(sizes: tuple[int, ...] = (1_682, 10_000, 1_000_000)) -> list[dict[str, Any]]:
    """Bytes of one client and round by shapes alone, and what of it is codes."""
    rows = []
    for items in sizes:
        vectors, rounded = 4 * items * DIM, items * (DIM + 4)
        table = ROWS * (DIM + 4)
        for refresh in (5, 50):
            codes = 12 * items / refresh
            down, up = table + codes, SENT
            rows.append(
                {
                    "items": f"{items:,}",
                    "item vectors, each way": f"{vectors:,}",
                    "the same, int8": f"{rounded:,}",
                    "rounds between codes": refresh,
                    "codebooks down": f"{table:,}",
                    "codes down": f"{codes:,.0f}",
                    "up": f"{up:,}",
                    "times less": f"{2 * vectors / (down + up):,.1f}",
                    "times less than int8": f"{2 * rounded / (down + up):,.1f}",
                }
            )
    return rows


ABOUT = {
    "quality": "Leave-last-out, full ranking and the target among 99 drawn items; bytes of a "
    "client and round as serialised, mean over rounds. Arms of codes and hashed rows send and "
    "receive a byte a number, `float32` and `coarse` aside, and so does `small dim` but on Office; "
    "what goes up is rounded once for all users of the one node. Differences over the same users "
    "with 95 % intervals. Written by `benchmarks/rqfedrec.py`.",
    "noise": "NDCG@10 with a share of every history's events drawn at random. Written by "
    "`benchmarks/rqfedrec.py`.",
    "cold": "Targets among a tenth of the items that comes only after training: in no history and "
    "no one's negative. Of 100: among 99 drawn items, most of them old; of new: among new items "
    "alone; differences with 95 % intervals over targets of all seeds. Written by "
    "`benchmarks/rqfedrec.py`.",
    "seeds": "NDCG@10; differences with 95 % intervals: over users (of each one's mean over seeds) "
    "and over seeds (Student's t of their means). Written by `benchmarks/rqfedrec.py`.",
    "bytes": "Arithmetic: 32 dimensions; 512 code vectors and a sketch of 1,024 rows, a byte a "
    "number and a step a row; 12 collaborative codes of a byte; the two semantic codes travel "
    "once. Written by `benchmarks/rqfedrec.py`.",
}
CONTROLS = ["pfedrec", "small dim", "hashed", "semantic only", "curriculum"]


def main() -> None:
    """Run what is missing and write the tables of all data sets that were measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=OF_DATA, default="movietweetings")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--items", type=Path)
    parser.add_argument("--parts", nargs="*", choices=list(ABOUT), default=list(ABOUT))
    parser.add_argument("--arms", nargs="*")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, help="fewer, to try it out; give --raw with it")
    parser.add_argument("--raw", type=Path, help="where files of runs lie, and then the tables too")
    args = parser.parse_args()
    global RAW
    RAW = args.raw or RAW
    RAW.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    archive = (args.raw or HERE.parent) / "rqfedrec.zip"
    unpack(archive, RAW)
    more = {"rounds": args.rounds} if args.rounds else {}
    bench = Bench(args.data, read_split(args.data, args.log, args.items, RAW), **more)
    chosen, few = args.arms or list(bench.arms), args.arms or CONTROLS
    made = {
        "quality": lambda: quality(bench, args.seeds, chosen),
        "noise": lambda: noise_rows(bench, args.seeds, few),
        "cold": lambda: cold_rows(bench, args.seeds, few),
        "seeds": lambda: seed_rows(bench, args.seeds, few),
        "bytes": arithmetic,
    }
    folder = args.raw or HERE.parent
    for part in args.parts:
        path = folder / ("rqfedrec.md" if part == "quality" else f"rqfedrec_{part}.md")
        rows = made[part]()
        if part != "bytes":  # rows of other data stay as they are
            rows = [row for row in read_table(path) if row["data"] != bench.name] + rows
        write_table(path, rows, ABOUT[part])
    pack(RAW, archive, "*.json")


if __name__ == "__main__":
    main()
