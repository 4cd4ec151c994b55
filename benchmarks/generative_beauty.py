"""TIGER on Amazon Beauty beside the public record, and what its codes are made of.

    .venv/bin/python benchmarks/peers/prepare.py --beauty FOLDER/Beauty.txt --out DATA
    .venv/bin/python benchmarks/generative_beauty.py --log DATA/beauty.parquet \
        --attributes FOLDER/Beauty_item2attributes.json

The record codes titles, which this release does not have. It has attributes of items (numbers that
stand for categories and brands); here codes are made of them, of collaborative vectors of the
training part, or of both, and validation chooses (the first seed). Everything else is as in
``generative_quality.py``: width, blocks, early stopping. Dropout is .3 or, by ``--dropout``, .1;
learning rates are those that validation chose there on ``amazon18-office``, the set of the nearest
size.

Leave-last-out on the 5-core, full ranking, as in the record. The record ranks items of the history
too; both ways are in the table. Validation leaves them out, as it does in training. Figures of
every user are kept in ``--runs`` and packed beside the table.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from generative_arms import FIXED, Arm
from generative_quality import Data, Settings, fit
from kept import Kept, pack, unpack, with_interval
from peers.driving import write_table

from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.metrics import bootstrap_mean, holm, paired_difference
from foretaste.recommenders.core.base import Exclude
from foretaste.recommenders.core.ranking import rank_queries

METRICS = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")
ASKED: dict[Exclude, str] = {"none": "ranked", "seen": "left out"}
"""What is done with items of the history, and how the table calls it."""
DROPOUTS = (0.3, 0.1)
"""That were tried."""
NAMES = {"text": "attributes", "collaborative": "collaborative vectors", "both": "both"}


class Row(NamedTuple):
    """An arm as this benchmark trains it.

    Attributes:
        arm: the recommender.
        source: what its codes are made of; None is what validation likes best of TIGER.
        rate: of learning.
    """

    arm: Arm
    source: str | None = ""
    rate: float = 0.0

    def name(self, chosen: str, dropout: float = DROPOUTS[0]) -> str:
        """Of the row."""
        source = chosen if self.source is None else self.source
        own = f"{self.arm.name}, {NAMES[source]}" if source else self.arm.name
        return own if dropout == DROPOUTS[0] else f"{own}, dropout {dropout}"


TIGER = Arm("TIGER", "tiger", "rqkmeans")
ROWS = [
    Row(Arm("popularity", "popularity")),
    Row(Arm("EASE", "ease")),
    Row(Arm("SASRec", "sasrec"), rate=0.002),
    *(Row(TIGER, source, 0.002) for source in NAMES),
    Row(Arm("MDGR", "mdgr", "opq"), None, 0.001),
    Row(Arm("S2GR", "s2gr", "coba"), None, 0.001),
    Row(Arm("S2GR, blank thoughts", "s2gr", "coba", {"thinking": "blank"}), None, 0.001),
]


def read(log: Path, attributes: Path, runs: Path) -> Data:
    """The log with attributes as categories, cut by leave-last-out."""
    told = json.loads(attributes.read_text())
    items = runs / "items.parquet"
    items.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {
            "item_id": list(told),
            "categories": [[f"attribute{number}" for number in one] for one in told.values()],
        }
    ).write_parquet(items)
    dataset = load_dataset(DataSection(source=str(log), items=str(items)))
    return Data("beauty", split_dataset(dataset, SplitSection(kind="leave-last-out")), "seen")


def measure(row: Row, name: str, data: Data, seed: int, args: argparse.Namespace) -> None:
    """Fit, and ask with items of the history and without."""
    begin = time.process_time()
    model = fit(row.arm, data, seed, Settings(row.rate, args.dropout), args)
    facts: dict[str, Any] = {"fit_seconds": time.process_time() - begin}
    valid = rank_queries(model, data.split.valid, ["ndcg@10"], exclude=data.exclude)
    facts["valid"] = valid.metrics["ndcg@10"].mean()
    for exclude, asked in ASKED.items():
        answers = rank_queries(model, data.split.test, METRICS, exclude=exclude)
        facts |= {f"{metric} {asked}": answers.metrics[metric] for metric in METRICS}
    Kept(args.runs / data.name, name).save(seed, facts)
    told = {name: float(np.mean(figure)) for name, figure in facts.items()}
    print(name, seed, {name: round(figure, 4) for name, figure in told.items()}, flush=True)


def chosen_source(runs: Path) -> str:
    """The source of codes that validation likes best of TIGER, with the first seed."""
    tried = {source: Kept(runs / "beauty", Row(TIGER, source).name("")).path(0) for source in NAMES}
    there = {source: path for source, path in tried.items() if path.exists()}
    assert there, "TIGER comes before arms that take its codes' source"
    return max(there, key=lambda source: float(np.load(there[source])["valid"]))


def rows_of(runs: Path) -> list[dict[str, Any]]:
    """The table, each row against SASRec."""
    names = [
        row.name(source, dropout)
        for row in ROWS
        for source in (NAMES if row.source is None else [""])
        for dropout in DROPOUTS
    ]
    known = {name: Kept(runs / "beauty", name) for name in names}
    known = {name: kept for name, kept in known.items() if kept.seeds}
    against, tests = known.get("SASRec"), {}
    metric = "ndcg@10 ranked"
    for name, kept in known.items():
        if against is not None and kept is not against:
            common = {*kept.numbers} & {*against.numbers}
            both = (one.values(metric, common) for one in (kept, against))
            tests[name] = paired_difference(*both)
    corrected = dict(zip(tests, holm([one.p_value for one in tests.values()]), strict=True))
    rows = []
    for name, kept in known.items():
        row: dict[str, Any] = {"model": name, "seeds": len(kept.seeds)}
        for figure in METRICS:
            mean = bootstrap_mean(kept.values(f"{figure} ranked"))
            row[figure] = f"{mean.value:.4f} ({mean.low:.4f}-{mean.high:.4f})"
        for figure in ("hr@5", "ndcg@10"):
            row[f"{figure}, history left out"] = f"{kept.values(f'{figure} left out').mean():.4f}"
        one = tests.get(name)
        row["ndcg@10 minus SASRec"] = with_interval(one, corrected[name]) if one else ""
        row["validation"] = f"{kept.fact('valid'):.4f}"
        row["CPU s to fit"] = f"{kept.fact('fit_seconds'):.0f}"
        rows.append(row)
    return rows


def main() -> None:
    """Measure what is missing, and write the table of all that is there beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(ROWS))))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dropout", type=float, choices=DROPOUTS, default=DROPOUTS[0])
    parser.add_argument("--validate-every", type=int, default=3, help="epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs/generative-beauty"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    archive = args.out.with_suffix(".zip")
    unpack(archive, args.runs)
    data = read(args.log, args.attributes, args.runs)
    for seed in args.seeds:
        for row in [ROWS[number] for number in args.rows]:
            source = chosen_source(args.runs) if row.source is None else row.source
            args.sources = [source or "text"]
            name = row.name(source, args.dropout)
            done = Kept(args.runs / data.name, name).path(seed).exists()
            if not done and not (seed and row.arm.model in FIXED):
                measure(row, name, data, seed, args)
    pack(args.runs, archive)
    about = (
        "Amazon Beauty, 5-core, leave-last-out, full ranking, items of the history ranked too "
        "unless left out. Width 64, 2 blocks that read and 2 that write; means over seeds with "
        "95 % intervals over users, differences paired by user, p Holm-corrected. CPU seconds of "
        "one thread. Written by `benchmarks/generative_beauty.py`."
    )
    write_table(args.out, rows_of(args.runs), about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
