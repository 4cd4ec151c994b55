"""What strangers try: the service answers 4xx, keeps its promises to others, and lives."""

from __future__ import annotations

import json
import select
import socket
import time
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from foretaste.serving.limits import LARGE_BODIES

from .conftest import BODY_LIMIT, TOKEN
from .server_process import Server, read_answer, status

pytestmark = pytest.mark.usefixtures("lives")
JSON = b"content-type: application/json\r\n"
HEAD = f"host: x\r\nauthorization: Bearer {TOKEN}\r\n".encode() + JSON


def post(server: Server, path: str, body: bytes, kind: str = "application/json") -> httpx.Response:
    return server.client.post(path, content=body, headers={"content-type": kind})


# --- Who may ask -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer \0",
        "Bearer " + "x" * 8_000,
    ],
)
def test_without_the_token_there_is_nothing_to_see(guarded: Server, given: str | None):
    header = b"" if given is None else f"authorization: {given}\r\n".encode()
    for path in (
        "/v1/runs",
        "/v1/items?q=a",
        "/metrics",
        "/openapi.json",
        "/nothing",
        "/v1/users/",
    ):
        said = guarded.talk(b"GET %s HTTP/1.1\r\nhost: x\r\n%s\r\n" % (path.encode(), header))
        assert status(said) in (400, 401), said
        assert b"sasrec" not in said
    for method, path in (("POST", "/v1/events"), ("DELETE", "/v1/users/ann")):
        said = guarded.talk(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert status(said) == 401
        assert b"www-authenticate: Bearer" in said


def test_two_tokens_are_none(guarded: Server):
    said = guarded.talk(b"GET /v1/runs HTTP/1.1\r\n" + HEAD + HEAD + b"\r\n")
    assert status(said) == 401


def test_health_is_for_everybody(guarded: Server):
    for path in ("/healthz", "/readyz"):
        assert httpx.get(guarded.url + path).status_code == 200
    # Nothing else is behind those names.
    for path in (
        "/healthz/",
        "/healthz/../v1/runs",
        "//healthz",
        "/readyz/x",
        "/page",
        "/page/../x",
    ):
        said = guarded.talk(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert status(said) in (401, 404) and b"sasrec" not in said


def test_a_token_is_not_told(guarded: Server):
    text = guarded.log.read_text() + json.dumps(guarded.about)
    assert TOKEN not in text
    environment = psutil.Process(guarded.process.pid).environ()
    assert TOKEN not in "".join(environment.values())
    assert TOKEN not in " ".join(psutil.Process(guarded.process.pid).cmdline())


# --- What they ask for -------------------------------------------------------------------------

PATHS = [
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc%2fpasswd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/page/../app.py",
    "/page/..%2fapp.py",
    "/page/%2e%2e%2fapp.py",
    "/page//etc/passwd",
    "/page/index.html/../../app.py",
    "/static/../app.py",
    "/v1/runs/../../etc/passwd",
    "/v1/runs%00.html",
    "/\\..\\..\\windows\\win.ini",
    "/.git/config",
    "/recipe.toml",
    "/" + "a/" * 10_000,
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:30])
def test_path_tricks_find_nothing(guarded: Server, path: str):
    said = guarded.talk(b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), HEAD))
    assert status(said) in (400, 404, 405, 431), said[:200]
    for secret in (b"root:", b"import", b"[data]", b"FastAPI"):
        assert secret not in said


