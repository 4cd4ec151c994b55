"""Two processes give the result of one (DDP through Lightning Fabric, on CPUs)."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import train
from foretaste.storage import read_arrays


def test_two_processes_train_the_weights_of_one(recipe, tmp_path):
    # Without dropout nothing is random within a batch, so the two must agree but for rounding.
    exact = recipe.with_settings({"model.dropout": 0.0, "train.epochs": 3})
    one = train(exact, tmp_path / "one")
    path = tmp_path / "recipe.toml"
    path.write_text(exact.to_toml())
    command = [sys.executable, "-m", "foretaste.cli.main", "train", str(path)]
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "two"), "--devices", "2", "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    two = RunFolder.open(tmp_path / "two")
    assert two.recipe["run"]["devices"] == 2
    ours, theirs = (read_arrays(run.path / "weights.safetensors") for run in (one, two))
    for name, weight in ours.items():
        np.testing.assert_allclose(weight, theirs[name], atol=2e-5, err_msg=name)
    losses = [[epoch["loss"] for epoch in run.record["fit"]["epochs"]] for run in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    targets = [[epoch["targets"] for epoch in run.record["fit"]["epochs"]] for run in (one, two)]
    assert targets[0] == targets[1]
