"""Why a pool can be shared: how much of users' keys and values lies in common directions.

    .venv/bin/python benchmarks/collectivekv_motive.py --data ml-100k.parquet

Full attention (SASRec, width 128) is trained; then keys and values of every user's last events are
taken from both layers. Half of the users give a basis common to all (the leading directions of
their events together). For every other user the newer half of the events is projected on it, and
what is left, the residual, on two bases of a few directions: that of the user's own older residuals
and, as the control, that of another user's. What the own basis explains beyond the other's is the
part that is the user's own. Energy is the sum of squares about the mean over all users' events.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.driving import write_table

from foretaste.data.sequences import Sequences
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, Recipe, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.metrics import bootstrap_mean, paired_difference
from foretaste.recommenders.sasrec import SASRec

COMMON = (1, 2, 4, 8, 16, 32, 64)
OWN = 4
MODEL = {"name": "sasrec", "dim": 128, "layers": 2, "heads": 2, "window": 50, "max_length": 100}


def keys_and_values(model: SASRec, histories: Sequences, events: int) -> dict[str, np.ndarray]:
    """``[users, events, 128]`` of every layer, by name, of users with enough events."""
    rows = np.flatnonzero(histories.lengths >= events)
    items = np.stack([histories[row][-events:] for row in rows])
    network = model.network.eval()
    with torch.no_grad():
        state = network.start(len(rows))
        kept = []
        for first in range(0, events, network.window):  # a state keeps a window of records
            part = torch.from_numpy(items[:, first : first + network.window])
            state = network.extend(state, part)
            kept.append(state.records[:, -part.shape[1] :].clone())
        records = torch.cat(kept, 1)
    found, place = {}, 0
    for depth, (layer, width) in enumerate(zip(network.layers, network.widths(), strict=True), 1):
        part = records[..., place : place + width].contiguous()
        key, value = layer.key_values.unpack(part)
        found |= {f"keys, layer {depth}": key.numpy(), f"values, layer {depth}": value.numpy()}
        place += width
    return found


def basis(vectors: np.ndarray, rank: int) -> np.ndarray:
    """The leading directions of rows of ``vectors``, ``[rank, width]``."""
    return np.linalg.svd(vectors, full_matrices=False)[2][:rank]


def explained(vectors: np.ndarray, directions: np.ndarray) -> float:
    """Share of the energy of rows of ``vectors`` in the span of ``directions``."""
    return float(((vectors @ directions.T) ** 2).sum() / (vectors**2).sum())


def analyse(parts: np.ndarray, seed: int) -> list[dict[str, np.ndarray]]:
    """For each rank of the common basis, shares of energy of every held-out user."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(parts))
    givers, others = order[: len(parts) // 2], order[len(parts) // 2 :]
    centred = parts - parts[givers].mean((0, 1))
    together = basis(centred[givers].reshape(-1, parts.shape[-1]), max(COMMON))
    half = parts.shape[1] // 2
    found = []
    for rank in COMMON:
        common = together[:rank]
        left = centred - (centred @ common.T) @ common  # residuals
        own = [basis(left[user, :half], OWN) for user in others]
        neighbours = np.roll(np.arange(len(others)), 1)
        newer = [left[user, half:] for user in others]
        found.append(
            {
                "common": np.array([explained(centred[user, half:], common) for user in others]),
                "own": np.array([explained(n, b) for n, b in zip(newer, own, strict=True)]),
                "another": np.array(
                    [explained(n, own[at]) for n, at in zip(newer, neighbours, strict=True)]
                ),
            }
        )
    return found


def drawing(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """The shares against the rank, as an SVG that stands by itself."""
    width, height, left, bottom = 640, 320, 52, 44
    most = np.log2(max(COMMON))
    colours = ("#0f766e", "#b45309", "#64748b")
    marks = []

    def at(rank: float, share: float) -> tuple[float, float]:
        x = left + np.log2(rank) / most * (width - left - 170)
        return round(x, 1), round(16 + (1 - share) * (height - bottom - 16), 1)

    for share in (0, 0.25, 0.5, 0.75, 1):
        (x, y), (end, _) = at(1, share), at(max(COMMON), share)
        marks.append(f'<line x1="{x}" y1="{y}" x2="{end}" y2="{y}" stroke="#94a3b855"/>')
        marks.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    for rank in COMMON:
        x, y = at(rank, 0)
        marks.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{rank}</text>')
    x, y = at(np.sqrt(max(COMMON)), 0)
    marks.append(f'<text x="{x}" y="{y + 38}" text-anchor="middle">common directions</text>')
    for (name, points), colour in zip(curves.items(), colours, strict=True):
        path_of = " ".join(f"{x},{y}" for x, y in (at(*point) for point in points))
        marks.append(
            f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        )
        x, y = at(*points[-1])
        marks.append(f'<text x="{x + 8}" y="{y + 4}" fill="{colour}">{name}</text>')
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#64748b"><title>Energy of keys '
        f"and values in common directions and in users' own</title>{''.join(marks)}</svg>\n"
    )


def main() -> None:
    """Train, analyse, and write the table beside this script and the figure into the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    figure = Path(__file__).parent.parent / "docs/images/collectivekv_motive.svg"
    prepared = split_dataset(
        load_dataset(DataSection(source=str(args.data))), SplitSection(kind="leave-last-out")
    )
    train = {"batch_tokens": 3_000, "epochs": args.epochs, "patience": 6, "min_epochs": 12}
    values: dict[str, Any] = {"data": {"source": str(args.data)}, "model": MODEL | {"dropout": 0.3}}
    recipe = Recipe.build(values | {"train": train, "run": {"threads": 1}})
    model = recipe.recommender()
    assert isinstance(model, SASRec)
    model.fit(prepared, recipe.context())
    rows, curves = [], []
    for name, parts in keys_and_values(model, prepared.test.histories, args.events).items():
        found = analyse(parts, 0)
        curves.append(found)
        for rank, shares in zip(COMMON, found, strict=True):
            more = paired_difference(shares["own"], shares["another"])
            common = bootstrap_mean(shares["common"])
            rows.append(
                {
                    "of": name,
                    "common directions": rank,
                    "energy in them": f"{common.value:.3f} ({common.low:.3f}-{common.high:.3f})",
                    f"residual in {OWN} own": f"{shares['own'].mean():.3f}",
                    f"in {OWN} of another user": f"{shares['another'].mean():.3f}",
                    "own minus another's": f"{more.difference:+.3f} "
                    f"({more.low:+.3f} to {more.high:+.3f}; p {more.p_value:.4f})",
                    "users": more.users,
                }
            )
    about = (
        f"SASRec of width 128 on {args.data.stem}, last {args.events} events of users who have as "
        "many; users of the rows did not give the common basis; own bases are from their older "
        "events. Written by `benchmarks/collectivekv_motive.py`."
    )
    write_table(args.out, rows, about)
    names = {"common": "in common", "own": "residual, own", "another": "residual, another's"}
    mean = {
        shown: [
            (rank, float(np.mean([one[place][key].mean() for one in curves])))
            for place, rank in enumerate(COMMON)
        ]
        for key, shown in names.items()
    }
    drawing(mean, figure)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
