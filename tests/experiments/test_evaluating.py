"""Figures do not depend on blocks, and say what they are of."""

from __future__ import annotations

import numpy as np

from foretaste.experiments.evaluating import evaluate
from foretaste.experiments.loading import load_dataset
from foretaste.experiments.running import split_dataset, train
from foretaste.recommenders.core.ranking import rank_queries


def test_block_size_changes_no_figure(recipe):
    dataset = load_dataset(recipe.data)
    prepared = split_dataset(dataset, recipe.split)
    for name in ("popularity", "markov", "ease"):
        recommender = recipe.with_settings({"model.name": name}).recommender()
        recommender.fit(prepared)
        metrics = ["ndcg@10", "hr@5", "mrr@3", "map@10"]
        whole = rank_queries(recommender, prepared.test, metrics, list_length=5)
        for block in (1, 7, 64):
            part = rank_queries(recommender, prepared.test, metrics, list_length=5, block=block)
            assert whole.lists == part.lists
            for metric, values in whole.metrics.items():
                np.testing.assert_array_equal(values, part.metrics[metric])


def test_slices_add_up_to_everybody(recipe):
    dataset = load_dataset(recipe.data)
    prepared = split_dataset(dataset, recipe.split)
    recommender = recipe.with_settings({"model.name": "markov"}).recommender()
    recommender.fit(prepared)
    found = evaluate(recommender, prepared, "test", recipe.evaluate)
    users = found.summary["slices"]["users"]
    assert sum(of["users"] for of in users.values()) == found.summary["users"]
    items = found.summary["slices"]["items"]
    assert sum(of["targets"] for of in items.values()) == prepared.test.targets.events
    mean = float(found.per_query["ndcg@10"].to_numpy().mean())
    np.testing.assert_allclose(found.summary["metrics"]["ndcg@10"]["value"], mean)
    # Per-slice means weighted by their users give the mean of all.
    weighted = sum(
        of["users"] * of["metrics"]["ndcg@10"]["value"] for of in users.values() if of["users"]
    )
    np.testing.assert_allclose(weighted / found.summary["users"], mean)


def test_the_lists_to_read_are_those_that_the_figures_are_of(recipe, tmp_path):
    popular = recipe.with_settings({"model.name": "popularity"})
    for exclude, different in (("none", False), ("seen", True)):
        run = train(popular.with_settings({"evaluate.exclude": exclude}), tmp_path / exclude)
        lists = [[line["item_id"] for line in one["recommended"]] for one in run.samples]
        assert any(one != lists[0] for one in lists) == different  # all are offered the same


def test_item_slices_add_up_to_recall_under_ties(recipe):
    dataset = load_dataset(recipe.data)
    prepared = split_dataset(dataset, recipe.split)
    section = recipe.evaluate.model_copy(update={"metrics": ["recall@5"], "k": 5})
    targets = prepared.test.targets
    # Of a window that holds one event hardly any item has a count; markov scores most items 0.
    for name, settings in (("popularity", {"model.window_days": 1e-6}), ("markov", {})):
        recommender = recipe.with_settings({"model.name": name, **settings}).recommender()
        recommender.fit(prepared)
        found = evaluate(recommender, prepared, "test", section)
        slices = found.summary["slices"]["items"].values()
        hits = sum(of["targets"] * of["recall@5"] for of in slices if of["targets"])
        pooled = found.per_query["recall@5"].to_numpy() @ targets.lengths
        np.testing.assert_allclose(hits, pooled)
        assert 0 < hits < targets.events


def test_the_ring_is_learnt(recipe):
    dataset = load_dataset(recipe.data)
    prepared = split_dataset(dataset, recipe.split)
    figures = {}
    for name in ("popularity", "markov"):
        recommender = recipe.with_settings({"model.name": name}).recommender()
        recommender.fit(prepared)
        found = evaluate(recommender, prepared, "test", recipe.evaluate)
        figures[name] = found.summary["metrics"]["ndcg@10"]["value"]
    assert figures["markov"] > 1.5 * figures["popularity"]
