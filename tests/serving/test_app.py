"""The routes, asked over HTTP from a real server with several runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.registry import names
from foretaste.serving.schemas import Ask, NewEvents

from .conftest import BEGIN, HOUR, ITEMS
from .lists import assert_best, history_of
from .server_process import Server


@pytest.fixture(scope="module")
def server(run_folder, tmp_path_factory) -> Iterator[Server]:
    """Every recommender there is, SASRec first, over LMDB."""
    others = [name for name in names() if name != "sasrec"]
    folder = tmp_path_factory.mktemp("served")
    runs = [run_folder(name) for name in ("sasrec", *others)]
    with Server(runs, "--store", f"lmdb:{folder / 'store'}", log=folder / "log") as server:
        yield server


def lines(answer: dict):
    from foretaste.recommenders.core.results import RecommendedItem

    return [RecommendedItem(**line) for line in answer["items"]]


@pytest.mark.parametrize("name", names())
def test_every_recommender_answers_as_it_does_without_the_service(name, server, run_folder):
    model = Recommender.load(run_folder(name))
    history = ["i03", "i11", "nope", "i03", "i20"]
    answer = server.recommend(history=history, k=6, run=name)
    assert_best(model, history_of(model, history), lines(answer), k=6)
    assert (answer["source"], answer["unknown"], answer["run"]) == ("history", ["nope"], name)
    user, times = f"user of {name}", [BEGIN + HOUR * place for place in range(len(history))]
    for place, item in enumerate(history):
        server.log_events((user, item, times[place]))
        answer = server.recommend(user_id=user, k=6, run=name)
        wanted = history_of(model, history[: place + 1], times[: place + 1])
        assert_best(model, wanted, lines(answer), k=6)
        assert not answer["degraded"]


def test_a_returning_user_is_answered_from_a_state(server):
    server.log_events(("ann", "i01", BEGIN), ("ann", "i02", BEGIN + HOUR))
    deadline = time.monotonic() + 20
    while (answer := server.recommend(user_id="ann"))["source"] != "state":
        assert time.monotonic() < deadline  # states are written behind the answers
    runs = server.client.get("/v1/runs").json()["runs"]
    assert answer["state_bytes"] == 2 * runs[0]["record_bytes"] > 0
    assert answer["fingerprint"] == runs[0]["fingerprint"]
    before = server.figure("foretaste_state_read_bytes_total")
    server.recommend(user_id="ann")
    read = server.figure("foretaste_state_read_bytes_total") - before
    assert read == answer["state_bytes"]


def test_one_event_or_a_list_with_seconds_or_milliseconds(server):
    one = {"user_id": "tim", "item_id": "i05"}
    assert server.client.post("/v1/events", json=one).json()["accepted"] == 1
    events = [
        one | {"timestamp": 1_600_000_000},
        one | {"timestamp": 1_600_000_000_500},
        one | {"timestamp": 1_600_000_000.25, "item_id": "new"},
    ]
    told = server.client.post("/v1/events", json=events).json()
    assert (told["accepted"], told["unknown"]) == (3, ["new"])
    answer = server.recommend(user_id="tim")
    assert answer["unknown"] == ["new"]
    assert "i05" not in [line["item_id"] for line in answer["items"]]


def test_a_history_may_tell_its_times(server):
    """In seconds or milliseconds, as events do; the list is that of the same events in the log."""
    events = [("i03", BEGIN), ("i11", BEGIN + HOUR), ("i20", BEGIN + 5_000 * HOUR)]
    server.log_events(*(("timed", item, at) for item, at in events))
    logged = server.recommend(user_id="timed", run="hstu")
    for unit in (1, 1_000):
        history = [{"item_id": item, "timestamp": at / unit} for item, at in events]
        answer = server.recommend(history=history, run="hstu")
        assert answer["source"] == "history"
        scores = [line["score"] for line in answer["items"]]
        expected = [line["score"] for line in logged["items"]]
        assert scores == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_times_are_told_by_their_size():
    from foretaste.serving.schemas import NewEvent

    def logged(timestamp: float | None) -> int:
        return NewEvent(user_id="a", item_id="b", timestamp=timestamp).milliseconds(now=7)

    assert logged(None) == 7
    assert logged(1_600_000_000) == logged(1_600_000_000_000) == 1_600_000_000_000
    assert logged(1_600_000_000.25) == 1_600_000_000_250
    assert logged(0) == 0


@pytest.mark.parametrize(
    ("form", "given", "place"),
    [
        (NewEvents, {"user_id": "a", "item_id": "i", "timestamp": -1}, ("event", "timestamp")),
        (NewEvents, [{"user_id": "a"}], ("events", 0, "item_id")),
        (NewEvents, [], ("events",)),
        (Ask, {"history": [{"item_id": "i", "timestamp": -1}]}, ("history", "events", 0)),
        (Ask, {"history": ["i", 1]}, ("history", "ids", 1)),
        (Ask, {"history": [{"item_id": "i", "timestamp": 1}, "i"]}, ("history", "events", 1)),
    ],
)
def test_what_is_wrong_is_told_of_the_form_that_was_meant(form, given, place):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(form).validate_python(given)
    (told,) = caught.value.errors()
    assert told["loc"][: len(place)] == place
    for history in ([], None, ["i"], [{"item_id": "i", "timestamp": 1}]):
        Ask.model_validate({"history": history})


def test_what_a_question_may_say(server, run_folder):
    model = Recommender.load(run_folder("sasrec"))
    popular = server.recommend(k=3)
    assert popular["source"] == "fallback"
    assert_best(model, history_of(model, []), lines(popular), k=3)
    few = server.recommend(history=["i01"], candidates=["i04", "i01", "nope"], k=9)
    assert ([line["item_id"] for line in few["items"]], few["unknown"]) == (["i04"], ["nope"])
    seen = server.recommend(history=["i01"], candidates=["i04", "i01"], exclude_seen=False)
    assert {line["item_id"] for line in seen["items"]} == {"i01", "i04"}
    assert server.recommend(candidates=["nope"])["items"] == []
    assert len(server.recommend(k=1_000)["items"]) == ITEMS
    assert popular["items"][0]["title"].startswith("Film number ")
    assert "because" not in popular
    assert popular["ms"] > 0


def test_explanations(server):
    history = ["i01", "i02", "i03"]
    answer = server.recommend(history=history, explain=True, run="ease")
    falls = [reason["fall"] for reason in answer["because"]]
    assert {reason["item_id"] for reason in answer["because"]} == set(history)
    assert falls == sorted(falls, reverse=True)
    assert server.recommend(history=["i01"], explain=True)["because"][0]["fall"] is None


@pytest.mark.parametrize(
    "user",
    [
        "plain",
        "with space and ünïcödé 😀",
        "../../etc/passwd",
        "..",
        "a/b//c/",
        "",
        "%2e%2e%2f",
        "zero\0inside",
        "lines\nand\r\nmore\n",
        "?q=1#x&y",
        "healthz",
        "x" * 512,
    ],
    ids=repr,
)
def test_forget_me_with_any_id(server, user):
    path = f"/v1/users/{quote(user, safe='')}"
    server.log_events((user, "i01"), (user, "i02"), ("bystander", "i01"))
    assert server.recommend(user_id=user)["source"] in ("history", "state")
    # httpx tidies a path up; what is sent here is sent as it is.
    said = server.talk(
        f"DELETE {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
    )
    assert b'{"forgotten":true}' in said, said
    assert server.recommend(user_id=user)["source"] == "fallback"
    assert b'{"forgotten":false}' in server.talk(
        f"DELETE {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
    )
    assert server.recommend(user_id="bystander")["source"] in ("history", "state")


def test_items_by_title(server):
    found = server.client.get("/v1/items", params={"q": "film numbr 7", "limit": 2}).json()
    assert found["items"][0] == {
        "item_id": "i07",
        "title": "Film number 7 (1997)",
        "score": found["items"][0]["score"],
    }
    assert len(found["items"]) <= 2
    assert len(server.client.get("/v1/items", params={"q": "film num"}).json()["items"]) == 10
    assert server.client.get("/v1/items", params={"q": ""}).json() == {"items": []}
    assert server.client.get("/v1/items", params={"q": "film", "run": "ease"}).status_code == 200


def test_runs_are_told(server, run_folder):
    runs = server.client.get("/v1/runs").json()["runs"]
    assert runs[0]["name"] == "sasrec" == runs[0]["model"]
    assert sorted(run["name"] for run in runs) == sorted(names())
    assert [run["default"] for run in runs] == [True] + [False] * (len(runs) - 1)
    first = runs[0]
    model = Recommender.load(run_folder("sasrec"))
    assert first["items"] == ITEMS
    assert first["fingerprint"] == model.fingerprint
    assert first["incremental"] and first["record_bytes"] > 0 and first["window"] > 0
    assert datetime.fromisoformat(first["loaded"]).tzinfo is not None
    kept = {run["model"]: run["record_bytes"] for run in runs}
    assert kept["ease"] == 0


def test_health_and_figures(server):
    assert server.client.get("/healthz").json() == {"status": "ok", "reasons": []}
    assert server.client.get("/readyz").json() == {"status": "ok", "reasons": []}
    for path in ("/healthz", "/readyz"):  # as balancers ask
        answer = server.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
    before = server.figure("foretaste_lists_total", source="fallback")
    events = server.figure("foretaste_events_total")
    server.recommend()
    server.log_events(("someone", "i01"), ("someone", "i02"))
    assert server.figure("foretaste_lists_total", source="fallback") == before + 1
    assert server.figure("foretaste_events_total") == events + 2
    assert server.figure("foretaste_store_up") == 1
    text = server.client.get("/metrics").text
    for name in (
        'foretaste_requests_total{route="/v1/recommendations",status="200"}',
        'foretaste_request_seconds_bucket{le="0.05",route="/v1/recommendations"}',
        'foretaste_batch_size_sum{work="recommendations"}',
        "foretaste_store_errors_total",
        "foretaste_waiting_requests",
    ):
        assert name in text
    assert "text/plain" in server.client.get("/metrics").headers["content-type"]


def test_made_up_paths_are_one_figure(server):
    for path in ("/a", "/b/c", "/v1/users", "/v1"):
        assert server.client.get(path).status_code == 404
    assert server.figure("foretaste_requests_total", route="other", status="404") >= 4
    assert '"/b/c"' not in server.client.get("/metrics").text


def test_wrong_methods_and_unknown_runs(server):
    response = server.client.get("/v1/events")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    for method, path, asked in (
        ("POST", "/v1/recommendations", {"json": {"run": "nothing"}}),
        ("GET", "/v1/items", {"params": {"q": "a", "run": "nothing"}}),
    ):
        response = server.client.request(method, path, **asked)
        assert response.status_code == 404
        assert "Choose one of: sasrec" in response.json()["detail"]


def test_answers_say_that_they_are_not_to_be_sniffed_or_stored(server):
    for path in ("/v1/runs", "/nothing", "/healthz"):
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_many_at_once_get_each_their_own(server):
    from concurrent.futures import ThreadPoolExecutor

    import httpx

    rng = np.random.default_rng(3)
    asked = [[f"i{item:02}" for item in rng.choice(ITEMS, 3, replace=False)] for _ in range(120)]
    alone = {tuple(history): server.recommend(history=history)["items"] for history in asked[:30]}
    with ThreadPoolExecutor(16) as pool, httpx.Client(base_url=server.url, timeout=60) as client:
        together = list(
            pool.map(
                lambda history: client.post(
                    "/v1/recommendations", json={"history": history}
                ).json(),
                asked,
            )
        )
    for history, answer in zip(asked[:30], together[:30], strict=True):
        expected = alone[tuple(history)]
        assert [one["item_id"] for one in answer["items"]] == [one["item_id"] for one in expected]
    assert server.figure("foretaste_batch_size_count", work="recommendations") > 0
