"""Which codes a thought helps to write: S2GR beside blank thoughts, level by level.

    .venv/bin/python benchmarks/s2gr_levels.py --amazon FOLDER --seeds 0 1 2
    .venv/bin/python benchmarks/s2gr_levels.py --data movietweetings --sources both

S2GR's paper says that what it gains lies in the later codes. Here each test question's right item
is written code by code, the right codes before it given: how often the likeliest code, of those
that lead to an item, is the right one, and how many nats it costs. Answers outside the catalog have
no codes and are left out. Arms are fitted as ``generative_quality.py`` fits them, with its codes,
the rates that it chose and one dropout. Of thoughts it is also told how often they point at the
right cluster, and how often the commonest cluster of the training targets would.
Figures of every question are kept in ``--runs`` and packed beside the table.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from generative_arms import NAMED
from generative_quality import Data, Settings, fit, read_data
from kept import Kept, difference_of_users, pack, unpack, with_interval
from peers.driving import write_table
from torch import Tensor

from foretaste.codes.beam import Step
from foretaste.nn.decoder import Texts
from foretaste.recommenders.s2gr import S2GRNetwork
from foretaste.recommenders.tiger import TIGER, TIGERNetwork

RATES = {
    "S2GR": 0.001,
    "S2GR, blank thoughts": 0.001,
    "S2GR, alignment that fades": 0.001,
    "S2GR, no alignment": 0.001,
    "TIGER over CoBa codes": 0.001,
}
"""What is measured, with the learning rate that validation chose in ``generative_quality.py``."""
BESIDE = "S2GR, blank thoughts"
AT_ONCE = 256


class Found(NamedTuple):
    """Of questions, level by level.

    Attributes:
        right: bool ``[n, L]``, whether the likeliest code is the right one.
        nats: float32 ``[n, L]``, minus the log-probability of the right one.
        left: bool ``[n, L]``, whether more than one code leads on to an item.
        pointed: bool ``[n, taught]``, whether the thought points at the right cluster.
    """

    right: Tensor
    nats: Tensor
    left: Tensor
    pointed: Tensor


@torch.no_grad()
def written(network: TIGERNetwork, items: Tensor, lengths: Tensor, goals: Tensor) -> Found:
    """The right codes of ``goals`` ``[n]`` after histories ``[n, P]``."""
    memory, begin = network.memory_of_last(network.read(items), lengths)
    queries = torch.arange(len(goals))
    taught = network.teach(begin, goals, memory, Texts(queries, len(goals)))
    codes = network.codes.codes_of(goals)
    right, left = [], []
    for level in range(codes.shape[1]):
        step = Step(level, queries, codes[:, :level], None)
        logits = network.stepwise.logits(step, taught.hidden[:, level])
        right.append(logits.argmax(1) == codes[:, level])
        left.append(logits.isfinite().sum(1) > 1)
    pointed = torch.zeros(len(goals), 0, dtype=torch.bool)
    if isinstance(network, S2GRNetwork) and network.taught:
        assert taught.thoughts is not None
        levels = [
            network.pointed(level, taught.thoughts[:, level]).argmax(1)
            == network.clusters(level)[codes[:, level]]
            for level in range(network.taught)
        ]
        pointed = torch.stack(levels, 1)
    nats = network.stepwise.losses(taught.hidden, goals)
    return Found(torch.stack(right, 1), nats, torch.stack(left, 1), pointed)


def commonest(network: S2GRNetwork, targets: np.ndarray, goals: np.ndarray) -> list[float]:
    """How often the commonest cluster of the training targets is the right one."""
    shares = []
    for level in range(network.taught):
        told = network.clusters(level)
        seen, asked = (
            told[network.codes.codes_of(torch.from_numpy(items).long())[:, level]]
            for items in (targets, goals)
        )
        shares.append(float((asked == seen.bincount().argmax()).float().mean()))
    return shares


def measure(name: str, data: Data, seed: int, args: argparse.Namespace) -> None:
    """Fit an arm and write the right codes of every question."""
    begin = time.process_time()
    model = fit(NAMED[name], data, seed, Settings(RATES[name]), args)
    assert isinstance(model, TIGER)
    network = model.network
    assert isinstance(network, TIGERNetwork)
    network.eval()
    histories, targets = data.split.test.histories, data.split.test.targets
    asked = np.flatnonzero((histories.lengths > 0) & (targets.lengths > 0))
    goals = targets.items[targets.offsets[asked]]
    asked, goals = asked[goals >= 0], goals[goals >= 0]  # what is in no catalog has no codes
    parts = []
    for first in range(0, len(asked), AT_ONCE):
        some = histories.take(asked[first : first + AT_ONCE]).last(model.config.max_length)
        items = np.zeros((len(some), int(some.lengths.max())), np.int64)
        items[some.rows, np.arange(some.events) - some.offsets[:-1][some.rows]] = some.items
        goal = torch.from_numpy(goals[first : first + AT_ONCE].astype(np.int64))
        parts.append(
            written(network, torch.from_numpy(items), torch.from_numpy(some.lengths), goal)
        )
    figures: dict[str, Any] = {"users": data.split.test.users[asked]} | {
        field: torch.cat([getattr(part, field) for part in parts]).numpy()
        for field in Found._fields
    }
    if isinstance(network, S2GRNetwork) and network.taught:
        figures["commonest"] = commonest(network, data.split.train.items, goals)
    Kept(args.runs / data.name, name).save(seed, figures)
    print(
        data.name,
        name,
        seed,
        {name: np.round(np.mean(figures[name], 0), 4).tolist() for name in Found._fields},
        f"{time.process_time() - begin:.0f} s",
        flush=True,
    )


def rows_of(data: str, runs: Path) -> list[dict[str, Any]]:
    """A row for each arm and level, beside blank thoughts."""
    known = {name: Kept(runs / data, name) for name in RATES}
    known = {name: kept for name, kept in known.items() if kept.seeds}
    rows = []
    for name, kept in known.items():
        for level in range(kept.seeds[0]["right"].shape[1]):
            right, nats = (kept.values(figure)[:, level] for figure in ("right", "nats"))
            row: dict[str, Any] = {
                "data": data,
                "model": name,
                "seeds": len(kept.seeds),
                "code": level + 1,
                "left to choose": f"{kept.values('left')[:, level].mean():.1%}",
                "right": f"{right.mean():.4f}",
                "right minus blank": "",
                "nats": f"{nats.mean():.3f}",
                "nats minus blank": "",
                "cluster right": "",
                "commonest cluster": "",
            }
            if name != BESIDE and BESIDE in known:
                common = {*kept.numbers} & {*known[BESIDE].numbers}
                for figure in ("right", "nats"):
                    mine, blank = (
                        one.values(figure, common)[:, level].astype(np.float64)
                        for one in (kept, known[BESIDE])
                    )
                    one = difference_of_users(mine, blank, kept.seeds[0]["users"])
                    row[f"{figure} minus blank"] = with_interval(one)
            if level < kept.seeds[0]["pointed"].shape[1]:
                row["cluster right"] = f"{kept.values('pointed')[:, level].mean():.3f}"
                row["commonest cluster"] = f"{kept.values('commonest')[level]:.3f}"
            rows.append(row)
    return rows


def main() -> None:
    """Measure what is missing, and write the table of all that is there beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amazon", type=Path, nargs="*", default=[])
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--models", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sources", nargs=1, default=["text"])
    parser.add_argument("--validate-every", type=int, default=3, help="epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs/s2gr-levels"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    archive = args.out.with_suffix(".zip")
    unpack(archive, args.runs)
    for data in read_data(args):
        for seed in args.seeds:
            for name in args.models:
                if not Kept(args.runs / data.name, name).path(seed).exists():
                    measure(name, data, seed, args)
    pack(args.runs, archive)
    folders = sorted(path.name for path in args.runs.iterdir() if path.is_dir())
    rows = [row for data in folders for row in rows_of(data, args.runs)]
    about = (
        "Each code of the right item, the right codes before it given; means over seeds and test "
        "questions, with 95 % intervals over users of what is above blank thoughts (below, for "
        "nats). Written by `benchmarks/s2gr_levels.py`."
    )
    write_table(args.out, rows, about)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
