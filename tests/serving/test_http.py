"""HTTP itself, bent: the server answers 4xx or hangs up, and lives."""

from __future__ import annotations

import re
import socket
import time

import psutil
import pytest

from .conftest import TOKEN
from .server_process import Server, read_answer, status

pytestmark = pytest.mark.usefixtures("lives")
HEAD = f"host: x\r\nauthorization: Bearer {TOKEN}\r\n".encode()


def test_header_floods_are_4xx(guarded: Server):
    many = b"".join(b"x-%d: y\r\n" % number for number in range(20_000))
    for flood in (many, b"x: " + b"y" * 300_000 + b"\r\n", b"cookie: " + b"a=b; " * 60_000):
        said = guarded.talk(b"GET /v1/runs HTTP/1.1\r\n" + HEAD + flood)
        assert said == b"" or status(said) in (400, 431)
    said = guarded.talk(b"GET /" + b"a" * 300_000)
    assert said == b"" or status(said) in (400, 414, 431)
    memory = psutil.Process(guarded.process.pid).memory_info().rss
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        sent = 0
        try:
            while sent < 100_000_000:
                connection.sendall(b"x: " + b"y" * 65_536 + b"\r\n")
                sent += 65_536
        except OSError:
            pass
        assert sent < 50_000_000
    assert psutil.Process(guarded.process.pid).memory_info().rss - memory < 50_000_000


def test_a_large_head_that_is_allowed(guarded: Server):
    said = guarded.talk(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 30_000 + b"\r\n\r\n")
    assert status(said) == 200


def test_what_is_not_http_is_refused(guarded: Server):
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        said = guarded.talk(sent)
        assert said == b"" or 400 <= status(said) < 500, said


@pytest.mark.slow  # it waits for the server's patience to end, 10 s
def test_a_connection_that_says_nothing_is_ended_and_others_are_served(guarded: Server):
    begin = time.monotonic()
    idle = [socket.create_connection(("127.0.0.1", guarded.port), timeout=30) for _ in range(50)]
    for connection in idle[::2]:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ")
    for connection in idle[1::10]:  # a blank line after an answer begins nothing
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert status(read_answer(connection)) == 200
        connection.sendall(b"\r\n")
    assert guarded.client.get("/healthz").status_code == 200
    for connection in idle:
        assert connection.recv(10) == b""  # it was closed
        connection.close()
    assert 5 < time.monotonic() - begin < 25


def test_pipelined_requests_are_answered_in_order(guarded: Server):
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    two = b"GET /nothing HTTP/1.1\r\n" + HEAD + b"connection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
        connection.sendall(one + one + two)
        said = b""
        while part := connection.recv(65_536):
            said += part
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200", b"200", b"404"]


def test_other_methods_do_nothing(guarded: Server):
    for method in ("PUT", "PATCH", "TRACE", "OPTIONS", "CONNECT", "PROPFIND"):
        for path in ("/v1/events", "/v1/recommendations", "/v1/users/a", "/healthz"):
            with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
                connection.sendall(f"{method} {path} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
                assert status(read_answer(connection)) in (400, 405)
