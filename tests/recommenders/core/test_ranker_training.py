"""What all rankers learn: a planted rule, bit for bit the same after a cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.data.clicks import ClickTask, Impressions, rated_clicks, sampled_clicks
from foretaste.errors import InputError
from foretaste.metrics import auc
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.ranker_network import History, RankerNetwork

from .rankers import KINDS, dataset, every_ranker, known, made

# --- What is learnt -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:2], ids=["full", "collective"])
@every_ranker
def test_a_planted_rule_is_learnt(name: str, kind: dict, same_group: ClickTask, fitted):
    asked = known(same_group, same_group.test)
    found = fitted(name, **kind).click_probabilities(same_group, asked)
    assert auc(asked.labels, found) > 0.95


def test_a_hard_search_learns_it_too(same_group: ClickTask, fitted):
    asked = known(same_group, same_group.test)
    model = fitted("sim", search="hard", found=5)
    assert auc(asked.labels, model.click_probabilities(same_group, asked)) > 0.95


@every_ranker
def test_ratings_of_the_history_matter(name: str, fitted):
    model = fitted(name)
    history = [f"i{n:02}" for n in (0, 1, 2, 10, 11, 12)]
    candidates = [["i05", "i15"]]
    (first,) = model.rank([history], candidates, ratings=[[5, 5, 5, 1, 1, 1]])
    (second,) = model.rank([history], candidates, ratings=[[1, 1, 1, 5, 5, 5]])
    assert first[0] > 0.6 > 0.4 > first[1]
    assert second[1] > 0.6 > 0.4 > second[0]


@every_ranker
def test_sampled_negatives_are_told_from_clicks(name: str):
    rng = np.random.default_rng(3)
    rows = [
        (f"u{user:03}", f"i{10 * (user % 2) + item:02}", time, 5.0)
        for user in range(150)
        for time, item in enumerate(rng.choice(10, 8, replace=False).tolist())
    ]
    task = sampled_clicks(dataset(rows), negatives=2)
    model = made(name)
    model.fit_clicks(task, RunContext(seed=0))
    asked = known(task, task.test)
    found = model.click_probabilities(task, asked)
    own = asked.items // 10 == asked.users % 2  # what a user has not met yet can be drawn as well
    assert auc(own, found) > 0.95


@pytest.mark.parametrize("metric", ["auc", "gauc", "log_loss"])
def test_the_metric_chooses_the_epoch(metric: str, same_group: ClickTask):
    # More than one impression of a user to validate on, or no user has both labels.
    larger = replace(same_group, valid=same_group.train)
    model = made("din", click_metric=metric)
    report = model.fit_clicks(larger, RunContext(seed=1))
    values = [epoch.valid for epoch in report.epochs if epoch.valid is not None]
    assert report.best_epoch == int(np.argmax(values)) + 1
    assert all((value < 0) == (metric == "log_loss") for value in values)
    if "no better" in report.stopped:
        assert report.stopped.startswith("-log_loss" if metric == "log_loss" else metric)


# --- Training -----------------------------------------------------------------------------------


def weights(model: Ranker) -> dict[str, np.ndarray]:
    return model._arrays()


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


class Stop(Exception):
    """As if the process had been ended."""


@every_ranker
def test_resumed_equals_uninterrupted(name: str, same_group: ClickTask, ordinary, tmp_path: Path):
    kind: dict[str, Any] = KINDS[1] if name == "din" else {}

    def cut_off(event: str, **facts: Any) -> None:
        if facts["epoch"] == 2:
            raise Stop

    def learn(model: Ranker, of_clicks: bool, run: RunContext) -> Ranker:
        if of_clicks:
            model.fit_clicks(same_group, run)
        else:
            model.fit(ordinary, run)
        return model

    for of_clicks in (True, False):
        train = {"epochs": 4, "min_epochs": 0, "batch_tokens": 400}
        folder = tmp_path / str(of_clicks)
        folder.mkdir()
        straight = learn(made(name, train=train, **kind), of_clicks, RunContext(seed=4))
        with pytest.raises(Stop):
            run = RunContext(seed=4, folder=folder, log=cut_off)
            learn(made(name, train=train, **kind), of_clicks, run)
        torch.manual_seed(77)
        run = RunContext(seed=4, folder=folder)
        resumed = learn(made(name, train=train, **kind), of_clicks, run)
        assert same(weights(resumed), weights(straight))


@pytest.mark.parametrize("kind", KINDS[:2], ids=["full", "collective"])
@every_ranker
def test_half_precision_learns(name: str, kind: dict, same_group: ClickTask):
    model = made(name, train={"epochs": 2}, **kind)
    run = RunContext(precision="bf16", device="cpu")
    losses = [epoch.loss for epoch in model.fit_clicks(same_group, run).epochs]
    assert losses[1] < losses[0]
    assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}


def test_padding_has_no_part_in_the_losses_of_collective_keys():
    torch.manual_seed(0)
    network = made("din", dropout=0.0, **KINDS[1])._network(20, 0).train()
    items = torch.tensor([[4, 7, 2]])
    network.remember(History(items, None, torch.tensor([3])))
    alone = network.key_values.penalty()
    padded = torch.cat(
        [torch.nn.functional.pad(items, (0, 5)), torch.zeros(1, 8, dtype=torch.int64)]
    )
    network.remember(History(padded, None, torch.tensor([3, 0])))
    found = network.key_values.penalty()
    assert alone is not None and found is not None
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("kind", KINDS[:2], ids=["full", "collective"])
def test_impressions_without_a_history_are_learnt_from(kind: dict, same_group: ClickTask):
    model, train = made("din", train={"epochs": 1}, **kind), same_group.train
    first = train.take(np.arange(200))
    alone = replace(first, ends=np.zeros_like(first.ends))
    report = model.fit_clicks(replace(same_group, train=alone, valid=alone))
    assert np.isfinite(report.epochs[0].loss)
    assert np.isfinite(model.rank([[]], [["i1", "i2"]])[0]).all()


# --- What is wrong, and where learning begins -----------------------------------------------------


@pytest.mark.parametrize("part", ["train", "valid"])
def test_one_label_alone_is_said(part: str, same_group: ClickTask):
    impressions: Impressions = getattr(same_group, part)
    clicks = impressions.take(impressions.labels)
    task = replace(same_group, **{part: clicks})
    with pytest.raises(InputError, match=f"the {part} part of the click task has one label only"):
        made("din").fit_clicks(task)


def test_no_user_with_both_labels_is_said(same_group: ClickTask):
    with pytest.raises(InputError, match='no user has both labels.*click_metric = "auc"'):
        made("din", click_metric="gauc").fit_clicks(same_group)


def test_no_validation_means_all_epochs(same_group: ClickTask):
    nothing = same_group.valid.take(np.zeros(0, int))
    model = made("din", train={"epochs": 2})
    report = model.fit_clicks(replace(same_group, valid=nothing))
    assert (len(report.epochs), report.best_epoch) == (2, None)


def test_a_failed_fit_leaves_nothing(same_group: ClickTask, tmp_path: Path):
    def stop(event: str, **facts: Any) -> None:
        raise Stop

    model = made("din")
    with pytest.raises(Stop):
        model.fit_clicks(same_group, RunContext(folder=tmp_path, log=stop))
    assert model.catalog is None


def test_items_count_as_much_as_they_are_known(same_group: ClickTask, fitted):
    network = fitted("din", shrink=30.0).network
    assert isinstance(network, RankerNetwork)
    shown = np.bincount(same_group.train.items, minlength=20)
    np.testing.assert_allclose(network.trust, [*(shown / (shown + 30)), 0], rtol=1e-6)
    trusting = fitted("din", shrink=0.0).network
    assert trusting.trust.tolist() == [1] * 20 + [0]
    # The rate of an item is where learning begins: all are clicked alike here.
    assert network.often[:-1].abs().max() < 1.5
    assert network.often[-1] == 0


def test_learning_begins_at_the_rates_of_the_items():
    rng = np.random.default_rng(0)
    rates = [0.1, 0.5, 0.9]
    rows = [
        (f"u{user}", f"i{item}", item, 5.0 if rng.random() < rates[item] else 1.0)
        for user in range(400)
        for item in range(3)
    ]
    task = rated_clicks(dataset(rows), valid_share=0.01, test_share=0.4)
    model = made("din", train={"epochs": 1, "learning_rate": 1e-9})
    model.fit_clicks(replace(task, valid=task.valid.take(np.zeros(0, int))))
    log_odds = np.log(np.array(rates) / (1 - np.array(rates)))
    often = model.network.often[:-1].detach().numpy()
    np.testing.assert_allclose(np.diff(often), np.diff(log_odds)[: len(often) - 1], atol=0.4)
