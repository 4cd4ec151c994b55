"""What all rankers answer: the same from a cache, side by side, saved; and what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from foretaste.data.clicks import ClickTask
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.recommenders.core import ranker
from foretaste.recommenders.core.base import Recommender, RunContext
from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.ranker_network import History
from foretaste.recommenders.core.registry import find

from .rankers import KINDS, RANKERS, every_ranker, made

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


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.get("collective", "full")))
@pytest.mark.parametrize("name", [*RANKERS, "sim hard"])
def test_records_kept_one_by_one_give_the_scores_of_histories(
    name: str, kind: dict, same_group: ClickTask, monkeypatch
):
    hard = {"search": "hard"} if name == "sim hard" else {}
    model = made(name.split()[0], max_length=7, **kind, **hard)
    model.catalog = same_group.catalog
    torch.manual_seed(0)
    model.network = model._network(20, 3)  # ratings are known to it, and of none of these events
    for parameter in model.network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    monkeypatch.setattr(ranker, "PAIRS_AT_ONCE", 200)  # some items at a time
    rng = np.random.default_rng(0)
    nothing = np.empty((0, model.record_bytes), np.uint8)
    states: list[np.ndarray] = [nothing] * 4
    rows: list[list[int]] = [[] for _ in range(4)]
    items = rng.permutation(20)
    for count in ([3, 1, 0, 9], [0, 1, 4, 1], [0, 0, 0, 0], [1, 8, 1, 1]):
        new = [rng.integers(0, 20, n).tolist() for n in count]
        made_now = model.pack(Sequences.from_lists(new))
        assert [one.shape for one in made_now] == [(n, model.record_bytes) for n in count]
        states = [np.concatenate(pair) for pair in zip(states, made_now, strict=True)]
        rows = [old + more for old, more in zip(rows, new, strict=True)]
        some = [row for row in range(4) if len(rows[row])]
        found = model.score_records([states[row] for row in some], items)
        direct = model.score_items(Sequences.from_lists([rows[row] for row in some]), items)
        torch.testing.assert_close(found, direct, rtol=1e-5, atol=1e-5)
        states = [state[-model.window :] for state in states]  # as a store does


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


def test_parameters_that_do_not_fit_are_said():
    with pytest.raises(InputError, match="multiple of heads"):
        find("din")(dim=15)
    with pytest.raises(InputError, match="collective.user_dim = 3"):
        find("sim")(attention="collective", collective={"user_dim": 3})
    with pytest.raises(InputError, match="no use to a ranker"):
        find("din")(train={"windows": "last"})
    with pytest.raises(InputError, match="hidden"):
        find("sdim")(hiden=3)
