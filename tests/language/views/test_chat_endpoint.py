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
from foretaste.language.views.chat_endpoint import ChatEndpoint, ChatEndpointConfig, is_here

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
    with pytest.raises(InputError, match=r"HTTP 401 no key.*OPENAI_API_KEY"):
        client(endpoint).answers(["a"])


@pytest.mark.parametrize("content", [b"not json", b"[]", b'{"choices": []}', b'{"choices": null}'])
def test_an_answer_of_another_kind_is_refused(endpoint: Endpoint, content: bytes) -> None:
    endpoint.answer = lambda _: (200, {}, content)
    with pytest.raises(InputError, match="not that of a chat endpoint"):
        client(endpoint).answers(["a"])


def test_a_refusal_without_content_is_an_empty_answer(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: said(None)
    assert client(endpoint).answers(["a"]) == [""]


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
        ("http://localhost@example.com/v1", False),
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


def test_only_web_addresses_are_asked() -> None:
    with pytest.raises(ValidationError, match="must begin with http"):
        ChatEndpointConfig(url="file:///etc/passwd", model="small")
