"""A run that is cut off, in whatever way, goes on to the very same weights."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foretaste.experiments.recipe import Recipe
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import resume, train
from foretaste.storage import read_arrays

COMMAND = [sys.executable, "-m", "foretaste.cli.main"]
EPOCHS = 40


def start(recipe: Recipe, folder: Path, tmp_path: Path, **options) -> subprocess.Popen:
    """``foretaste train`` in a process of its own."""
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    arguments = ["train", str(path), "--run", str(folder)]
    return subprocess.Popen(
        [*COMMAND, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


def wait_for_epoch(folder: Path, epoch: int, process: subprocess.Popen) -> None:
    """Until the log of a run tells of an epoch."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        log = folder / "log.jsonl"
        if log.exists() and log.read_text().count('"event": "epoch"') >= epoch:
            return
        time.sleep(0.01)
    raise AssertionError(f"epoch {epoch} did not come: {process.communicate()[1]}")


def assert_same_weights(left: Path, right: Path) -> None:
    a = read_arrays(left / "weights.safetensors")
    b = read_arrays(right / "weights.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture
def long_recipe(recipe) -> Recipe:
    return recipe.with_settings({"train.epochs": EPOCHS, "train.patience": 0})


def test_after_kill_9_the_weights_are_bit_for_bit_those_of_the_uninterrupted_run(
    long_recipe, tmp_path
):
    whole = train(long_recipe, tmp_path / "whole")
    folder = tmp_path / "cut"
    process = start(long_recipe, folder, tmp_path)
    wait_for_epoch(folder, 3, process)
    process.kill()
    process.communicate()
    assert not RunFolder.open(folder).finished
    assert (folder / "checkpoint.safetensors").exists()
    done = resume(folder)
    assert done.finished
    assert not (folder / "checkpoint.safetensors").exists()
    assert_same_weights(whole.path, folder)
    assert done.metrics["test"]["metrics"] == whole.metrics["test"]["metrics"]
    epochs = [epoch["epoch"] for epoch in done.record["fit"]["epochs"]]
    assert epochs == list(range(1, EPOCHS + 1))
    begun = f"main.py train {tmp_path / 'recipe.toml'} --run {folder}"
    assert done.record["command"] == begun  # of a resumed run too, this is how to repeat it


def test_ctrl_c_leaves_a_run_that_can_go_on(long_recipe, tmp_path):
    folder = tmp_path / "cut"
    process = start(long_recipe, folder, tmp_path)
    wait_for_epoch(folder, 2, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in error
    assert "foretaste resume" in error.splitlines()[-1]
    assert resume(folder).finished


def test_a_run_cut_off_before_its_first_epoch_begins_anew(recipe, tmp_path):
    whole = train(recipe, tmp_path / "whole")
    folder = tmp_path / "cut"
    RunFolder.create(folder, Recipe.read(whole.path / "recipe.toml"))
    assert_same_weights(whole.path, resume(folder).path)


def test_a_run_begun_from_a_folder_beside_it_goes_on_from_anywhere(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = recipe.with_settings({"train.epochs": 1})
    train(recipe, "full")
    small = recipe.with_settings({"model.attention": "collective", "model.start_from": "full"})
    whole = train(small, "whole")
    RunFolder.create(tmp_path / "cut", Recipe.read(whole.path / "recipe.toml"))
    monkeypatch.chdir("/")
    assert_same_weights(tmp_path / "whole", resume(tmp_path / "cut").path)


def test_a_damaged_checkpoint_is_named(recipe, tmp_path):
    from foretaste.errors import InputError

    folder = RunFolder.create(tmp_path / "cut", recipe)
    (folder.path / "checkpoint.safetensors").write_bytes(b"half of it")
    with pytest.raises(InputError, match="checkpoint.safetensors"):
        resume(folder.path)


def test_data_that_changed_is_refused(recipe, tmp_path):
    from foretaste.errors import InputError

    source = tmp_path / "log.csv"
    source.write_text(Path(recipe.data.source).read_text())
    changing = recipe.with_settings({"data.source": str(source)})
    run = train(changing, tmp_path / "run")
    record = run.record | {"status": "training"}
    run.write("run.json", record)
    source.write_text("\n".join(source.read_text().splitlines()[:-5]))
    with pytest.raises(InputError, match="has changed"):
        resume(run.path)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(recipe, tmp_path):
    first, second = train(recipe, tmp_path / "a"), train(recipe, tmp_path / "b")
    assert_same_weights(first.path, second.path)
    other = train(recipe.with_settings({"run.seed": 1}), tmp_path / "c")
    with pytest.raises(AssertionError):
        assert_same_weights(first.path, other.path)


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are a thing of POSIX")
def test_a_full_disk_ends_in_one_line_and_keeps_what_was_there(recipe, tmp_path):
    """A limit on the size of a file stands for the disk: the checkpoint does not fit."""

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    folder = tmp_path / "run"
    process = start(recipe, folder, tmp_path, preexec_fn=small_disk)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2, error
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert "checkpoint.safetensors" in last
    assert "Free some space" in last
    assert not list(folder.glob("*.partial"))
    assert resume(folder).finished  # with room again