@pytest.mark.parametrize("path", ["/v1/users/%ff", "/v1/users/a%c3", "/%80", "/v1/users/%c0%ae"])
def test_a_path_that_is_not_utf8_is_nobody(guarded: Server, path: str):
    guarded.log_events(("\ufffd", "i01"), ("a\ufffd", "i01"))
    said = guarded.talk(f"DELETE {path} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
    assert status(said) == 400
    assert guarded.recommend(user_id="\ufffd")["source"] != "fallback"


def test_a_user_id_in_a_path_is_bounded(guarded: Server):
    for user, expected in (("ü" * 256, 200), ("ü" * 257, 422), ("x" * 5_000, 422)):
        assert guarded.client.delete(f"/v1/users/{user}").status_code == expected


# --- Bodies ------------------------------------------------------------------------------------


def test_a_huge_body_is_refused_before_it_is_read(guarded: Server):
    memory = psutil.Process(guarded.process.pid).memory_info().rss
    head = b"POST /v1/events HTTP/1.1\r\n" + HEAD
    begin = time.perf_counter()
    for length in (BODY_LIMIT + 1, 10**9, 10**12, 2**62):
        said = guarded.talk(head + b"content-length: %d\r\n\r\n" % length)
        assert status(said) == 413, said
        assert b"connection: close" in said.lower()
    assert time.perf_counter() - begin < 10  # nobody waited for bytes that never come
    for length in (b"-1", b"1e3", b"0x10", b"9" * 30, b"9" * 5_000, b"5, 6"):
        said = guarded.talk(head + b"content-length: " + length + b"\r\n\r\n")
        assert status(said) in (400, 413), said
    assert psutil.Process(guarded.process.pid).memory_info().rss - memory < 50_000_000


def test_a_body_without_an_end_is_cut_off(guarded: Server):
    memory = psutil.Process(guarded.process.pid).memory_info().rss
    head = b"POST /v1/recommendations HTTP/1.1\r\n" + HEAD + b"transfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
        connection.sendall(head)
        sent = 0
        try:
            while sent < 1_000 * len(chunk):  # 65 MB, if anybody read them
                connection.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        assert sent < 100 * len(chunk)
    said = guarded.talk(head + 5 * chunk)
    assert said == b"" or status(said) == 413
    assert psutil.Process(guarded.process.pid).memory_info().rss - memory < 50_000_000


def test_many_bodies_that_never_end_hold_only_so_much(guarded: Server):
    memory = psutil.Process(guarded.process.pid).memory_info().rss
    head = b"POST /v1/events HTTP/1.1\r\n" + HEAD + b"content-length: %d\r\n\r\n" % BODY_LIMIT
    large = {"history": [f"i{number % 30:02}-{'x' * 11}" for number in range(10_000)], "k": 5}
    assert len(json.dumps(large)) < BODY_LIMIT
    refused: list[bytes] = []
    with ExitStack() as open_ones:
        for _ in range(3 * LARGE_BODIES):
            one = open_ones.enter_context(
                socket.create_connection(("127.0.0.1", guarded.port), timeout=20)
            )
            with suppress(OSError):  # refused before it was sent
                one.sendall(head + b" " * (BODY_LIMIT - 1))
            if select.select([one], [], [], 0.02)[0]:
                refused.append(read_answer(one))
        assert LARGE_BODIES <= len(refused) < 2.5 * LARGE_BODIES
        told = [said for said in refused if said]
        assert {status(said) for said in told} == {429} and b"retry-after: 1" in told[0]
        # Who asks for little is answered as ever.
        assert guarded.recommend(history=["i01"], k=3)["items"]
        response = guarded.client.post("/v1/recommendations", json=large)
        assert response.status_code == 429
        assert psutil.Process(guarded.process.pid).memory_info().rss - memory < 80_000_000
    deadline = time.monotonic() + 10
    while guarded.client.post("/v1/recommendations", json=large).status_code == 429:
        assert time.monotonic() < deadline
    assert guarded.figure("foretaste_shed_requests_total", why="bodies") >= len(told)


def test_a_body_that_ends_early_harms_nobody(guarded: Server):
    head = b"POST /v1/events HTTP/1.1\r\n" + HEAD + b"content-length: 1000\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
            connection.sendall(head + b'[{"user_id": "half"')
    assert guarded.recommend(user_id="half")["source"] == "fallback"


NOT_JSON = {
    "nothing": b"",
    "half": b'{"user_id": "a"',
    "bad utf-8": b'{"user_id": "\xff\xfe"}',
    "overlong utf-8": b'{"user_id": "\xc0\xaf"}',
    "utf-16": '{"k": 3}'.encode("utf-16-be")[1:],
    "half a surrogate": b'{"user_id": "\\ud800"}',
    "half a surrogate as a key": b'{"\\ud800": 1}',
    "half a surrogate in a list": b'{"history": ["\\udfff"]}',
    "NaN": b'{"k": NaN}',
    "Infinity": b'{"k": Infinity}',
    "huge float": b'{"k": 1e999}',
    "huge integer": b'{"k": ' + b"9" * 100_000 + b"}",
    "deep list": b"[" * 90_000 + b"]" * 90_000,
    "deep object": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "deep history": b'{"history": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a number": b"3",
    "a text": b'"user_id"',
    "null": b"null",
    "form": b"user_id=a&k=3",
    "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    "repeated and wrong": b'{"k": 3, "k": "many"}',
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_a_question_is_4xx(guarded: Server, body: bytes):
    for path in ("/v1/recommendations", "/v1/events"):
        response = post(guarded, path, body)
        assert response.status_code in (400, 422), response.text[:300]
        assert len(response.content) < 20_000
        json.loads(response.content)


@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/events"])
def test_other_kinds_of_content_are_415_and_told_what_to_send(guarded: Server, path: str):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"):
        response = post(guarded, path, b'{"k": 3}', kind)
        assert response.status_code == 415
        assert f'"{kind}"' in response.json()["detail"]
        assert "application/json" in response.json()["detail"]
    assert "no content-type" in guarded.client.post(path, content=b"{}").json()["detail"]


def test_json_by_its_other_names_is_read(guarded: Server):
    for kind in (
        "application/JSON; charset=utf-8",
        "application/vnd.films+json",
        "application/json",
    ):
        assert post(guarded, "/v1/recommendations", b'{"k": 3}', kind).status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("bad utf-8", 400, "not UTF-8 (at byte 13)"),
        ("deep list", 400, "nested too deeply"),
        ("huge integer", 400, "digits"),
        ("half", 422, "Expecting"),
    ],
)
def test_json_that_cannot_be_read_is_told_why(guarded: Server, body: str, code: int, said: str):
    response = post(guarded, "/v1/events", NOT_JSON[body])
    assert response.status_code == code
    assert said in str(response.json()["detail"])


