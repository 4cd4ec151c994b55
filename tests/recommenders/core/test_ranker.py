"""What all rankers do: learn a planted rule, judge the same from a cache, resume bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from foretaste.data.clicks import ClickTask, Impressions, rated_clicks, sampled_clicks
from foretaste.data.dataset import Dataset
from foretaste.data.interactions import ColumnGuess, Interactions
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.metrics import auc
from foretaste.recommenders.core.base import Recommender, RunContext
from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.ranker_network import History, RankerNetwork
from foretaste.recommenders.core.registry import find

RANKERS = ["din", "sim", "sdim"]
COLLECTIVE = {"user_dim": 4, "pool_size": 8}
KINDS: list[dict[str, Any]] = [
    {},
    {"attention": "collective", "collective": COLLECTIVE},
    {"attention": "collective", "collective": {**COLLECTIVE, "user_type": "fp16"}},
    {"attention": "collective", "collective": {"user_dim": 4, "pool_size": 0}},
    {"attention": "collective", "collective": {"user_dim": 0, "pool_size": 300}},
]
every_ranker = pytest.mark.parametrize("name", RANKERS)
Items = Callable[[int], list[str]]


def made(name: str, **parameters: Any) -> Ranker:
    train = {"learning_rate": 1e-2, "batch_tokens": 300, "weight_decay": 0.0, "warmup_steps": 10}
    train |= {"epochs": 8, "min_epochs": 0, **parameters.pop("train", {})}
    settings = {"dim": 16, "hidden": 16, "max_length": 20, "dropout": 0.1, "train": train}
    model = find(name)(**{**settings, **parameters})
    assert isinstance(model, Ranker)
    return model


def dataset(rows: list[tuple[str, str, int, float]], categories: Items | None = None) -> Dataset:
    schema = {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "rating": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    known = None
    if categories is not None:
        ids = sorted({row[1] for row in rows})
        known = pl.DataFrame(
            {"item_id": ids, "categories": [categories(int(i[1:])) for i in ids]},
            schema={"item_id": pl.String, "categories": pl.List(pl.String)},
        )
    log = Interactions(
        frame, known, "log", ColumnGuess("user_id", "item_id", "timestamp", "rating")
    )
    return Dataset.from_interactions(log)


def group_of(item: int) -> list[str]:
    return [f"g{item // 10}"]


@pytest.fixture(scope="module")
def same_group() -> ClickTask:
    """An item is clicked if and only if it is of the group of the items clicked before."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(250):
        items = rng.choice(20, 12, replace=False)
        own = user % 2
        rows += [
            (f"u{user}", f"i{item:02}", time, 5.0 if item // 10 == own else 1.0)
            for time, item in enumerate(items.tolist())
        ]
    return rated_clicks(dataset(rows, group_of))


@pytest.fixture(scope="module")
def fitted(same_group: ClickTask) -> Callable[..., Ranker]:
    """Rankers that have learnt ``same_group``, each once."""
    models: dict[str, Ranker] = {}

    def get(name: str, **parameters: Any) -> Ranker:
        key = f"{name} {parameters}"
        if key not in models:
            models[key] = made(name, **parameters)
            models[key].fit_clicks(same_group, RunContext(seed=1))
        return models[key]

    return get


def known(task: ClickTask, part: Impressions) -> Impressions:
    """Impressions of which something can be known."""
    return part.take((part.ends > 0) & (part.items >= 0))


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
    assert first[0] > 0.7 > 0.3 > first[1]
    assert second[1] > 0.7 > 0.3 > second[0]


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


# --- The same answer, however it is asked -------------------------------------------------------


@every_ranker
def test_impressions_side_by_side_equal_one_by_one(name: str, same_group: ClickTask, fitted):
    model, asked = fitted(name), same_group.test
    together = model.click_probabilities(same_group, asked)
    for row in range(0, len(asked), 17):
        alone = model.click_probabilities(same_group, asked.take(np.array([row])))
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-6)


@every_ranker
def test_rank_is_what_impressions_get(name: str, same_group: ClickTask, fitted):
    model, asked = fitted(name), same_group.test.take(np.arange(40))
    ids, values = same_group.catalog.item_ids, same_group.rating_values
    histories, ratings, candidates = [], [], []
    for user, end, item in zip(asked.users, asked.ends, asked.items, strict=True):
        start = same_group.events.offsets[user]
        histories.append([ids[i] for i in same_group.events[user][:end]])
        assert same_group.levels is not None
        ratings.append(values[same_group.levels[start : start + end] - 1].tolist())
        candidates.append([ids[item]])
    ranked = model.rank(histories, candidates, ratings=ratings)
    expected = model.click_probabilities(same_group, asked)
    np.testing.assert_allclose(np.concatenate(ranked), expected, rtol=1e-4, atol=1e-6)


@every_ranker
def test_rank_agrees_with_recommend(name: str, ordinary):
    model = made(name, train={"epochs": 2})
    model.fit(ordinary, RunContext(seed=0))
    history = [["i0003", "i0001", "i0007"]]
    found = model.recommend(history, 10)
    (ranked,) = model.rank(history, [found.item_ids[0]])
    np.testing.assert_allclose(ranked, 1 / (1 + np.exp(-found.scores[0])), rtol=1e-4)
    assert (np.diff(ranked) <= 1e-7).all()


