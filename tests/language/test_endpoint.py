"""An embeddings endpoint on loopback, well-behaved and not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from foretaste.errors import InputError
from foretaste.language.embed import embed
from foretaste.language.endpoint import EmbeddingEndpoint, EndpointConfig
from foretaste.recommenders.core.coding import CodingConfig
from foretaste.recommenders.core.configuring import build_config

Answer = tuple[int, dict[str, str], bytes]


def vector_of(text: str) -> list[float]:
    """Not of length 1, and different for different texts."""
    rng = np.random.default_rng(list(text.encode()))
    return (5 * rng.standard_normal(6)).tolist()


class Endpoint:
    """A server that keeps what it was asked and answers what a test wants."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answer: Callable[[dict[str, Any]], Answer] = self.well
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

    def well(self, body: dict[str, Any]) -> Answer:
        """As the OpenAI API does, in an order of its own."""
        lines = [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(body["input"])]
        return 200, {}, json.dumps({"object": "list", "data": lines[::-1]}).encode()


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    served = Endpoint()
    yield served
    served.server.shutdown()
    served.server.server_close()


def client(endpoint: Endpoint, **other: Any) -> EmbeddingEndpoint:
    return EmbeddingEndpoint(EndpointConfig(url=endpoint.url, model="small", **other), pause=0.01)


def test_vectors_come_in_the_order_of_the_texts_and_of_length_one(endpoint: Endpoint) -> None:
    found = client(endpoint).encode_batch(["a", "b", "ü"])
    for row, text in zip(found, "abü", strict=True):
        expected = np.array(vector_of(text))
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)
    assert endpoint.asked == [
        {"model": "small", "input": ["a", "b", "ü"], "encoding_format": "float"}
    ]
    assert endpoint.paths == ["/v1/embeddings"]
    assert "authorization" not in endpoint.headers[0]


def test_key_and_dimensions_are_sent_when_there(endpoint: Endpoint, monkeypatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    client(endpoint, api_key_env="MY_KEY", dimensions=6).encode_batch(["a"])
    assert endpoint.headers[0]["authorization"] == "Bearer secret"
    assert endpoint.asked[0]["dimensions"] == 6


def test_embed_asks_for_each_text_once_and_keeps_it(endpoint: Endpoint, tmp_path) -> None:
    config = EndpointConfig(url=endpoint.url, model="small", batch_texts=2)
    texts = ["b", "", "a", "b", "  ", "cc"]
    cache = tmp_path / "vectors.sqlite"
    first = embed(texts, config, cache=cache)
    assert sorted(text for body in endpoint.asked for text in body["input"]) == ["a", "b", "cc"]
    assert all(len(body["input"]) <= 2 for body in endpoint.asked)
    assert not first[[1, 4]].any()
    np.testing.assert_array_equal(first[0], first[3])
    count = len(endpoint.asked)
    np.testing.assert_array_equal(embed(texts, config, cache=cache), first)
    assert len(endpoint.asked) == count
    embed(["cc", "new"], config, cache=cache)
    assert [body["input"] for body in endpoint.asked[count:]] == [["new"]]
    embed(["a"], config.model_copy(update={"model": "other"}), cache=cache)
    assert endpoint.asked[-1]["model"] == "other"


def test_what_was_embedded_before_a_failure_is_kept(endpoint: Endpoint, tmp_path) -> None:
    def sometimes(body: dict[str, Any]) -> Answer:
        return endpoint.well(body) if len(endpoint.asked) <= 8 else (400, {}, b"enough")

    endpoint.answer = sometimes
    config = EndpointConfig(url=endpoint.url, model="small", batch_texts=1)
    texts = [f"text {n:02}" for n in range(12)]
    with pytest.raises(InputError, match=r"HTTP 400 Bad Request\)"):
        embed(texts, config, cache=tmp_path / "vectors.sqlite")
    endpoint.answer, endpoint.asked = endpoint.well, []
    embed(texts, config, cache=tmp_path / "vectors.sqlite")
    assert len(endpoint.asked) == 4


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint) -> None:
    def busy(body: dict[str, Any]) -> Answer:
        if len(endpoint.asked) < 3:
            return 429, {"Retry-After": "0.01"}, b"{}"
        return endpoint.well(body)

    endpoint.answer = busy
    assert client(endpoint).encode_batch(["a"]).shape == (1, 6)
    assert len(endpoint.asked) == 3
    endpoint.answer = lambda _: (503, {}, b"")
    with pytest.raises(InputError, match="HTTP 503"):
        client(endpoint, tries=2).encode_batch(["a"])
    assert len(endpoint.asked) == 5


