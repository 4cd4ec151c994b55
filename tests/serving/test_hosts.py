"""Whom the service answers without a token: nobody who came by a name that is not its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from foretaste.errors import InputError
from foretaste.serving.hosts import is_for_us, name_of, names_of_service
from foretaste.serving.settings import Settings

from .server_process import Server, status


@pytest.fixture(scope="module")
def server(run_folder, tmp_path_factory) -> Iterator[Server]:
    """As by default, and behind two names."""
    log = tmp_path_factory.mktemp("hosts") / "log"
    options = ["--store", "memory", "--allowed-host", "films.example", "--allowed-host", "b.test"]
    with Server([run_folder("ease")], *options, log=log) as server:
        yield server


def ask(server: Server, host: str, line: str = "GET /v1/runs") -> bytes:
    return server.talk(f"{line} HTTP/1.1\r\n{host}connection: close\r\n\r\n".encode("latin-1"))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "not.localhost.example",
        "192.168.0.5",
        "0.0.0.0",
        "[::2]:80",
        "xfilms.example",
        "films.example.evil",
        "localhost@evil.example",
        "",
        "\xff",
        "x" * 5_000,
    ],
)
def test_a_page_of_elsewhere_sees_and_changes_nothing(server: Server, host: str):
    server.log_events(("ann", "i01"))
    for line in (
        "GET /v1/runs",
        "GET /",
        "GET /page/page.js",
        "GET /metrics",
        "GET /openapi.json",
        "GET /nothing",
        "POST /v1/recommendations",
        "DELETE /v1/users/ann",
    ):
        said = ask(server, f"host: {host}\r\n", line)
        assert status(said) == 421, said
        assert b"--allowed-host" in said and b"ease" not in said and len(said) < 1_000
    assert server.recommend(user_id="ann")["source"] == "history"
    assert status(ask(server, f"host: localhost\r\nhost: {host}\r\n")) in (400, 421)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "foretaste:8000",
        "LOCALHOST:{port}",
        "localhost.",
        "app.localhost:1",
        "127.0.0.1:{port}",
        "127.1.2.3",
        "[::1]:{port}",
        "films.example",
        "Films.Example:443",
        "b.test",
    ],
)
def test_names_of_the_machine_and_allowed_ones_are_answered(server: Server, host: str):
    assert status(ask(server, f"host: {host.format(port=server.port)}\r\n")) == 200


def test_who_sends_no_name_is_no_browser_and_health_has_none(server: Server):
    assert status(server.talk(b"GET /v1/runs HTTP/1.0\r\n\r\n")) == 200
    for path in ("/healthz", "/readyz"):
        assert status(ask(server, "host: 10.0.0.7:80\r\n", f"GET {path}")) == 200


def test_a_token_makes_the_name_no_matter(guarded: Server):
    answer = guarded.client.get("/v1/runs", headers={"host": "films.example"})
    assert answer.status_code == 200


def names(token: str | None = None, **values) -> frozenset[str] | None:
    return names_of_service(Settings.build({"runs": ("a",), **values}), token)


def test_where_names_are_looked_at():
    assert names() == {"127.0.0.1"}
    assert names(host="FE80:0::1") == {"fe80::1"}
    assert names(host="box.lan", allowed_host=("B.test:80",)) == {"box.lan", "b.test"}
    for host in ("0.0.0.0", "::", "0:0::0", ""):
        assert names(host=host) is None  # whoever reaches it, as it always was
        assert "b.test" in (names(host=host, allowed_host=("b.test",)) or ())
    assert names(token="t") is None
    assert names(token="t", allowed_host=("b.test",)) == {"b.test", "127.0.0.1"}


def test_names_are_written_in_one_way():
    for written in ("a.test", "A.Test:80", "a.test.", " a.test "):
        assert name_of(written) == "a.test"
    for written in ("::1", "[::1]", "[0:0:0:0:0:0:0:1]:80"):
        assert name_of(written) == "::1"
    assert is_for_us("192.168.0.5:80", {"192.168.0.5"})
    assert not is_for_us("", {"127.0.0.1"})


@pytest.mark.parametrize("host", ["http://films.example", "a b", "", "*", "ü.example", "me@a.test"])
def test_what_is_no_name_is_said(host):
    with pytest.raises(InputError, match=r"serve.allowed_host.*no name of a host"):
        Settings.build({"runs": ("a",), "allowed_host": (host,)})