@every_ranker
def test_saved_and_loaded_it_judges_the_same(name: str, same_group: ClickTask, fitted, tmp_path):
    model = fitted(name)
    model.save(tmp_path)
    again = Recommender.load(tmp_path)
    assert isinstance(again, Ranker)
    assert again.rating_values.tolist() == [1, 5]
    np.testing.assert_array_equal(
        again.click_probabilities(same_group, same_group.test),
        model.click_probabilities(same_group, same_group.test),
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.get("collective", "full")))
@pytest.mark.parametrize("name", [*RANKERS, "sim hard"])
@torch.no_grad()
def test_records_give_the_logits_of_whole_histories(name: str, kind: dict, same_group: ClickTask):
    hard = {"search": "hard"} if name == "sim hard" else {}
    found = {"found": 3} if name.startswith("sim") else {}
    model = made(name.split()[0], max_length=7, **kind, **hard, **found)
    model.catalog = same_group.catalog
    torch.manual_seed(0)
    network = model._network(20, 5)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    network.eval()
    lengths = torch.tensor([9, 1, 7, 0, 4])
    history = History(torch.randint(20, (5, 9)), torch.randint(6, (5, 9)), lengths)
    records = network.pack(history)
    assert records.dtype == torch.uint8
    assert records.shape == (5, 9, network.record_bytes)
    candidates = torch.randint(-1, 20, (5, 6))
    direct = network(history, candidates, lengths[:, None])
    kept = network.score_records(records, lengths, candidates)
    torch.testing.assert_close(kept, direct, rtol=1e-4, atol=1e-5)
    # The same candidates for all, as when a catalog is ranked.
    shared = network.score_records(records, lengths, candidates[:1])
    torch.testing.assert_close(shared, network(history, candidates[:1], lengths[:, None]),
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    torch.testing.assert_close(shared[0], direct[0], rtol=1e-4, atol=1e-5)


@every_ranker
@torch.no_grad()
def test_what_cannot_be_seen_does_not_matter(name: str):
    torch.manual_seed(0)
    network = made(name, max_length=4)._network(20, 3).eval()
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    items, levels = torch.randint(20, (1, 10)), torch.randint(4, (1, 10))
    candidates, ends = torch.tensor([[3, 3, 3]]), torch.tensor([[6, 10, 0]])

    def logits(items: torch.Tensor, levels: torch.Tensor) -> list[float]:
        return network(History(items, levels, torch.tensor([10])), candidates, ends)[0].tolist()

    before = logits(items, levels)
    for place in range(10):
        changed, other = items.clone(), levels.clone()
        changed[0, place] = (changed[0, place] + 5) % 20
        other[0, place] = (other[0, place] + 1) % 4
        after = logits(changed, other)
        # Of its history a candidate sees the last four events.
        moved = [abs(a - b) > 1e-5 for a, b in zip(after, before, strict=True)]
        assert moved == [2 <= place < 6, 6 <= place < 10, False]


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
    alone = network.key_values.penalty
    padded = torch.cat(
        [torch.nn.functional.pad(items, (0, 5)), torch.zeros(1, 8, dtype=torch.int64)]
    )
    network.remember(History(padded, None, torch.tensor([3, 0])))
    assert alone is not None and network.key_values.penalty is not None
    torch.testing.assert_close(network.key_values.penalty, alone)


# --- What is asked, and what is wrong -----------------------------------------------------------


def test_rank_answers_whatever_is_asked(fitted):
    model = fitted("din")
    found = model.rank([["i03"], [], ["nonsense"]], [["i01", "nonsense", "i01"], ["i02"], []])
    assert [len(one) for one in found] == [3, 1, 0]
    assert all(((one > 0) & (one < 1)).all() for one in found)
    assert found[0][0] == pytest.approx(found[0][2])
    # Nothing is known of the item, nor of the history: the same as of any other such pair.
    (one,) = model.rank([["no"]], [["never"]])
    (other,) = model.rank([[]], [["heard"]])
    assert one[0] == pytest.approx(other[0])
    assert model.rank([], []) == []
    numbers = Sequences.from_lists([[3]])
    assert model.rank(numbers, [["i01"]])[0][0] == pytest.approx(found[0][0])


def test_ratings_of_unknown_items_go_with_them(fitted):
    model = fitted("din")
    (plain,) = model.rank([["i03", "i11"]], [["i01"]], ratings=[[5, 1]])
    history = [["no", "i03", "such", "i11"]]
    (other,) = model.rank(history, [["i01"]], ratings=[[1, 5, 1, 1]])
    assert other == pytest.approx(plain)
    (missing,) = model.rank([["i03", "i11"]], [["i01"]], ratings=[[np.nan, np.nan]])
    (none,) = model.rank([["i03", "i11"]], [["i01"]])
    assert missing == pytest.approx(none)
    assert missing != pytest.approx(plain)


def test_wrong_questions_are_said(fitted, same_group: ClickTask):
    model = fitted("din")
    with pytest.raises(InputError, match="2 lists for 1 histories"):
        model.rank([["i03"]], [["i01"], ["i02"]])
    with pytest.raises(InputError, match="candidates must be a list of lists"):
        model.rank([["i03"]], ["i01"])
    with pytest.raises(InputError, match="list of lists"):
        model.rank(["i03"], [["i01"]], ratings=[[1]])
    for ratings in ([], [[1, 2]], [[1], [2]]):
        with pytest.raises(InputError, match="as long as those of histories"):
            model.rank([["i03"]], [["i01"]], ratings=ratings)
    with pytest.raises(InputError, match="Call fit or load"):
        made("din").rank([["i03"]], [["i01"]])
    other = replace(same_group, catalog=same_group.catalog.take(np.arange(5)))
    with pytest.raises(InputError, match="another catalog"):
        model.click_probabilities(other, same_group.test)


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


def test_parameters_that_do_not_fit_are_said():
    with pytest.raises(InputError, match="multiple of heads"):
        find("din")(dim=15)
    with pytest.raises(InputError, match="collective.user_dim = 3"):
        find("sim")(attention="collective", collective={"user_dim": 3})
    with pytest.raises(InputError, match="hidden"):
        find("sdim")(hiden=3)


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
