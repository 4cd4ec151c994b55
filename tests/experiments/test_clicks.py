"""Experiments on clicks: a ranker learns a planted rule, and its run tells what it is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foretaste.errors import InputError
from foretaste.experiments.answering import Question, answer
from foretaste.experiments.clicks import click_task
from foretaste.experiments.comparing import compare
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import resume, train
from foretaste.experiments.tuning import tune
from foretaste.metrics import click_figures
from foretaste.recommenders.core.ranker import Ranker
from foretaste.reporting import write_report

MODEL = {"name": "din", "dim": 16, "hidden": 16, "max_length": 20, "dropout": 0.1}
TRAIN = {"epochs": 8, "min_epochs": 0, "learning_rate": 1e-2, "batch_tokens": 300}
TRAIN |= {"weight_decay": 0.0, "warmup_steps": 10}
WIDER = {"valid_share": 0.2, "test_share": 0.25}


@pytest.fixture(scope="module")
def rated(tmp_path_factory) -> Path:
    """A CSV in which a user likes what is of the group that they liked before, and nothing else."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item:02}", 1_600_000_000 + place, 5 if item // 10 == user % 2 else 1)
        for user in range(250)
        for place, item in enumerate(rng.choice(20, 12, replace=False).tolist())
    ]
    path = tmp_path_factory.mktemp("data") / "groups.csv"
    columns = ["user", "item", "time", "rating"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(path)
    return path


def recipe_of(log: Path, clicks: dict[str, Any], **sections: Any) -> Recipe:
    values = {"data": {"source": str(log)}, "model": MODEL, "train": TRAIN, "clicks": clicks}
    return Recipe.build(values | {"run": {"threads": 1}} | sections)


@pytest.fixture(scope="module")
def run(rated: Path, tmp_path_factory) -> RunFolder:
    return train(recipe_of(rated, WIDER), tmp_path_factory.mktemp("runs") / "din")


def test_a_run_tells_what_the_library_would(run: RunFolder, rated: Path):
    recipe = Recipe.read(run.path / "recipe.toml")
    assert recipe.clicks is not None
    task, ranker = click_task(load_dataset(recipe.data), recipe.clicks), run.recommender()
    assert isinstance(ranker, Ranker)
    for part, asked in (("valid", task.valid), ("test", task.test)):
        whole = click_figures(asked.labels, ranker.click_probabilities(task, asked), asked.users)
        found = run.metrics[part]
        told = {name: found["metrics"][name]["value"] for name in ("auc", "gauc", "log_loss")}
        assert told == pytest.approx({name: getattr(whole, name) for name in told})
        assert (found["impressions"], found["split"]) == (len(asked), "user-time")
        own = run.per_query(part)
        assert own["user_auc"].fill_nan(None).mean() == pytest.approx(
            found["metrics"]["user_auc"]["value"]
        )
        assert own.height == found["users"] == 250
    figures = run.metrics["test"]["metrics"]
    assert figures["auc"]["value"] > 0.9
    assert figures["log_loss"]["low"] < figures["log_loss"]["value"] < figures["log_loss"]["high"]
    assert 0 < run.per_query("test")["history_length"].to_numpy().max() < 11  # clicks alone


def test_a_run_says_what_it_learnt_from(run: RunFolder):
    assert run.finished and run.measured
    assert run.record["fit"]["metric"] == "auc"
    cut = run.record["split"]
    assert (cut["kind"], cut["vocabulary"], cut["test_queries"]) == ("user-time", 20, 250)
    findings = run.record["leakage"]["findings"]
    assert [one["severity"] for one in findings] == ["warning"]
    written = run.recipe
    assert written["clicks"]["threshold"] == 4.0
    assert not {"split", "evaluate", "tune"} & written.keys()


def test_the_model_recommends(run: RunFolder):
    found = answer(run, Question([], [], "u1"))
    liked = {f"i{item}" for item in range(10, 20)}  # as far as they are in the log
    assert set(found.history) < liked and len(found.history) > 3
    assert {line.item_id for line in found.items[:2]} <= liked
    history = [f"i{item}" for item in range(10, 16)]
    listed = answer(run, Question([], history, None, k=4)).items
    assert {line.item_id for line in listed} == {"i16", "i17", "i18", "i19"}


def test_figures_that_are_gone_are_made_again(run: RunFolder):
    before = (run.path / "metrics.json").read_text()
    (run.path / "metrics.json").unlink()
    resume(run.path)
    after = json.loads((run.path / "metrics.json").read_text())
    assert after["test"]["metrics"] == json.loads(before)["test"]["metrics"]


def test_runs_are_compared_user_by_user_and_reported(run: RunFolder, rated: Path, tmp_path: Path):
    guessing = recipe_of(rated, WIDER, train={**TRAIN, "epochs": 1, "learning_rate": 1e-9})
    other = train(guessing, tmp_path / "guessing")
    for metric in ("user_auc", "user_log_loss"):
        found = compare([other, run], metric=metric)
        assert [row.run for row in found.rows] == ["din", "guessing"]  # the better one first
        assert found.pairs[0].p_holm < 0.01
    with pytest.raises(InputError, match=r'has not measured "ndcg@10".*user_auc'):
        compare([other, run])
    page = write_report([run.path, other.path], tmp_path / "report.html").read_text()
    assert "din is the best of 2 runs: its AUC of a user" in page
    assert "Log-loss" in page and "Every user's last impressions" in page.replace("&#39;", "'")
    sampled = train(recipe_of(rated, {"labels": "sampled"}), tmp_path / "sampled")
    with pytest.raises(InputError, match="differ in their split"):
        compare([run, sampled], metric="user_auc")
    assert 0 < sampled.metrics["test"]["metrics"]["log_loss"]["value"] < 1


@pytest.mark.parametrize(
    ("clicks", "says"),
    [
        ({"threshold": 9}, "no rating is 9 or higher"),
        ({"cut": "global-time", "test_share": 0.9, "valid_share": 0.2}, "nothing to train on"),
        ({"labels": "chosen"}, "clicks.labels = 'chosen'"),
        ({"treshold": 3}, r'unknown key "clicks.treshold". Did you mean "threshold"'),
        ({"negatives": 2}, 'clicks: negatives has no effect with labels = "ratings"'),
        ({"labels": "sampled", "threshold": 3}, "clicks: threshold has no effect"),
        ({"labels": "sampled", "history": "all"}, "clicks: history has no effect"),
    ],
)
def test_a_task_that_cannot_be_is_said(clicks: dict, says: str, rated: Path, tmp_path: Path):
    with pytest.raises(InputError, match=says):
        train(recipe_of(rated, clicks), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_has_nothing_to_do_with_clicks_is_refused(rated: Path, log: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"sasrec orders a catalog.*Choose a ranker: din"):
        Recipe.build({"clicks": {}, "model": {"name": "sasrec"}})
    for section in ({"split": {"min_item_count": 2}}, {"evaluate": {"k": 5}}):
        with pytest.raises(InputError, match=r"has no effect beside \[clicks\]"):
            recipe_of(rated, {}, **section)
    with pytest.raises(InputError, match="the log has no ratings"):
        train(recipe_of(log, {}), tmp_path / "run")
    searching = recipe_of(rated, {}).model_copy(
        update={"tune": Recipe.build({"tune": {"space": {"model.dim": [8]}}}).tune}
    )
    with pytest.raises(InputError, match="a search measures lists"):
        tune(searching, tmp_path / "tune")


def test_a_test_of_one_label_is_said_before_training(tmp_path: Path):
    rows = [(f"u{user}", f"i{item}", item, 1 if item == 3 else 5 * (item % 2))
            for user in range(20) for item in range(4)]  # fmt: skip
    path = tmp_path / "log.csv"
    columns = ["user", "item", "time", "rating"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(path)
    with pytest.raises(InputError, match="every impression of the test part is no click"):
        train(recipe_of(path, {"test_share": 0.25}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
