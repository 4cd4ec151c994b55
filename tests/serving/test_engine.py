"""What the engine does with states, logs that are gone, and stores that are down."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.serving.engine import Engine, UnknownRun
from foretaste.serving.explaining import explain
from foretaste.serving.indexing import IndexWish
from foretaste.serving.limits import EXPLAINED_EVENTS, MOST_EVENTS, TOLD_UNKNOWN
from foretaste.serving.models import CatalogNumbers, load_run
from foretaste.serving.questions import Question
from foretaste.serving.stores import Event, KeptState, StateChange, UserStore, open_store

from .conftest import BEGIN, HOUR, ITEMS
from .lists import assert_best, history_of


@pytest.fixture
def store() -> UserStore:
    return open_store("memory")


@pytest.fixture
def sasrec(run_folder):
    return load_run("sasrec", run_folder("sasrec"))


@pytest.fixture
def ease(run_folder):
    return load_run("ease", run_folder("ease"))


def log(store: UserStore, user: str, items: list[str], begin: int = BEGIN) -> list[int]:
    times = [begin + HOUR * place for place in range(len(items))]
    store.append([Event(user, item, at) for item, at in zip(items, times, strict=True)])
    return times


def kept(store: UserStore, run, user: str) -> KeptState | None:
    return store.read([user], run.fingerprint, run.incremental.window, 1)[0][1]


def test_the_log_wins_over_the_history_of_the_request_unless_it_is_empty(store, ease):
    engine = Engine([ease], store)
    log(store, "ann", ["i01", "i02"])
    answer = engine.recommend(Question("ease", user="ann", history=("i07",)))
    wanted = history_of(ease.recommender, ["i01", "i02"])
    assert_best(ease.recommender, wanted, answer.items, k=10)
    answer = engine.recommend(Question("ease", user="bob", history=("i07",)))
    assert_best(ease.recommender, history_of(ease.recommender, ["i07"]), answer.items, k=10)
    assert (answer.source, answer.degraded) == ("history", False)


def test_a_store_that_is_down_degrades_the_answer_and_says_so(tmp_path, sasrec):
    store = open_store(f"lmdb:{tmp_path / 'store'}")
    log(store, "ann", ["i01", "i02"])
    engine = Engine([sasrec], store)
    assert not engine.recommend(Question("sasrec", user="ann")).degraded
    store.close()
    answer = engine.recommend(Question("sasrec", user="ann", history=("i05", "i06")))
    assert (answer.source, answer.degraded, answer.state_bytes) == ("history", True, 0)
    wanted = history_of(sasrec.recommender, ["i05", "i06"])
    assert_best(sasrec.recommender, wanted, answer.items, k=10)
    answer = engine.recommend(Question("sasrec", user="ann"))
    assert (answer.source, answer.degraded) == ("fallback", True)
    popular = history_of(sasrec.recommender, [])
    assert_best(sasrec.recommender, popular, answer.items, k=10)
    # A question without a user never needed the store.
    assert not engine.recommend(Question("sasrec", history=("i05",))).degraded
    engine.store.close()


def test_states_of_another_model_are_not_used_and_the_log_rebuilds(
    store, sasrec, write_run, tmp_path
):
    engine = Engine([sasrec], store)
    items = ["i01", "i02", "i03"]
    times = log(store, "ann", items)
    engine.recommend(Question("sasrec", user="ann"))
    assert engine.recommend(Question("sasrec", user="ann")).source == "state"
    newer = load_run("sasrec", write_run(tmp_path / "newer", "sasrec", seed=4))
    assert newer.fingerprint != sasrec.fingerprint
    engine.swap(newer)
    answer = engine.recommend(Question("sasrec", user="ann"))
    assert answer.source == "history"
    wanted = history_of(newer.recommender, items, times)
    assert_best(newer.recommender, wanted, answer.items, k=10)
    assert engine.recommend(Question("sasrec", user="ann")).source == "state"


def test_several_runs_share_a_log_and_keep_states_of_their_own(store, sasrec, ease, run_folder):
    hstu = load_run("hstu", run_folder("hstu"))
    engine = Engine([sasrec, ease, hstu], store)
    times = log(store, "ann", ["i01", "i02", "i03"])
    questions = [Question(name, user="ann") for name in ("hstu", "ease", "sasrec", "hstu")]
    for _ in range(2):
        found = engine.answer(questions)
        engine.keep(found.changes)
        for question, answer in zip(questions, found.answers, strict=True):
            model = engine.run(question.run).recommender
            wanted = history_of(model, ["i01", "i02", "i03"], times)
            assert_best(model, wanted, answer.items, k=10)
    assert [answer.source for answer in found.answers] == ["state", "history", "state", "state"]
    assert engine.run().name == "sasrec"
    with pytest.raises(UnknownRun, match="sasrec, ease, hstu"):
        engine.run("nothing")


def test_nothing_new_changes_nothing(store, sasrec):
    engine = Engine([sasrec], store)
    log(store, "ann", ["i01", "i02"])
    first = engine.answer([Question("sasrec", user="ann")])
    assert [(change.consumed, change.fresh) for change in first.changes] == [(2, True)]
    engine.keep(first.changes)
    again = engine.answer([Question("sasrec", user="ann")])
    assert again.changes == []
    assert again.answers[0].state_bytes == 2 * sasrec.incremental.record_bytes
    log(store, "ann", ["unknown"])
    third = engine.answer([Question("sasrec", user="ann")])
    assert [(change.expected, change.consumed) for change in third.changes] == [(2, 3)]
    assert len(third.changes[0].records) == 0
    assert third.answers[0].unknown == ["unknown"]


def test_a_log_longer_than_is_read(store, sasrec):
    engine = Engine([sasrec], store)
    items = [f"i{(7 * place) % 23:02}" for place in range(MOST_EVENTS + 50)]
    times = log(store, "ann", items)
    assert engine.recommend(Question("sasrec", user="ann")).source == "history"
    new = log(store, "ann", ["i05", "i28"], times[-1] + HOUR)
    answer = engine.recommend(Question("sasrec", user="ann", k=4))
    assert answer.source == "state"
    wanted = history_of(sasrec.recommender, [*items, "i05", "i28"], [*times, *new])
    assert_best(sasrec.recommender, wanted, answer.items, k=4)


def test_a_state_that_lacks_records_is_made_anew(store, sasrec):
    engine, model = Engine([sasrec], store), sasrec.incremental
    items = ["i01", "i02", "i03", "i04"]
    times = log(store, "ann", items)
    answer = engine.answer([Question("sasrec", user="ann")])
    change = answer.changes[0]
    assert len(change.records) == min(4, model.window)
    short = change._replace(records=change.records[-1:])
    assert store.extend([short]) == [True]
    answer = engine.recommend(Question("sasrec", user="ann"))
    assert answer.source == "history"
    wanted = history_of(sasrec.recommender, items, times)
    assert_best(sasrec.recommender, wanted, answer.items, k=10)
    state = kept(store, sasrec, "ann")
    assert state is not None and state.consumed == 4


def test_many_new_events_are_read_from_the_log_at_once(store, sasrec):
    engine = Engine([sasrec], store)
    log(store, "ann", ["i01"])
    engine.recommend(Question("sasrec", user="ann"))
    items = [f"i{place % ITEMS:02}" for place in range(sasrec.incremental.readable + 5)]
    times = log(store, "ann", items, BEGIN + 90 * HOUR)
    answer = engine.recommend(Question("sasrec", user="ann", exclude_seen=False))
    assert answer.source == "history"
    history = history_of(sasrec.recommender, items, times)
    expected = sasrec.recommender.recommend(history, 10, exclude="none")[0]
    np.testing.assert_allclose(
        [line.score for line in answer.items], [line.score for line in expected], rtol=1e-4
    )
    assert engine.recommend(Question("sasrec", user="ann")).source == "state"


def test_what_another_process_kept_first_stays(store, sasrec):
    ours, theirs = Engine([sasrec], store), Engine([sasrec], store)
    log(store, "ann", ["i01"])
    ours.recommend(Question("sasrec", user="ann"))
    log(store, "ann", ["i02"])
    slow, fast = (one.answer([Question("sasrec", user="ann")]) for one in (ours, theirs))
    theirs.keep(fast.changes)
    ours.keep(slow.changes)
    state = kept(store, sasrec, "ann")
    assert state is not None and (state.consumed, len(state.records)) == (2, 2)


def test_what_is_said_to_be_kept_is_what_the_store_holds(store, sasrec):
    engine = Engine([sasrec], store)

    def told() -> tuple[int, int]:
        answer = engine.answer([Question("sasrec", user="ann")]).answers[0]
        return answer.logged, answer.state_bytes

    log(store, "ann", ["i01", "nope", "i02"])
    assert told() == (3, 0)
    assert told() == (3, 0)  # as nothing was written
    engine.recommend(Question("sasrec", user="ann"))
    log(store, "ann", ["i03"])
    state = kept(store, sasrec, "ann")
    assert state is not None and told() == (4, state.records.nbytes)
    assert engine.recommend(Question("sasrec", history=("i01",))).logged == 0


def test_a_state_computed_before_a_forgetting_does_not_come_back(store, sasrec):
    engine = Engine([sasrec], store)
    log(store, "ann", ["i01", "i02"])
    found = engine.answer([Question("sasrec", user="ann")])
    assert store.forget("ann")
    engine.keep(found.changes)
    assert store.size("ann") == (0, 0)
    assert not store.forget("ann")


def test_answers_without_states_neither_read_nor_write_them(store, sasrec):
    Engine([sasrec], store).recommend(Question("sasrec", user="ann"))
    engine = Engine([sasrec], store, states=False)
    log(store, "ann", ["i01", "i02"])
    found = engine.answer([Question("sasrec", user="ann")])
    assert (found.answers[0].source, found.changes) == ("history", [])
    assert found.answers[0].state_bytes == 0


# --- Why ---------------------------------------------------------------------------------------


def test_the_reasons_of_a_linear_model_are_its_weights(store, ease):
    engine = Engine([ease], store)
    history = ["i04", "i01", "i09"]
    answer = engine.recommend(Question("ease", history=tuple(history), k=5, explain=True))
    numbers = ease.catalog.numbers(history)
    listed = ease.catalog.numbers([line.item_id for line in answer.items])
    falls = ease.recommender.weights[numbers][:, listed].mean(axis=1)
    assert answer.because is not None
    given = {reason.item_id: reason.fall for reason in answer.because}
    assert given == pytest.approx(dict(zip(history, falls.tolist(), strict=True)), abs=1e-6)
    order = [reason.fall for reason in answer.because]
    assert order == sorted(order, reverse=True)  # type: ignore[type-var]


def test_reasons_of_a_user_are_of_the_last_events_only(store, sasrec):
    engine = Engine([sasrec], store)
    log(store, "ann", [f"i{place % 25:02}" for place in range(40)])
    answer = engine.recommend(Question("sasrec", user="ann", k=3, explain=True))
    assert answer.because is not None and len(answer.because) == EXPLAINED_EVENTS
    assert np.isfinite([reason.fall for reason in answer.because]).all()  # type: ignore[arg-type]
    falls = [reason.fall for reason in answer.because]
    assert falls == sorted(falls, reverse=True)  # type: ignore[type-var]


def test_reasons_do_not_take_the_scores_of_the_whole_catalog(store, sasrec, monkeypatch):
    engine, history = Engine([sasrec], store), ("i04", "i01", "i09")
    answer = engine.recommend(Question("sasrec", history=history, k=4, explain=True))
    listed = sasrec.catalog.numbers([line.item_id for line in answer.items])

    def mean(events: list[str]) -> float:
        [(_, scores)] = sasrec.recommender.scores(history_of(sasrec.recommender, events))
        return float(scores[0, listed].double().mean())

    rest = [[item for item in history if item != left_out] for left_out in history]
    falls = [mean(list(history)) - mean(events) for events in rest]
    given = {reason.item_id: reason.fall for reason in answer.because or ()}
    assert given == pytest.approx(dict(zip(history, falls, strict=True)), abs=1e-5)
    monkeypatch.setattr(type(sasrec.recommender), "scores", None)
    events = sasrec.catalog.numbers(list(history))
    again = explain(sasrec.recommender, sasrec.catalog, events, None, listed.tolist())
    assert again == answer.because


@pytest.mark.parametrize("name", ["tiger", "mdgr", "s2gr"])
def test_reasons_of_a_search_are_of_the_scores_of_all_that_is_listed(
    name, store, write_run, tmp_path
):
    """Also of items that are not among the few that the search finds without an event."""
    run = load_run(name, write_run(tmp_path / name, name, beams=2))
    history = ["i04", "i01", "i09", "i16"]
    answer = Engine([run], store).recommend(Question(name, history=tuple(history), explain=True))
    listed = run.catalog.numbers([line.item_id for line in answer.items])

    def mean(events: list[str]) -> float:
        asked = history_of(run.recommender, events)
        [(_, scores)] = run.recommender.scores(asked, exclude="none", depth=ITEMS)
        return float(scores[0, listed].double().mean())

    rest = [[item for item in history if item != left_out] for left_out in history]
    falls = [mean(history) - mean(events) for events in rest]
    given = {reason.item_id: reason.fall for reason in answer.because or ()}
    assert given == pytest.approx(dict(zip(history, falls, strict=True)), abs=1e-4)


def test_what_has_no_reasons_says_so(store, ease, run_folder):
    popular = load_run("popularity", run_folder("popularity"))
    engine = Engine([ease, popular], store)
    one = engine.recommend(Question("ease", history=("i04",), explain=True))
    assert [(reason.item_id, reason.fall) for reason in one.because or ()] == [("i04", None)]
    assert engine.recommend(Question("ease", explain=True)).because == []
    assert engine.recommend(Question("ease", history=("i04",))).because is None
    same = engine.recommend(Question("popularity", history=("i04", "i05"), explain=True))
    assert {reason.fall for reason in same.because or ()} == {0.0}


def test_reasons_change_nothing_else(store, sasrec):
    engine = Engine([sasrec], store)
    log(store, "ann", ["i01", "i02", "i03"])
    plain = engine.recommend(Question("sasrec", user="ann"))
    engine.recommend(Question("sasrec", user="ann", explain=True))
    again = engine.recommend(Question("sasrec", user="ann"))
    assert [line.item_id for line in plain.items] == [line.item_id for line in again.items]


# --- Numbers -----------------------------------------------------------------------------------


def test_item_numbers_of_the_store_become_those_of_the_catalog(store, ease):
    numbers = CatalogNumbers(ease.catalog, store)
    assert numbers.of(np.empty(0, np.uint32)).tolist() == []
    log(store, "ann", ["i05", "nope", "i00"])
    first = store.read(["ann"], "", 1, 9)[0][0].items
    assert numbers.of(first).tolist() == [*ease.catalog.numbers(["i05", "nope", "i00"])]
    log(store, "ann", ["i29", "i05"])
    later = store.read(["ann"], "", 1, 9)[0][0].items
    assert numbers.of(later).tolist() == [
        *ease.catalog.numbers(["i05", "nope", "i00", "i29", "i05"])
    ]


def test_item_numbers_may_come_one_at_a_time(store, ease):
    """The table has room for more than it knows; what it does not know is asked for."""
    numbers, catalog = CatalogNumbers(ease.catalog, store), ease.catalog
    ids = [f"i{n % 30:02d}" if n % 3 else f"nope{n}" for n in range(25)]
    for count, item in enumerate(ids, 1):
        log(store, "ann", [item])
        read = store.read(["ann"], "", 1, 99)[0][0].items
        found = numbers.of(read)
        assert found.dtype == np.int32
        assert found.tolist() == catalog.numbers(ids[:count]).tolist()
    store.append([Event("ann", "x", BEGIN)], strangers=["x"], room=0)
    log(store, "ann", ["i29"])  # a new one beside one without a name
    read = store.read(["ann"], "", 1, 99)[0][0].items
    assert numbers.of(read).tolist() == catalog.numbers([*ids, "x", "i29"]).tolist()


def test_unknown_items_of_a_log_are_told_up_to_a_bound(store, ease):
    log(store, "ann", [f"strange{number:03}" for number in range(TOLD_UNKNOWN + 30)])
    engine = Engine([ease], store)
    asked = Question(ease.name, user="ann", candidates=("i01", "other"), k=3)
    answer = engine.recommend(asked)
    assert answer.unknown == [f"strange{n:03}" for n in range(30, TOLD_UNKNOWN + 30)] + ["other"]


def test_items_without_a_name_are_unknown_and_harm_nothing(store, ease, sasrec):
    for run in (ease, sasrec):
        engine = Engine([run], store)
        user = f"user of {run.name}"
        store.append([Event(user, "i05", BEGIN)])
        store.append([Event(user, "x", BEGIN + 1)], strangers=["x"], room=0)
        store.append([Event(user, "seen", BEGIN + 2), Event(user, "i07", BEGIN + 3)])
        for _ in range(2):  # from the log, then from a state
            answer = engine.recommend(Question(run.name, user=user))
            assert answer.unknown == ["seen"]
            wanted = history_of(run.recommender, ["i05", "i07"], [BEGIN, BEGIN + 3])
            assert_best(run.recommender, wanted, answer.items, k=10)
        only = f"{user}, strangers only"
        store.append([Event(only, "x", BEGIN)], strangers=["x"], room=0)
        answer = engine.recommend(Question(run.name, user=only))
        assert (answer.source, answer.unknown) == ("fallback", [])


def test_a_change_names_the_log_that_was_read(store, sasrec):
    log(store, "ann", ["i01"])
    change = Engine([sasrec], store).answer([Question("sasrec", user="ann")]).changes[0]
    assert isinstance(change, StateChange)
    assert change.birth == store.read(["ann"], "", 1, 1)[0][0].birth != 0


# --- Approximate ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_index_finds_what_it_was_measured_to_find(kind, store, run_folder):
    pytest.importorskip("faiss")
    run = load_run("sasrec", run_folder("sasrec"), IndexWish(kind, 1.0))
    assert run.index is not None and run.index.recall == 1.0
    engine = Engine([run], store)
    times = log(store, "ann", ["i01", "i02"])
    wanted = history_of(run.recommender, ["i01", "i02"], times)
    for _ in range(2):
        answer = engine.recommend(Question("sasrec", user="ann"))
        assert_best(run.recommender, wanted, answer.items, k=10)
    few = Question("sasrec", user="ann", candidates=("i05", "i06", "i02"))
    assert {line.item_id for line in engine.recommend(few).items} == {"i05", "i06"}
    assert load_run("ease", run_folder("ease"), IndexWish(kind, 1.0)).index is None
