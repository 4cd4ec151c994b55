"""Models that write semantic IDs, from the command line."""

from __future__ import annotations

import json

import pytest

SMALL = [
    "--set",
    "model.dim=16",
    "--set",
    "model.codes.tokenizer.levels=2",
    "--set",
    "model.codes.tokenizer.size=4",
    "--set",
    "model.source_dim=6",
    "--set",
    "train.epochs=4",
    "--set",
    "train.batch_tokens=64",
    "--set",
    "train.learning_rate=0.01",
    "--quiet",
]


@pytest.mark.parametrize("name", ["tiger", "mdgr", "s2gr"])
def test_a_generator_is_trained_asked_and_explained(foretaste, log, name: str):
    done = foretaste("train", "--data", log, "--model", name, "--run", "run", *SMALL)
    assert done.code == 0, done.err
    fit = json.loads((log.parent / "run" / "run.json").read_text())["fit"]
    search = fit["details"]["search"]
    at_once = name == "mdgr"  # which scores all items, and writes nothing that could be illegal
    assert search["results"] > 0 and search["illegal"] == (None if at_once else 0)
    assert search["best_found"] == 1 if at_once else search["best_found"] > 0
    told = "No code is written: all items are scored" if at_once else "Illegal results: 0 of "
    assert fit["notes"][-1].startswith(told)
    asked = ("recommend", "run", "--history-ids", "i3,i4,nothing", "-k", 3, "--explain")
    answer = foretaste(*asked, "--json").json
    assert [reason["item_id"] for reason in answer["reasons"]] == [
        line["item_id"] for line in answer["items"]
    ]
    for reason in answer["reasons"]:
        assert [code["level"] for code in reason["codes"]] == [0, 1]
        assert {event["item_id"] for event in reason["events"]} == {"i3", "i4"}
    shown = foretaste(*asked).out
    assert "level 1: " in shown and "level 2: " in shown
    assert ("thinks of" in shown) is (name == "s2gr")
    nobody = foretaste("recommend", "run", "--explain", "--json").json
    assert nobody["reasons"] == []


def test_a_part_of_the_codes_is_set_and_the_rest_is_the_models_own(foretaste, log):
    foretaste("train", "--data", log, "--model", "mdgr", "--run", "run", *SMALL)
    recipe = (log.parent / "run" / "recipe.toml").read_text()
    assert 'kind = "opq"' in recipe and "size = 4" in recipe and "rounds = 60" in recipe
    other = [*SMALL, "--set", "model.codes.tokenizer.kind=rqkmeans"]
    foretaste("train", "--data", log, "--model", "mdgr", "--run", "other", *other)
    assert 'kind = "rqkmeans"' in (log.parent / "other" / "recipe.toml").read_text()


def test_reasons_of_a_model_that_writes_no_codes_are_refused(foretaste, trained):
    done = foretaste("recommend", trained, "--history-ids", "i3", "--explain")
    assert done.code == 2
    assert "sasrec writes no codes to explain" in done.err and done.err.count("\n") == 1


def test_wrong_codes_are_said_with_their_place(foretaste, log):
    done = foretaste(
        "train", "--data", log, "--model", "tiger", "--set", "model.codes.tokenizer.kind=opc"
    )
    assert done.code == 2 and "tokenizer" in done.err and done.err.count("\n") == 1
    done = foretaste("train", "--data", log, "--model", "tiger", "--quiet")
    assert done.code == 2 and "Lower" in done.err
