"""``foretaste federate`` as a user calls it, in this process without Flower."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from foretaste.recommenders.core.base import Recommender

SMALL = (
    *("--engine", "local", "--set", "model.dim=8", "--set", "model.max_length=6"),
    *("--set", "model.window=4", "--set", "federated.rounds=3", "--set", "federated.clients=0.5"),
    *("--set", "federated.evaluate_every=1", "--set", "federated.local.epochs=1"),
)


@pytest.fixture
def federated(foretaste, log):
    """A finished federation."""
    ended = foretaste("federate", "--data", log, *SMALL, "--run", "run", "--json")
    assert ended.code == 0, ended.err
    return ended


def test_a_run_folder_that_other_verbs_take(foretaste, federated, tmp_path):
    found = federated.json
    assert found["method"] == "fedavg"
    assert found["clients"] == 60
    assert found["epsilon"] is None
    assert (
        found["bytes_up"]
        > 4 * sum(array.size for array in Recommender.load(tmp_path / "run")._arrays().values())
        - 4 * 1_000
    )
    assert foretaste("recommend", "run", "--history-ids", "i1,i2", "-k", "3", "--json").code == 0
    assert foretaste("evaluate", "run", "--json").code == 0
    report = foretaste("report", "run")
    assert report.code == 0, report.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="federation"' in page
    assert "by kilobytes that a client has received and sent" in page
    train = ("--set", "model.dim=8", "--set", "train.epochs=1", "--run", "other")
    assert foretaste("train", "--data", tmp_path / "log.csv", *train).code == 0
    assert foretaste("compare", "run", "other").code == 0
    assert foretaste("report", "run", "other").code == 0


def test_bytes_and_ndcg_of_every_round_are_kept(federated, tmp_path):
    from foretaste.experiments.run_folder import RunFolder

    rounds = RunFolder.open(tmp_path / "run").record["federation"]["rounds"]
    assert [one["round"] for one in rounds] == [1, 2, 3]
    for one in rounds:
        assert one["down"] > 1_000
        assert one["up"] > 1_000
        assert one["wire_up"] >= 2 * one["up"] * 0.9
        assert 0 <= one["figures"]["valid"] <= 1


def test_a_run_is_repeated_from_its_folder(foretaste, federated, tmp_path):
    from foretaste.storage import read_arrays

    page = tmp_path / "again.html"
    assert foretaste("report", "run", "--output", str(page)).code == 0
    command = "foretaste federate run --run run-again"
    assert command in page.read_text()
    assert foretaste(*command.split()[1:]).code == 0
    names = ("run", "run-again")
    one, other = (read_arrays(tmp_path / name / "weights.safetensors") for name in names)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
    refused = foretaste("federate", ".", "--run", "other")
    assert refused.code == 2 and "no federation here" in refused.err


def test_all_methods_are_named_in_the_help(foretaste):
    from foretaste.federated.core.registry import find_method, names

    said = foretaste("federate", "--help").out
    ours = [name for name in names() if find_method(name).__module__.startswith("foretaste")]
    assert [name for name in ours if name not in said] == []
    assert len(ours) > 5


def test_users_that_the_server_has_no_data_of_are_clients(foretaste, log):
    more = ("--set", "federated.users=500", "--set", "federated.rounds=1")
    ended = foretaste("federate", "--data", log, *SMALL, *more, "--run", "run", "--json")
    assert ended.json["clients"] == 500


def test_a_killed_run_goes_on(foretaste, log, tmp_path, monkeypatch):
    from foretaste.federated.core import server
    from foretaste.storage import read_arrays

    whole = foretaste("federate", "--data", log, *SMALL, "--run", "whole")
    assert whole.code == 0, whole.err
    step = server.Server.step

    def killed(self):
        if self.now.next_round == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(server.Server, "step", killed)
    cut = foretaste("federate", "--data", log, *SMALL, "--run", "cut")
    assert cut.code == 2
    assert "foretaste resume RUN" in cut.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert foretaste("resume", "cut").code == 0
    one, other = (read_arrays(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_figures_of_users_who_never_train_and_of_clients_are_shown(foretaste, log, tmp_path):
    from foretaste.data.split import Queries
    from foretaste.experiments.run_folder import RunFolder
    from foretaste.experiments.running import reopen
    from foretaste.federated.core.node import held_out
    from foretaste.federated.core.randomness import user_keys
    from foretaste.recommenders.core.ranking import rank_queries

    more = ("--set", "federated.held_out=0.4", "--set", "federated.client_evaluation=true")
    one_round = ("--set", "federated.rounds=1")
    ended = foretaste("federate", "--data", log, *SMALL, *more, *one_round, "--run", "run")
    assert ended.code == 0, ended.err
    run = RunFolder.open(tmp_path / "run")
    (only,) = run.record["federation"]["rounds"]
    recipe, _, split = reopen(run)
    out = held_out(user_keys(split.users[split.valid.users]), 0.4, recipe.run.seed)
    assert 0 < out.sum() < len(out)
    valid, rows = split.valid, np.flatnonzero(out)
    asked = Queries(valid.users[rows], valid.histories.take(rows), valid.targets.take(rows))
    found = rank_queries(run.recommender(), asked, ["ndcg@10"]).metrics["ndcg@10"].mean()
    assert only["figures"]["held_out"] == pytest.approx(found)
    assert f"users who never train {found:.4f}" in ended.out
    assert f"clients' own newest events {only['on_clients']['ndcg@10']:.4f}" in ended.out


def test_a_prepared_run_is_not_rehearsed_by_resume(foretaste, log, tmp_path):
    """Its rounds are for devices; resume says how to run them, and evaluates when they are done."""
    said = foretaste("federate", "--data", log, *SMALL, "--prepare", "--run", "run")
    assert said.code == 0, said.err
    command = "FLWR_HOME=run/flower flwr run run/flower/app --stream"
    assert command in said.out
    early = foretaste("resume", "run")
    assert early.code == 2
    assert "0 of 3 rounds are done" in early.err and command in early.err
    assert not (tmp_path / "run" / "federation.safetensors").exists()

    from foretaste.experiments.run_folder import RunFolder
    from foretaste.experiments.running import reopen
    from foretaste.federated.engines.local import run_rounds
    from foretaste.federated.plan import Plan
    from foretaste.progress import Silent

    run = RunFolder.open(tmp_path / "run")
    run_rounds(run, Plan.open(run.path), reopen(run)[2], Silent())  # in place of devices
    assert foretaste("resume", "run").code == 0
    assert RunFolder.open(tmp_path / "run").finished


def test_what_would_leave_is_explained_and_nothing_runs(foretaste, log, tmp_path):
    said = foretaste("federate", "--data", log, *SMALL, "--explain-privacy")
    assert said.code == 0, said.err
    assert "Leaves a device" in said.out
    assert "never go to the server" in said.out
    assert "Nothing leaves a device for anybody else" in said.out
    found = foretaste("federate", "--data", log, *SMALL, "--explain-privacy", "--json").json
    names = {one["name"] for one in found["up"]}
    assert {"items.weight", "count/users", "count/votes", "figure/loss"} <= names
    assert not (tmp_path / "runs").exists()


def test_a_recipe_with_a_table_for_the_federation(foretaste, log, tmp_path):
    (tmp_path / "r.toml").write_text(
        f'[data]\nsource = "{log}"\n[model]\nname = "gru4rec"\ndim = 8\nhidden = 8\n'
        '[federated]\nmethod = "fedavg"\nengine = "local"\nrounds = 1\nclients = 1.0\n'
        "[federated.local]\nepochs = 1\n[federated.privacy]\nclip = 1.0\nnoise = 2.0\n"
    )
    ended = foretaste("federate", "r.toml", "--run", "run", "--set", "federated.rounds=2", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["rounds"] == 2
    assert ended.json["epsilon"] > 1
    assert ended.json["model"] == "gru4rec"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "fedavgg"], "fedavg"),
        (["--engine", "cluster"], "simulation, deployment or local"),
        (["--set", "federated.round=3"], "rounds"),
        (["--set", "federated.clients=0"], "clients"),
        (["--set", "train.epochs=3"], "federated.local"),
        (["--set", "model.attention=collective"], "full"),
        (["--set", "federated.privacy.noise=1"], "clip"),
    ],
)
def test_mistakes_are_told_in_one_line(foretaste, log, tmp_path, options, said):
    ended = foretaste("federate", "--data", log, "--run", "run", *SMALL, *options)
    assert ended.code == 2
    assert ended.out == "" or "interactions" in ended.out
    assert ended.err.count("\n") == 1
    assert said in ended.err
    assert not (tmp_path / "run").exists()


def test_without_flower_its_extra_is_named(foretaste, log, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr", None)
    for engine in ("simulation", "deployment"):
        ended = foretaste("federate", "--data", log, "--engine", engine, "--run", "run")
        assert ended.code == 2
        assert 'pip install "foretaste[federated]"' in ended.err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("engine", ["local", "simulation", "deployment"])
@pytest.mark.parametrize(
    ("views", "said"),
    [
        ([], 'set views.kind = "received"'),
        (["federated.views.kind=judged"], "this catalog has none"),
        (["federated.views.kind=table", "federated.views.path=none.parquet"], "none.parquet"),
    ],
)
def test_what_views_lack_is_told_before_all(foretaste, log, tmp_path, engine, views, said):
    more = [word for one in views for word in ("--set", one)]
    asked = ("--data", log, *SMALL, "--method", "lumos", "--engine", engine, "--run", "run", *more)
    ended = foretaste("federate", *asked)
    assert ended.code == 2
    assert said in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_became_of_views_is_said(foretaste, log, tmp_path):
    (tmp_path / "titles.csv").write_text("item_id,title\ni1,One\ni2,Two\n")
    model = '{kind="endpoint", url="http://127.0.0.1:9/v1", model="m", tries=1}'
    chat = ("--set", f'federated.views={{kind="chat", model={model}}}')
    asked = ("--data", log, "--items", "titles.csv", "--method", "lumos", *SMALL, *chat)
    ended = foretaste("federate", *asked, "--run", "run")
    assert ended.code == 0, ended.err
    assert re.search(r"^Views: \d+ times a user trained without\.$", ended.out, re.M)


def test_a_missing_language_model_is_told_before_anything_runs(
    foretaste, log, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "titles.csv").write_text("item_id,title\ni1,One\ni2,Two\n")
    judged = ("--items", "titles.csv", "--set", "federated.views.kind=judged")
    asked = ("--data", log, *judged, "--method", "lumos", "--set", "federated.rounds=1")
    ended = foretaste("federate", *asked, "--engine", "simulation", "--run", "run")
    assert ended.code == 2
    assert 'pip install "foretaste[llm]"' in ended.err
    assert not (tmp_path / "run").exists()
    # Where views are made on devices of their own, this machine needs no model.
    assert foretaste("federate", *asked, "--prepare", "--run", "run").code == 0


@pytest.mark.parametrize("method", ["fedmf", "pfedrec", "fedrap", "rqfedrec"])
def test_methods_of_item_vectors_need_no_word_about_the_model(foretaste, log, tmp_path, method):
    more = ("--set", "federated.rounds=1", "--set", "model.factors=4", "--engine", "local")
    if method == "rqfedrec":
        more += ("--set", "federated.semantic=random")
    asked = ("--data", log, "--method", method, *more, "--run", "run", "--json")
    ended = foretaste("federate", *asked)
    assert ended.code == 0, ended.err
    assert ended.json["model"] == "als"
    assert 'name = "als"\nfactors = 4' in (tmp_path / "run" / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (["rule=median"], 3),
        (["rule=trimmed"], 3),
        (["rule=krum", "share=0.1"], 10),
        (["rule=median", "nodes=3"], None),
        (["rule=mean"], None),
    ],
)
def test_a_robust_rule_over_too_few_nodes_is_told(foretaste, log, caplog, settings, least):
    names = {"rule": "robust.rule", "share": "robust.share", "nodes": "nodes"}
    pairs = [one.split("=") for one in settings]
    more = [word for name, to in pairs for word in ("--set", f"federated.{names[name]}={to}")]
    ended = foretaste("federate", "--data", log, *SMALL, *more, "--prepare", "--run", "run")
    assert ended.code == 0, ended.err
    told = [one.getMessage() for one in caplog.records if "robust" in one.getMessage()]
    assert len(told) == (least is not None)
    if least is not None:
        assert f"takes {least} or more" in told[0]


def test_a_model_without_a_network_is_told(foretaste, log):
    ended = foretaste("federate", "--data", log, "--model", "ease", "--engine", "local")
    assert ended.code == 2
    assert "sasrec or gru4rec" in ended.err
