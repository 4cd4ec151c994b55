"""From a log to a folder of codes, with nothing learnt from after the cut."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from foretaste.codes.tokenizer import FitContext
from foretaste.errors import InputError
from foretaste.experiments import coding
from foretaste.experiments.recipe import DataSection, Recipe, SplitSection
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import train
from foretaste.recommenders.core.coding import CodedCatalog
from foretaste.storage import read_arrays

CPU = FitContext(3, "cpu")
SMALL = {"codes.tokenizer.levels": 2, "codes.tokenizer.size": 8}


@pytest.fixture
def titled(log: Path, tmp_path: Path) -> DataSection:
    """The ring with titles for its items."""
    items = tmp_path / "items.csv"
    lines = [f"i{n},walk number{n // 5} in the {'park' if n % 2 else 'town'}" for n in range(30)]
    items.write_text("\n".join(["item,title", *lines]))
    return DataSection(source=str(log), items=str(items))


def test_items_are_those_of_the_training_part(titled: DataSection) -> None:
    found = coding.items_of_log(titled, SplitSection(min_item_count=60))
    assert found.train is not None
    assert found.train.items.max() == len(found.catalog) - 1
    assert len(found.catalog) < 30
    assert found.notes == (f"{30 - len(found.catalog)} items that came later get no codes here.",)
    assert found.catalog.has_titles


def test_a_folder_holds_codes_and_figures(titled: DataSection, tmp_path: Path) -> None:
    items = coding.items_of_log(titled, SplitSection())
    config = coding.coding_config(SMALL)
    folder, coded, figures = coding.fit_codes(
        items, config, tmp_path / "codes", context=CPU, seeds=2
    )
    assert coding.read_figures(folder) == json.loads(json.dumps(figures))
    report = figures["report"]
    assert report["items"] == 30
    assert report["collisions"]["after"] == 0
    assert report["stability"]["seeds"] == 2
    assert 0 < figures["learning_seconds"] < figures["seconds"]
    assert figures["sources"] == "text by tfidf"
    again = CodedCatalog.load(folder, device="cpu")
    assert np.array_equal(again.codes.table, coded.codes.table)
    with pytest.raises(InputError, match="holds codes already"):
        coding.fit_codes(items, config, folder, context=CPU)


def test_the_same_seed_gives_the_same_folder(titled: DataSection, tmp_path: Path) -> None:
    items, config = coding.items_of_log(titled, SplitSection()), coding.coding_config(SMALL)
    for name in ("one", "two"):
        coding.fit_codes(items, config, tmp_path / name, context=CPU, seeds=0)
    for name in ("codes.safetensors", "vectors.safetensors"):
        one, two = (read_arrays(tmp_path / folder / name) for folder in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_names_of_folders(titled: DataSection, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    items, config = coding.items_of_log(titled, SplitSection()), coding.coding_config(SMALL)
    made = [coding.fit_codes(items, config, context=CPU, seeds=0)[0] for _ in range(2)]
    assert [str(folder) for folder in made] == [
        "runs/codes-ring-rqkmeans",
        "runs/codes-ring-rqkmeans-2",
    ]


def test_items_of_a_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "books.csv"
    path.write_text("item_id,title\nb,Second\na,First\n")
    found = coding.items_of_file(path)
    assert found.catalog.item_ids == ["b", "a"]
    assert (found.name, found.train) == ("books.csv", None)


def test_settings_are_fields() -> None:
    config = coding.coding_config(
        {
            "codes.tokenizer.kind": "opq",
            "codes.tokenizer.levels": 5,
            "codes.text.dim": 9,
            "codes.fields": ["title"],
        }
    )
    assert (config.tokenizer.kind, config.tokenizer.levels) == ("opq", 5)
    assert config.fields == ("title",)
    assert config.text is not None and config.text.model_dump()["dim"] == 9
    assert coding.coding_config({"codes.text.kind": "none"}).text is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codes.tokenizer.kind": "rqvea"}, 'no tokenizer is called "rqvea"'),
        ({"codes.tokenizer.levls": 2}, 'codes.tokenizer: unknown key "levls". Did you mean'),
        ({"codes.text.kind": "tfdif"}, 'codes.text.kind = "tfdif" is unknown. Did you mean'),
        ({"codes.text.dim": 0}, "codes.text: dim = 0: input should be greater"),
        ({"codes.txt_weight": 2.0}, 'codes: unknown key "txt_weight". Did you mean "text_weight"'),
        ({"model.dim": 3}, "only data.*, split.* and codes.*"),
        ({"codes.text_weight.x": 1, "codes.text_weight.x.y": 2}, '"x" is a value, not a section'),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        coding.coding_config(settings)
    assert message in str(error.value)


def test_a_fit_that_is_stopped_can_be_done_again(
    titled: DataSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever file it was stopped: the last one says that the folder holds codes."""
    items = coding.items_of_log(titled, SplitSection())
    config = coding.coding_config(SMALL)
    replace = os.replace
    for name in ("report.json", "codes.safetensors", "catalog.parquet", "coding.json"):
        folder = tmp_path / name

        def stopped(one: Path, to: Path, name: str = name) -> None:
            if to.name == name:
                raise KeyboardInterrupt
            replace(one, to)

        with monkeypatch.context() as patch:
            patch.setattr("foretaste.storage.os.replace", stopped)
            with pytest.raises(KeyboardInterrupt):
                coding.fit_codes(items, config, folder, context=CPU, seeds=0)
        assert not (folder / "coding.json").exists()
        _, coded, _ = coding.fit_codes(items, config, folder, context=CPU, seeds=0)
        assert coding.read_figures(folder)["fingerprint"] == coded.codes.fingerprint


