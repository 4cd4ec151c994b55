"""Why a pool can be shared: how much of users' keys and values lies in common directions.

    .venv/bin/python benchmarks/collectivekv_motive.py --data ml-100k.parquet
    .venv/bin/python benchmarks/collectivekv_motive.py --data ml-100k.parquet --run FOLDER

Full attention (SASRec, width 128) is trained, or taken from a folder where such a model was saved
(``collectivekv.py`` leaves them as ``sasrec-start-SEED``); then keys and values of every user's
last events are taken from both layers. Half of the users give a basis common to all (the leading
directions of their events together). For every other user the newer half of the events is projected
on it, and what is left, the residual, on two bases of a few directions: that of the user's own
older residuals and, as the control, that of another user's. What the own basis explains beyond the
other's is the part that is the user's own. Energy is the sum of squares about the mean over all
users' events.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import COLOURS, LEFT, PANEL, Axis, Panel, legend, write
from peers.driving import write_table

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import DataSection, Recipe, SplitSection
from foretaste.experiments.running import split_dataset
from foretaste.metrics import bootstrap_mean, paired_difference
from foretaste.nn.attention import WindowedBlock
from foretaste.recommenders.sasrec import SASRec

COMMON = (1, 2, 4, 8, 16, 32, 64)
OWN = 4
MODEL = {"name": "sasrec", "dim": 128, "layers": 2, "heads": 2, "window": 50, "max_length": 100}


def keys_and_values(model: SASRec, histories: Sequences, events: int) -> dict[str, np.ndarray]:
    """``[users, events, 128]`` of every layer, by name, of users with enough events."""
    rows = np.flatnonzero(histories.lengths >= events)
    items = np.stack([histories[int(row)][-events:] for row in rows])
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
        assert isinstance(layer, WindowedBlock)
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


Curves = Mapping[str, Sequence[tuple[float, float]]]


def drawing(panels: Mapping[str, Curves], path: Path) -> None:
    """The shares against the rank, a panel for each layer, as an SVG that stands by itself."""
    across = Axis("common directions", COMMON, str, log=True)
    up = Axis("", (0, 0.25, 0.5, 0.75, 1), "{:.0%}".format)
    marks = []
    for place, (title, curves) in enumerate(panels.items()):
        panel = Panel(title, across, up, LEFT + place * (PANEL + 24))
        marks += panel.frame(numbered=not place)
        for points, colour in zip(curves.values(), COLOURS, strict=True):
            marks.append(panel.curve(points, colour))
    marks += legend(zip(next(iter(panels.values())), COLOURS, strict=True), LEFT, 214)
    title = "Energy of keys and values in common directions and in users' own"
    write(path, marks, LEFT + len(panels) * (PANEL + 24), title)


def trained(source: Path, prepared: Split, epochs: int) -> SASRec:
    """Full attention, trained from nothing."""
    train = {"batch_tokens": 3_000, "epochs": epochs, "patience": 6, "min_epochs": 12}
    values: dict[str, Any] = {"data": {"source": str(source)}, "model": MODEL | {"dropout": 0.3}}
    recipe = Recipe.build(values | {"train": train, "run": {"threads": 1}})
    model = recipe.recommender()
    assert isinstance(model, SASRec)
    model.fit(prepared, recipe.context())
    return model


def main() -> None:
    """Train, analyse, and write the table beside this script and the figure into the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="a trained SASRec with full attention")
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    figure = Path(__file__).parent.parent / "docs/images/collectivekv_motive.svg"
    prepared = split_dataset(
        load_dataset(DataSection(source=str(args.data))), SplitSection(kind="leave-last-out")
    )
    model = SASRec.load(args.run) if args.run else trained(args.data, prepared, args.epochs)
    assert model.config.attention == "full"
    assert model.catalog is not None and model.catalog.item_ids == prepared.catalog.item_ids
    rows: list[dict[str, Any]] = []
    layers: dict[str, list[list[dict[str, np.ndarray]]]] = {}
    for name, parts in keys_and_values(model, prepared.test.histories, args.events).items():
        found = analyse(parts, 0)
        layers.setdefault(name.partition(", ")[2], []).append(found)
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
    names = {
        "all, in common directions": "common",
        f"the rest, in {OWN} of the user's": "own",
        f"the rest, in {OWN} of another's": "another",
    }
    panels = {
        f"keys and values of {layer}": {
            shown: [
                (rank, float(np.mean([one[place][key].mean() for one in curves])))
                for place, rank in enumerate(COMMON)
            ]
            for shown, key in names.items()
        }
        for layer, curves in layers.items()
    }
    drawing(panels, figure)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
