"""The service gives the list that ``recommend`` gives, for every recommender there is."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.registry import names
from foretaste.serving.engine import Engine
from foretaste.serving.models import ServedRun, load_run
from foretaste.serving.questions import Question
from foretaste.serving.stores import Event, open_store

from .conftest import BEGIN, HOUR, ITEMS, VARIANTS
from .lists import assert_best, history_of

HISTORIES = {
    "empty": [],
    "one": ["i03"],
    "several": ["i03", "i01", "i17", "i00"],
    "repeated": ["i03", "i03", "i01", "i03"],
    "unknown among them": ["nope", "i03", "", "i01"],
    "all unknown": ["nope", "i3"],
    "longer than any window": [f"i{item % 20:02}" for item in range(0, 700, 7)] + ["i05"],
}
every_model = pytest.mark.parametrize("name", [*names(), *VARIANTS])


@pytest.fixture
def run(name, run_folder) -> ServedRun:
    return load_run(name, run_folder(name))


@every_model
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_by_history(name: str, run: ServedRun, history: list[str]):
    engine = Engine([run], open_store("memory"))
    answer = engine.recommend(Question(name, history=tuple(history), k=7))
    assert_best(run.recommender, history_of(run.recommender, history), answer.items, k=7)
    known = [item for item in history if item in run.catalog.item_ids]
    assert answer.source == ("history" if known else "fallback")
    assert set(answer.unknown) == set(history) - set(known)


@every_model
def test_by_history_with_times(name: str, run: ServedRun):
    engine = Engine([run], open_store("memory"))
    history = ["i03", "i01", "nope", "i17", "i00"]
    times = [BEGIN, BEGIN + 1, BEGIN + 7 * HOUR, BEGIN + 500 * HOUR, BEGIN + 9_000 * HOUR]
    wanted = history_of(run.recommender, history, times)
    for candidates in (None, ("i02", "i09", "i03")):
        question = Question(
            name, history=tuple(history), times=tuple(times), k=7, candidates=candidates
        )
        answer = engine.recommend(question)
        [expected] = run.recommender.recommend(wanted, 7, candidates=candidates)
        assert [line.item_id for line in answer.items] == [line.item_id for line in expected]
        np.testing.assert_allclose(
            [line.score for line in answer.items],
            [line.score for line in expected],
            rtol=1e-4,
            atol=1e-5,
        )
        assert answer.unknown == ["nope"]


def test_times_of_a_history_make_it_equal_to_the_log(tmp_path, run_folder):
    """Also when the store is down: HSTU reads times."""
    hstu = load_run("hstu", run_folder("hstu"))
    store = open_store(f"lmdb:{tmp_path / 'store'}")
    items = ("i01", "i02", "i05")
    times = (BEGIN, BEGIN + HOUR, BEGIN + 4_000 * HOUR)
    store.append([Event("ann", item, at) for item, at in zip(items, times, strict=True)])
    engine = Engine([hstu], store)
    logged = engine.recommend(Question("hstu", user="ann"))

    def scores(**more) -> list[float]:
        return [line.score for line in engine.recommend(Question("hstu", **more)).items]

    expected = pytest.approx([line.score for line in logged.items], rel=1e-4, abs=1e-5)
    assert scores(history=items, times=times) == expected
    assert scores(history=items) != expected
    store.close()
    assert scores(user="ann", history=items, times=times) == expected
    engine.store.close()


@every_model
def test_candidates_of_a_history(name: str, run: ServedRun):
    engine = Engine([run], open_store("memory"))
    for history in ([], ["i03"], ["i03", "i01", "nope", "i17"]):
        wanted = history_of(run.recommender, history)
        for candidates in (("i02", "i09", "i03", "nope", "i09"), ("i03",), ("nope",)):
            for exclude in ("seen", "none"):
                question = Question(
                    name,
                    history=tuple(history),
                    k=9,
                    candidates=candidates,
                    exclude_seen=exclude == "seen",
                )
                answer = engine.recommend(question)
                known = [item for item in candidates if item != "nope"]
                if not known:
                    assert answer.items == []
                    continue
                expected = run.recommender.recommend(wanted, 9, exclude=exclude, candidates=known)
                assert [line.item_id for line in answer.items] == expected.item_ids[0]
                np.testing.assert_allclose(
                    [line.score for line in answer.items],
                    [line.score for line in expected[0]],
                    rtol=1e-4,
                    atol=1e-5,
                )


@pytest.mark.parametrize("name", ["din", "sim", "sdim"])
def test_a_ranker_judges_the_candidates_alone(name: str, run: ServedRun, monkeypatch):
    assert isinstance(run.recommender, Ranker)
    network, judged = run.recommender.network, []
    judge = network.judge

    def watched(memory, candidates, ends):
        judged.append(candidates.tolist())
        return judge(memory, candidates, ends)

    monkeypatch.setattr(network, "judge", watched)
    engine = Engine([run], open_store("memory"))
    engine.recommend(Question(name, history=("i03",), candidates=("i02", "i09", "i03")))
    assert judged == [[run.catalog.numbers(["i02", "i09"]).tolist()]]


@every_model
@pytest.mark.parametrize("states", [True, False])
def test_by_events_one_after_another(name: str, run: ServedRun, states: bool):
    store = open_store("memory")
    engine = Engine([run], store, states=states)
    rng = np.random.default_rng(5)
    share = np.arange(ITEMS, 0, -1) / np.arange(ITEMS, 0, -1).sum()
    history: list[str] = []
    times: list[int] = []
    for place in range(45):
        item = "unknown" if place % 9 == 4 else f"i{rng.choice(ITEMS, p=share):02}"
        history.append(item)
        times.append(BEGIN + int(HOUR * place * rng.random() ** 3))
        store.append([Event("ann", item, times[-1])])
        answer = engine.recommend(Question(name, user="ann", k=5))
        wanted = history_of(run.recommender, history, times)
        assert_best(run.recommender, wanted, answer.items, k=5)
        kept = states and run.incremental is not None and place > 0
        assert answer.source == ("state" if kept else "history")


@every_model
def test_many_users_in_one_batch(name: str, run: ServedRun):
    store = open_store("memory")
    engine = Engine([run], store)
    rng = np.random.default_rng(6)
    histories = {
        f"user {user}": [f"i{item:02}" for item in rng.integers(0, ITEMS, int(length))]
        for user, length in enumerate([0, 1, 2, 3, 9, 30, 31, 80])
    }
    for _ in range(3):  # from the log, then from states with a new event each
        for history in histories.values():
            history.append(f"i{rng.integers(ITEMS):02}")
        times = {user: [BEGIN + HOUR * at for at in range(len(h))] for user, h in histories.items()}
        for user, history in histories.items():
            new = zip(history, times[user], strict=True)
            held = store.read([user], "", 1, 1)[0][0].total
            store.append([Event(user, item, at) for item, at in list(new)[held:]])
        questions = [Question(name, user=user, k=1 + n) for n, user in enumerate(histories)]
        found = engine.answer(questions)
        engine.keep(found.changes)
        for question, answer in zip(questions, found.answers, strict=True):
            assert question.user is not None
            wanted = history_of(run.recommender, histories[question.user], times[question.user])
            assert_best(run.recommender, wanted, answer.items, k=question.k)


@every_model
def test_candidates_and_seen_items(name: str, run: ServedRun):
    store = open_store("memory")
    engine = Engine([run], store)
    history, times = ["i03", "i01", "i02"], [BEGIN, BEGIN + HOUR, BEGIN + 2 * HOUR]
    store.append([Event("ann", item, at) for item, at in zip(history, times, strict=True)])
    wanted = history_of(run.recommender, history, times)
    candidates = ("i02", "i09", "i20", "nope", "i09")
    for exclude in ("seen", "none"):
        expected = run.recommender.recommend(
            wanted, 9, exclude=exclude, candidates=list(candidates)
        )[0]
        question = Question(
            name, user="ann", k=9, candidates=candidates, exclude_seen=exclude == "seen"
        )
        answer = engine.recommend(question)
        assert [line.item_id for line in answer.items] == [line.item_id for line in expected]
        np.testing.assert_allclose(
            [line.score for line in answer.items],
            [line.score for line in expected],
            rtol=1e-4,
            atol=1e-5,
        )
        assert answer.unknown == ["nope"]
        free = engine.recommend(Question(name, user="ann", k=100, exclude_seen=exclude == "seen"))
        assert len(free.items) == ITEMS - (3 if exclude == "seen" else 0)
