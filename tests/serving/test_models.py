"""Loading runs to be served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from foretaste.errors import InputError
from foretaste.serving.models import FILES, load_run, names_of, stamp_of


def test_names_are_those_of_the_folders_or_as_long_as_needed():
    assert names_of([Path("a/ease"), Path("b/sasrec")]) == ["ease", "sasrec"]
    paths = [Path("/x/a/run"), Path("/x/b/run"), Path("/x/b/other"), Path("/y/b/run")]
    assert names_of(paths) == ["a/run", "x/b/run", "other", "y/b/run"]
    with pytest.raises(InputError, match="given twice"):
        names_of([Path("runs/a"), Path("runs/b"), Path("runs/a")])


def test_a_loaded_run_knows_what_it_is(run_folder):
    run = load_run("me", run_folder("sasrec"))
    assert (run.name, run.recommender.name) == ("me", "sasrec")
    assert run.fingerprint == run.recommender.fingerprint
    assert run.incremental is run.recommender
    ranker = load_run("me", run_folder("din"))
    assert ranker.incremental is ranker.recommender
    assert load_run("me", run_folder("ease")).incremental is None
    assert run.stamp == stamp_of(run_folder("sasrec"))


def test_a_loaded_run_makes_nobody_wait_for_titles_or_item_vectors(run_folder, monkeypatch):
    run = load_run("me", run_folder("sasrec"))

    def make_late(*_) -> None:
        pytest.fail("made when it was asked for")

    monkeypatch.setattr("foretaste.serving.models.TitleSearch", make_late)
    monkeypatch.setattr(type(run.recommender), "item_vectors", make_late)
    assert run.titles.find("number 7", 1)[0].item == 7
    assert len(run.item_vectors) == len(run.catalog)


def test_what_cannot_be_served_is_said(tmp_path, run_folder):
    with pytest.raises(InputError, match="not a run folder"):
        load_run("x", tmp_path)
    for name in FILES:
        folder = shutil.copytree(run_folder("ease"), tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(InputError, match="training has not come|missing|no such|cannot read"):
            load_run("x", folder)
        assert stamp_of(folder) is None


def test_files_of_two_models_are_not_mixed(tmp_path, write_run):
    old = write_run(tmp_path / "old", "sasrec")
    new = write_run(tmp_path / "new", "sasrec", seed=4)
    for name in ("weights.safetensors", "model.json"):
        mixed = shutil.copytree(old, tmp_path / f"mixed-{name}")
        if "fingerprint" not in json.loads((mixed / "model.json").read_text()):
            pytest.fail("model.json has no fingerprint: a half-written folder cannot be told")
        shutil.copy(new / name, mixed / name)
        with pytest.raises(InputError, match="belong together"):
            load_run("x", mixed)
