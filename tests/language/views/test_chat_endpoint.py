"""A chat endpoint on loopback, well-behaved and not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from foretaste.errors import InputError
from foretaste.language.views.chat import ChatConfig, ChatViews
from foretaste.language.views.chat_endpoint import (
    FIRST_REFUSED,
    ChatEndpoint,
    ChatEndpointConfig,
    Unanswered,
    is_here,
)
from foretaste.language.views.making import ViewBook
from foretaste.language.views.store import ViewStore
from foretaste.language.views.views import Unfinished

from .scripted import catalog, request

Answer = tuple[int, dict[str, str], bytes]


def said(text: Any) -> Answer:
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


class Endpoint:
    """A server that keeps what it was asked and answers what a test wants."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answer: Callable[[dict[str, Any]], Answer] = lambda body: said(
            f"about {body['messages'][0]['content']}"
        )
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append(body)
                endpoint.headers.append({k.lower(): v for k, v in self.headers.items()})
                endpoint.paths.append(self.path)
                status, headers, content = endpoint.answer(body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[Endpoint]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    served = Endpoint()
    yield served
    served.server.shutdown()
    served.server.server_close()


def client(endpoint: Endpoint, **other: Any) -> ChatEndpoint:
    return ChatEndpoint(ChatEndpointConfig(url=endpoint.url, model="small", **other), pause=0.01)


def test_answers_come_in_the_order_of_the_prompts(endpoint: Endpoint) -> None:
    prompts = [f"prompt {number}" for number in range(9)]
    assert client(endpoint).answers(prompts) == [f"about {prompt}" for prompt in prompts]
    assert set(endpoint.paths) == {"/v1/chat/completions"}
    assert endpoint.asked[0]["temperature"] == 0
    assert endpoint.asked[0]["max_tokens"] == 96
    assert "authorization" not in endpoint.headers[0]


def test_views_by_an_endpoint(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: said("1. Amelie")
    maker = ChatViews(ChatConfig(), client(endpoint), catalog())
    (view,) = maker.make(request([0])).rows
    assert view.future.tolist() == [0, 9]


def test_a_proxy_is_not_told_what_this_device_is_asked(endpoint: Endpoint, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert client(endpoint, tries=1).answers(["a"]) == ["about a"]


def test_a_key_is_sent_and_a_redirect_is_not_followed(endpoint: Endpoint, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    client(endpoint).answers(["a"])
    assert endpoint.headers[0]["authorization"] == "Bearer secret"
    endpoint.answer = lambda _: (302, {"Location": f"{endpoint.url}/elsewhere"}, b"")
    with pytest.raises(InputError, match="HTTP 302"):
        client(endpoint).answers(["a"])
    assert set(endpoint.paths) == {"/v1/chat/completions"}


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: (503, {}, b"") if len(endpoint.asked) < 3 else said("well")
    assert client(endpoint).answers(["a"]) == ["well"]
    endpoint.answer = lambda _: (401, {}, b'{"error": {"message": "no key"}}')
    with pytest.raises(InputError, match=r"HTTP 401 Unauthorized\).*OPENAI_API_KEY"):
        client(endpoint).answers(["a"])


@pytest.mark.parametrize(
    "content", [b"not json", b"[]", b'{"choices": []}', b'{"choices": null}', b"[" * 99_999]
)
def test_an_answer_of_another_kind_is_refused(endpoint: Endpoint, content: bytes) -> None:
    endpoint.answer = lambda _: (200, {}, content)
    with pytest.raises(InputError, match="not that of a chat endpoint"):
        client(endpoint).answers(["a"])


def test_a_refusal_without_content_is_an_empty_answer(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: said(None)
    assert client(endpoint).answers(["a"]) == [""]


def refusing(word: str, code: int = 400) -> Callable[[dict[str, Any]], Answer]:
    """Answers all prompts but those with a word, which are said again in the refusal."""

    def answer(body: dict[str, Any]) -> Answer:
        prompt = body["messages"][0]["content"]
        if word in prompt:
            return code, {}, json.dumps({"error": {"message": f"too long: {prompt}"}}).encode()
        return said("1. Amelie")

    return answer


@pytest.mark.parametrize("code", [400, 403, 413, 422])
def test_a_refused_prompt_is_one_without_an_answer(endpoint: Endpoint, code: int) -> None:
    endpoint.answer = refusing("bad", code)
    found = client(endpoint).answers(["good", "bad", "good", "bad and good"])
    assert found == ["1. Amelie", None, "1. Amelie", None]
    assert len(endpoint.asked) == 4  # none is asked again


@pytest.mark.parametrize("code", [401, 404])
def test_a_wrong_key_or_model_is_no_refused_prompt(endpoint: Endpoint, code: int) -> None:
    endpoint.answer = refusing("", code)
    with pytest.raises(Unanswered, match=f"HTTP {code}.*Check the address"):
        client(endpoint).answers(["a"])


def test_an_endpoint_that_refuses_everything_is_told(endpoint: Endpoint) -> None:
    endpoint.answer = refusing("")
    asker = client(endpoint)
    assert asker.answers(["a"] * (FIRST_REFUSED - 1)) == [None] * (FIRST_REFUSED - 1)
    with pytest.raises(Unanswered, match=r"HTTP 400 Bad Request.*Not one prompt was answered"):
        asker.answers(["a"])
    endpoint.answer = refusing("bad")
    assert asker.answers(["good", *["bad"] * 30]) == ["1. Amelie", *[None] * 30]


def test_no_error_says_again_what_was_asked(endpoint: Endpoint) -> None:
    def echo(body: dict[str, Any]) -> Answer:
        prompt = body["messages"][0]["content"]
        return code, {}, json.dumps({"error": {"message": f"no: {prompt}"}}).encode()

    endpoint.answer = echo
    for code in (200, 302, 400, 404, 500, 599):
        asker = client(endpoint, tries=1)
        with pytest.raises(InputError) as raised:
            asker.answers(["Secret Film"] * FIRST_REFUSED)
        assert "Secret" not in str(raised.value)
        assert code == 200 or f"HTTP {code}" in str(raised.value)


def test_answers_that_came_before_a_failure_are_handed_over(endpoint: Endpoint) -> None:
    endpoint.answer = refusing("down", 500)
    with pytest.raises(Unanswered) as raised:
        client(endpoint, tries=1, batch=1).answers(["a", "b", "down", *["c"] * 20])
    answers = raised.value.answers
    assert answers[0] == answers[1] == "1. Amelie"
    assert 2 not in answers and len(answers) < 20  # hardly anything was asked after it


def test_one_refused_history_harms_no_other_and_is_not_kept(endpoint: Endpoint, tmp_path) -> None:
    endpoint.answer = refusing("Knife")
    chairs = catalog()
    histories = request([0, 1], [3], [4, 5])

    def book() -> ViewBook:
        maker = ChatViews(ChatConfig(), client(endpoint), chairs)
        return ViewBook(maker, chairs, ViewStore(tmp_path / "views.sqlite"))

    found = book().views(histories)
    assert [row.future.tolist() for row in found.rows] == [[0, 1, 9], [], [4, 5, 9]]
    assert found.refused == (1,) and found.asked == 6
    endpoint.asked.clear()
    endpoint.answer = refusing("no such word")
    again = book().views(histories)
    assert len(endpoint.asked) == 3  # of the one that was refused
    assert again.rows[1].future.tolist() == [3, 9]
    assert again.refused == () and again.asked == 9


def test_what_was_answered_before_the_endpoint_was_gone_is_kept(endpoint, tmp_path) -> None:
    endpoint.answer = refusing("Knife", 500)
    chairs, path = catalog(), tmp_path / "views.sqlite"
    histories = request([0, 1], [3], [4, 5])
    maker = ChatViews(ChatConfig(), client(endpoint, tries=1, batch=1), chairs)
    with pytest.raises(Unfinished, match=r"no answer from small \(HTTP 500") as raised:
        ViewBook(maker, chairs, ViewStore(path)).views(histories)
    assert list(raised.value.made) == [0]
    endpoint.asked.clear()
    endpoint.answer = refusing("no such word")
    found = ViewBook(maker, chairs, ViewStore(path)).views(histories)
    assert len(endpoint.asked) == 2 * 3
    assert [row.future.tolist() for row in found.rows] == [[0, 1, 9], [3, 9], [4, 5, 9]]


def test_nobody_there(endpoint: Endpoint) -> None:
    endpoint.server.shutdown()
    endpoint.server.server_close()
    with pytest.raises(InputError, match=r"no answer from small .*Check the address"):
        client(endpoint, tries=2, timeout=2).answers(["a"])


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8080/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:80/v1", True),
        ("https://api.example.com/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://192.168.0.5/v1", False),
    ],
)
def test_histories_do_not_leave_the_device_unless_that_is_said(url: str, here: bool) -> None:
    assert is_here(url) is here
    if here:
        ChatEndpointConfig(url=url, model="m")
    else:
        with pytest.raises(ValidationError, match="elsewhere = true"):
            ChatEndpointConfig(url=url, model="m")
        assert ChatEndpointConfig(url=url, model="m", elsewhere=True).elsewhere


def test_a_name_before_the_host_is_not_the_host() -> None:
    url = "http://localhost@example.com/v1"
    assert not is_here(url)
    with pytest.raises(ValidationError, match="name or password"):
        ChatEndpointConfig(url=url, model="m", elsewhere=True)


def test_only_web_addresses_are_asked() -> None:
    with pytest.raises(ValidationError, match="must begin with http"):
        ChatEndpointConfig(url="file:///etc/passwd", model="small")