def test_damaged_figures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder of codes"):
        coding.read_figures(tmp_path)
    early = '{"report": {"levels": []}, "seconds": 2}'
    for text in ("{", "[]", '{"report": 3}', '{"report": {"levels": 1}}', early):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(InputError, match="damaged"):
            coding.read_figures(tmp_path)


def als(log: Path, folder: Path, kind: str) -> RunFolder:
    """A run with item vectors, on this split of the ring."""
    values = {"data": {"source": str(log)}, "split": {"kind": kind}, "run": {"threads": 1}}
    return train(Recipe.build(values | {"model": {"name": "als", "factors": 8}}), folder)


def codes_of(run: RunFolder, log: Path, folder: Path) -> tuple[Path, list[str]]:
    """Codes of a run's item vectors, for the default split of the ring, and what is noted."""
    items = coding.items_of_log(DataSection(source=str(log)), SplitSection())
    config = coding.coding_config(SMALL | {"codes.text.kind": "none"})
    made, _, figures = coding.fit_codes(items, config, folder, run=run.path, context=CPU, seeds=0)
    return made, figures["notes"]


def tiger(log: Path, codes: Path) -> Recipe:
    """The smallest training on codes of a folder."""
    model = {"name": "tiger", "dim": 8, "layers": 1, "decoder_layers": 1, "codes_from": str(codes)}
    values = {"data": {"source": str(log)}, "model": model, "run": {"threads": 1}}
    return Recipe.build(values | {"train": {"epochs": 1, "min_epochs": 0}})


def test_codes_of_a_run_on_another_split_are_refused(log: Path, tmp_path: Path) -> None:
    papers = als(log, tmp_path / "papers", "leave-last-out")
    codes, notes = codes_of(papers, log, tmp_path / "codes")
    assert len(notes) == 1
    assert f"codes hold item vectors of {papers.path}, learnt from interactions up to" in notes[0]
    with pytest.raises(InputError) as told:
        train(tiger(log, codes), tmp_path / "run")
    assert str(told.value).startswith(f"{codes}: codes hold item vectors of {papers.path}, learnt")
    assert "--split global-time" in str(told.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_codes_of_a_run_on_the_same_split_are_checked_and_used(log: Path, tmp_path: Path) -> None:
    run = als(log, tmp_path / "als", "global-time")
    codes, notes = codes_of(run, log, tmp_path / "codes")
    assert notes == []
    trained = train(tiger(log, codes), tmp_path / "run")
    assert trained.record["leakage"] == {
        "checks": [*run.record["leakage"]["checks"], "codes"],
        "findings": [],
    }


def test_a_run_that_does_not_say_its_train_is_asked_by_its_data(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ring.csv"
    copy.write_bytes(log.read_bytes())
    run = als(copy, tmp_path / "als", "global-time")
    told = coding.run_learnt_from(run.path)
    record = dict(run.record)
    del record["split"]["train"]  # as an earlier version wrote it
    run.write("run.json", record)
    assert coding.run_learnt_from(run.path) == told
    copy.unlink()
    silent = coding.run_learnt_from(run.path)
    assert (silent.what, silent.fingerprint) == (told.what, None)
    codes, notes = codes_of(run, log, tmp_path / "codes")
    assert "nothing is recorded" in notes[0]
    trained = train(tiger(log, codes), tmp_path / "run")
    findings = trained.record["leakage"]["findings"]
    assert [(one["name"], one["severity"]) for one in findings] == [("codes", "warning")]
    assert any("nothing is recorded" in note for note in trained.record["fit"]["notes"])
