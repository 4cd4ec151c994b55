"""Two processes give the result of one (DDP through Lightning Fabric, on CPUs)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foretaste.experiments.recipe import Recipe
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import train
from foretaste.storage import read_arrays


def trained_by_two(recipe: Recipe, folder: Path) -> RunFolder:
    """What two processes on processors make of a recipe."""
    path = folder / "recipe.toml"
    path.write_text(recipe.to_toml())
    command = [sys.executable, "-m", "foretaste.cli.main", "train", str(path)]
    done = subprocess.run(
        [*command, "--run", str(folder / "two"), "--devices", "2", "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return RunFolder.open(folder / "two")


def test_two_processes_train_the_weights_of_one(recipe, tmp_path):
    # Without dropout nothing is random within a batch, so the two must agree but for rounding.
    exact = recipe.with_settings({"model.dropout": 0.0, "train.epochs": 3})
    one, two = train(exact, tmp_path / "one"), trained_by_two(exact, tmp_path)
    assert two.recipe["run"]["devices"] == 2
    ours, theirs = (read_arrays(run.path / "weights.safetensors") for run in (one, two))
    for name, weight in ours.items():
        np.testing.assert_allclose(weight, theirs[name], atol=2e-5, err_msg=name)
    losses = [[epoch["loss"] for epoch in run.record["fit"]["epochs"]] for run in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    targets = [[epoch["targets"] for epoch in run.record["fit"]["epochs"]] for run in (one, two)]
    assert targets[0] == targets[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("tiger", {}),
        ("tiger", {"reads": "codes"}),
        ("mdgr", {}),
        ("s2gr", {}),
        ("s2gr", {"thinking": "blank"}),
        ("s2gr", {"contrast": 0.0}),
    ],
)
def test_two_processes_train_what_writes_codes(log, tmp_path, name: str, own: dict):
    # MDGR draws its masks in each process, so only the others have the weights of one process.
    small = {"layers": 1, "decoder_layers": 1, "source_dim": 8, "beams": 5, "dropout": 0.0}
    codes = {"kind": "opq", "size": 8} if name == "mdgr" else {"kind": "rqkmeans", "size": 8}
    tiny = Recipe.build(
        {
            "data": {"source": str(log)},
            "model": {"name": name, "dim": 16, "codes": {"tokenizer": codes}} | small | own,
            "train": {"epochs": 1, "batch_tokens": 400},
            "run": {"threads": 1},
        }
    )
    one, two = train(tiny, tmp_path / "one"), trained_by_two(tiny, tmp_path)
    ours, theirs = (read_arrays(run.path / "weights.safetensors") for run in (one, two))
    assert ours.keys() == theirs.keys()
    for key, weight in ours.items():
        if name != "mdgr":
            np.testing.assert_allclose(weight, theirs[key], atol=2e-5, err_msg=key)