def test_a_refusal_is_told_at_once(endpoint: Endpoint) -> None:
    told = json.dumps({"error": {"message": "no such\nmodel: small"}}).encode()
    endpoint.answer = lambda _: (404, {}, told)
    with pytest.raises(InputError, match=r"HTTP 404 Not Found\).*OPENAI_API_KEY"):
        client(endpoint).encode_batch(["a"])
    assert len(endpoint.asked) == 1


def test_a_redirect_is_not_followed(endpoint: Endpoint, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    endpoint.answer = lambda _: (302, {"Location": f"{endpoint.url}/elsewhere"}, b"")
    with pytest.raises(InputError, match="HTTP 302"):
        client(endpoint).encode_batch(["a"])
    assert endpoint.paths == ["/v1/embeddings"]


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"[]",
        b'{"data": []}',
        b'{"data": [{"index": 1, "embedding": [1.0]}]}',
        b'{"data": [{"index": 0, "embedding": []}]}',
        b'{"data": [{"index": 0, "embedding": [NaN]}]}',
        b'{"data": [{"index": 0, "embedding": "AAAA"}]}',
        b'{"data": [{"index": 0}]}',
        b'{"data": null}',
        b"[" * 100_000,
        b'{"data": [{"index": 0, "embedding": [1%s]}]}' % (b"0" * 400),
    ],
)
def test_an_answer_of_another_kind_is_refused(endpoint: Endpoint, content: bytes) -> None:
    endpoint.answer = lambda _: (200, {}, content)
    with pytest.raises(InputError, match="not that of an embeddings endpoint"):
        client(endpoint).encode_batch(["a"])


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e300])
def test_numbers_of_any_size_make_vectors_of_length_one(endpoint: Endpoint, size: float) -> None:
    line = {"index": 0, "embedding": [3 * size, 4 * size]}
    endpoint.answer = lambda _: (200, {}, json.dumps({"data": [line]}).encode())
    np.testing.assert_allclose(client(endpoint).encode_batch(["a"]), [[0.6, 0.8]], rtol=1e-6)


def test_vectors_of_two_widths_are_told_and_not_kept(endpoint: Endpoint, tmp_path) -> None:
    def narrower(body: dict[str, Any]) -> Answer:
        width = 6 if len(endpoint.asked) == 1 else 5
        lines = [{"index": n, "embedding": [1.0] * width} for n in range(len(body["input"]))]
        return 200, {}, json.dumps({"data": lines}).encode()

    endpoint.answer = narrower
    config = EndpointConfig(url=endpoint.url, model="small", batch_texts=2)
    for cache in (None, tmp_path / "vectors.sqlite"):
        endpoint.asked = []
        with pytest.raises(InputError, match="vectors of 6 numbers, and from the model of 5"):
            embed(["a", "b", "c"], config, cache=cache)
    endpoint.answer = endpoint.well
    assert embed(["a", "b", "c"], config, cache=tmp_path / "vectors.sqlite").shape == (3, 6)


def test_nobody_there(endpoint: Endpoint) -> None:
    endpoint.server.shutdown()
    endpoint.server.server_close()
    with pytest.raises(InputError, match=r"no embeddings from small .*Check the address"):
        client(endpoint, tries=2, timeout=2).encode_batch(["a"])


def test_only_web_addresses_are_asked() -> None:
    with pytest.raises(ValidationError, match="must begin with http"):
        EndpointConfig(url="file:///etc/passwd", model="small")


def test_a_text_that_is_too_long_is_cut(endpoint: Endpoint) -> None:
    config = EndpointConfig(url=endpoint.url, model="small", max_characters=5)
    embed(["abcdefgh"], config)
    assert endpoint.asked[0]["input"] == ["abcde"]


def test_texts_that_are_all_empty_are_refused(endpoint: Endpoint) -> None:
    config = EndpointConfig(url=endpoint.url, model="small")
    with pytest.raises(InputError, match="all 2 texts are empty"):
        embed(["", " "], config)
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("field", "value", "secret"),
    [
        ("api_key_env", "sk-proj-SECRET123", "SECRET123"),
        ("url", "http://me:PASSWORD@127.0.0.1:9/v1", "PASSWORD"),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_said_again(
    field: str, value: str, secret: str
) -> None:
    values: dict[str, Any] = {"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "m"} | {
        field: value
    }
    with pytest.raises(ValidationError) as raised:
        EndpointConfig(**values)
    assert secret not in str(raised.value)
    with pytest.raises(InputError, match=f"text.*{field}") as told:
        build_config(CodingConfig, {"text": values}, place="model.codes")
    assert secret not in str(told.value) and "environment variable" in str(told.value)
