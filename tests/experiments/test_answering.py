"""Questions in titles and ids, whatever signs are in them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from foretaste.errors import InputError
from foretaste.experiments.answering import Question, answer
from foretaste.experiments.recipe import Recipe
from foretaste.experiments.running import train

IDS = ["plain", "with blank", "a,b", "c;d", "300"]
TITLES = ["Plain", "Heat", "Alpha, Beta", "Steins;Gate", "Up"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A Markov chain over items whose ids and titles hold what parts others."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [
        (f"u{user}", IDS[(user + step) % 5], 1_600_000_000 + 1_000 * step + user)
        for user in range(30)
        for step in range(4)
    ]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": IDS, "title": TITLES}).write_csv(folder / "items.csv")
    data = {"source": str(folder / "log.csv"), "items": str(folder / "items.csv")}
    return train(Recipe.build({"data": data, "model": {"name": "markov"}}), folder / "run")


def asked(run, **question):
    return answer(run, Question(**{"titles": [], "item_ids": [], "user": None, **question}))


def test_an_id_may_hold_what_parts_ids(run):
    for item_id in IDS:
        assert asked(run, item_ids=[f" {item_id} "]).history == [item_id]
    found = asked(run, item_ids=["a,b", "plain, 300;nope c;d"])
    assert found.history == ["a,b", "plain", "300"]
    assert found.unknown == ["nope", "c", "d"]


def test_a_title_may_hold_a_semicolon(run):
    assert asked(run, titles=["Steins;Gate"]).history == ["c;d"]
    assert asked(run, titles=["steins;gate", "Heat; Up"]).history == ["c;d", "with blank", "300"]
    assert asked(run, titles=["c;d"]).history == ["c;d"]
    assert asked(run, titles=["Heat;Up; Heat"]).history == ["with blank", "300", "with blank"]


def test_blank_texts_are_no_history(run):
    assert asked(run, titles=["", " ; "]).history == []
    assert asked(run, titles=[" ;"], item_ids=["plain"]).history == ["plain"]


def test_what_the_catalog_lacks_of_a_user_is_left_out_and_told(run, tmp_path):
    rows = pl.read_csv(Path(run.recipe["data"]["source"]))
    late = {"user_id": ["late"] * 3, "item_id": ["new", "newer", "plain"]}
    late |= {"timestamp": [1_700_000_000 + place for place in range(3)]}
    pl.concat([rows, pl.DataFrame(late)]).write_csv(tmp_path / "log.csv")
    recipe = {"data": {"source": str(tmp_path / "log.csv")}, "model": {"name": "markov"}}
    found = asked(train(Recipe.build(recipe), tmp_path / "run"), user="late")
    assert (found.history, found.unknown) == (["plain"], ["new", "newer"])


def test_candidates_are_read_like_ids_and_unknown_ones_told(run):
    found = asked(run, item_ids=["plain", "zzz"], candidates=["a,b", "300,nope"])
    assert {line.item_id for line in found.items} == {"a,b", "300"}
    assert found.unknown == ["zzz", "nope"]
    assert found.to_json()["unknown"] == ["zzz", "nope"]
    with pytest.raises(InputError, match="none of the 2 ids"):
        asked(run, candidates=["x;y"])
