"""What a run must not touch, and what two processes must not do at once."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from foretaste.errors import InputError, WriteError
from foretaste.experiments.loading import load_dataset, located
from foretaste.experiments.recipe import DataSection, Recipe
from foretaste.experiments.run_folder import WRITTEN, RunFolder
from foretaste.experiments.running import resume, train


@pytest.fixture
def quick(log) -> Recipe:
    """Popularity on the ring."""
    return Recipe.build({"data": {"source": str(log)}, "model": {"name": "popularity"}})


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_a_run_would_write_over_is_told_and_stays(quick, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds a {name} that is of no run"):
        train(quick, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_that_learns_nothing_takes_only_its_own_files_away(quick, log, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    broken = quick.with_settings({"split.kind": "leave-last-out", "model.window_days": 5})
    no_times = broken.with_settings({"data.time_col": ""})
    with pytest.raises(InputError):
        train(no_times, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_log_that_cannot_be_written_leaves_a_run_that_can_go_on(quick, tmp_path, monkeypatch):
    """A full disk is no reason to take the run away."""
    opened = Path.open

    def full(path, mode="r", **options):
        if path.name == "log.jsonl" and path.exists():  # the second line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(WriteError, match=r"log.jsonl: .*No space left.*foretaste resume"):
        train(quick, tmp_path / "run")
    monkeypatch.undo()
    assert resume(tmp_path / "run").finished


def test_every_file_of_a_run_is_guarded(quick, recipe, tmp_path):
    for number, one in enumerate((quick, recipe)):
        run = train(one, tmp_path / str(number))
        written = {path.name for path in run.path.iterdir()} - {"recipe.toml"}
        assert written <= set(WRITTEN)


def test_two_processes_do_not_work_in_one_run(quick, tmp_path):
    run = train(quick, tmp_path / "run")
    left = run.path / "metrics.json.77-abc.partial"
    left.write_text("half")
    with run.alone():
        assert not left.exists()  # of a process that was killed
        with pytest.raises(InputError, match="another process is at work"):
            resume(run.path)
    resume(run.path)


@pytest.mark.parametrize("name", ["metrics.parquet", "metrics.json", "samples.json"])
def test_damaged_figures_of_a_finished_run_are_made_again(quick, tmp_path, name):
    run = train(quick, tmp_path / "run")
    whole, figures = (run.path / name).read_bytes(), run.metrics["test"]["metrics"]
    (run.path / name).write_bytes(whole[:20])
    with pytest.raises(InputError, match="resume"):
        fresh = RunFolder.open(run.path)
        _ = fresh.per_query("test"), fresh.metrics, fresh.samples
    again = resume(run.path)
    assert len(again.per_query("test")) == len(run.per_query("test"))
    assert again.metrics["test"]["metrics"] == figures
    if name != "metrics.json":  # which tells the seconds too
        assert (run.path / name).read_bytes() == whole


def test_a_finished_run_without_weights_says_to_train_again(quick, tmp_path):
    run = train(quick, tmp_path / "run")
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="train again into another folder"):
        resume(run.path)


def test_an_embedded_name_is_no_path_even_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "movietweetings").mkdir()
    monkeypatch.chdir(tmp_path)
    section = located(DataSection(source="movietweetings"))
    assert section.source == "movietweetings"
    assert len(load_dataset(section).catalog) > 10_000
    with pytest.raises(InputError, match="comes with its own titles"):
        load_dataset(DataSection(source="movietweetings", items="none.csv"))
    with pytest.raises(InputError, match="--format tsv: movietweetings comes with its own format"):
        load_dataset(DataSection(source="movietweetings", format="tsv"))


def test_a_run_of_a_glob_can_be_opened_from_anywhere(log, tmp_path, monkeypatch):
    folder = tmp_path / "logs"
    folder.mkdir()
    shutil.copy(log, folder / "a.csv")
    monkeypatch.chdir(tmp_path)
    section = located(DataSection(source="logs/*.csv"))
    monkeypatch.chdir("/")
    assert Path(section.source).is_absolute()
    assert (
        load_dataset(section).fingerprint == load_dataset(DataSection(source=str(log))).fingerprint
    )


def test_a_path_may_begin_with_the_home_folder_and_is_never_made_of_nothing(log, monkeypatch):
    monkeypatch.setenv("HOME", str(log.parent))
    section = located(DataSection(source=f"~/{log.name}", items=f"~/{log.name}"))
    assert section.source == section.items == str(log)
    with pytest.raises(InputError, match="the path is empty"):
        load_dataset(located(DataSection(source="")))


def test_damaged_figures_of_a_finished_federation_are_made_again(log, tmp_path):
    from foretaste.federated.plan import Plan
    from foretaste.federated.running import federate, go_on

    federated = {"rounds": 1, "engine": "local", "clients": 0.2, "local": {"epochs": 1}}
    model = {"name": "sasrec", "dim": 8, "max_length": 6, "window": 4}
    values = {"data": {"source": str(log)}, "model": model, "federated": federated}
    run = federate(Plan.build(values), tmp_path / "run")
    figures = run.metrics["test"]["metrics"]
    (run.path / "metrics.json").write_text("{")
    assert go_on(run.path).metrics["test"]["metrics"] == figures