WRONG = [
    {"k": 0},
    {"k": -1},
    {"k": 1_001},
    {"k": 2**70},
    {"k": "3"},
    {"k": 3.5},
    {"k": True},
    {"user_id": 5},
    {"user_id": "x" * 513},
    {"user_id": "ü" * 257},
    {"user_id": ["a"]},
    {"history": "i01"},
    {"history": [1]},
    {"history": [None]},
    {"history": [""]},
    {"history": ["x" * 513]},
    {"history": ["i"] * 10_001},
    {"history": ["i01", {"item_id": "i01", "timestamp": 1}]},
    {"history": [{"item_id": "i01", "timestamp": 1}, "i01"]},
    {"history": [{"item_id": "i01"}]},
    {"history": [{"timestamp": 1}]},
    {"history": [{"item_id": "i01", "timestamp": "1"}]},
    {"history": [{"item_id": "i01", "timestamp": -1}]},
    {"history": [{"item_id": "", "timestamp": 1}]},
    {"history": [{"item_id": "i01", "timestamp": 1, "user_id": "a"}]},
    {"history": {"item_id": "i01", "timestamp": 1}},
    {"candidates": []},
    {"candidates": ["i"] * 10_001},
    {"exclude_seen": "no"},
    {"explain": 1},
    {"run": 3},
    {"nonsense": 1},
    {"__proto__": {}},
]


@pytest.mark.parametrize("asked", WRONG, ids=lambda asked: str(asked)[:40])
def test_wrong_questions_are_422(guarded: Server, asked: dict):
    response = guarded.client.post("/v1/recommendations", json=asked)
    assert response.status_code == 422, response.text[:300]
    fields = response.json()["detail"]
    assert next(iter(asked)) in fields[0]["loc"]


def test_a_long_name_is_not_said_again(guarded: Server):
    name = "x" * (BODY_LIMIT - 100)
    for path in ("/v1/recommendations", "/v1/events"):
        response = guarded.client.post(path, json={name: 1})
        assert response.status_code == 422
        assert len(response.content) < 2_000
        assert "x" * 100 + "..." in response.text
    response = guarded.client.get("/v1/items", params={"q": "a", "y" * 20_000: "1"})
    assert response.status_code == 422 and len(response.content) < 2_000


def test_histories_of_a_million_are_4xx(guarded: Server):
    body = json.dumps({"history": ["i01"] * 1_000_000}).encode()
    assert post(guarded, "/v1/recommendations", body).status_code == 413
    body = json.dumps({"history": ["i"] * 30_000}).encode()
    assert len(body) < BODY_LIMIT
    assert post(guarded, "/v1/recommendations", body).status_code == 422
    allowed = {"history": [f"i{number % 30:02}" for number in range(10_000)], "k": 5}
    answer = guarded.recommend(**allowed, exclude_seen=False)
    assert len(answer["items"]) == 5


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"user_id": "a"},
        {"user_id": "a", "item_id": ""},
        {"user_id": "a", "item_id": "x" * 513},
        {"user_id": "a", "item_id": "i01", "timestamp": -1},
        {"user_id": "a", "item_id": "i01", "timestamp": 1e300},
        {"user_id": "a", "item_id": "i01", "timestamp": "2020-01-01"},
        {"user_id": "a", "item_id": "i01", "timestamp": True},
        {"user_id": "a", "item_id": "i01", "rating": 5},
        {"user_id": None, "item_id": "i01"},
    ],
    ids=str,
)
def test_wrong_events_are_422_and_nothing_of_the_list_is_logged(guarded: Server, event: dict):
    good = {"user_id": "victim", "item_id": "i01"}
    for body in (event, [good, event], [event, good]):
        assert guarded.client.post("/v1/events", json=body).status_code == 422
    assert guarded.recommend(user_id="victim")["source"] == "fallback"


def test_lists_of_events_are_bounded(guarded: Server):
    good = {"user_id": "busy", "item_id": "i01"}
    assert guarded.client.post("/v1/events", json=[]).status_code == 422
    assert guarded.client.post("/v1/events", json=[good] * 1_001).status_code == 422
    assert guarded.client.post("/v1/events", json=[good] * 1_000).json()["accepted"] == 1_000
    for moment in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        body = b'{"user_id": "nan", "item_id": "i01", "timestamp": ' + moment + b"}"
        assert post(guarded, "/v1/events", body).status_code == 422
    assert guarded.recommend(user_id="nan")["source"] == "fallback"


@pytest.mark.parametrize(
    "query",
    ["", "?q", "?q=a&limit=0", "?q=a&limit=51", "?q=a&limit=x", "?q=a&x=1", "?q=" + "a" * 201],
)
def test_wrong_searches_are_422(guarded: Server, query: str):
    expected = 200 if query == "?q" else 422
    assert guarded.client.get(f"/v1/items{query}").status_code == expected
