"""One request to an endpoint: answers that are too large, or cut short."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from foretaste.errors import InputError
from foretaste.language.asking import Asker
from foretaste.language.endpoint import EndpointConfig

Served = Callable[..., tuple[Asker, list[str]]]


@pytest.fixture
def served() -> Iterator[Served]:
    """An asker, and the paths it asked, of a server that promises some bytes and sends some."""
    servers = []

    def start(promised: int, sent: int, *, drips: bool = False) -> tuple[Asker, list[str]]:
        paths: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                paths.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                for _ in range(sent if drips else 0):
                    time.sleep(0.05)
                    with suppress(OSError):  # nobody listens any more
                        self.wfile.write(b"x")
                if not drips:
                    self.wfile.write(b"x" * sent)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        config = EndpointConfig(url=url, model="small", tries=3, timeout=0.2 if drips else 10)
        return Asker(config, "embeddings", "embeddings", largest=1, pause=0.01), paths

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_answer_of_any_size_within_the_limit_comes_whole(served: Served):
    asker, paths = served(1 << 20, 1 << 20)
    assert len(asker.post({})) == 1 << 20
    assert paths == ["/v1/embeddings"]


def test_an_answer_that_is_too_large_is_told_and_not_asked_for_again(served: Served):
    asker, paths = served(3 << 20, (1 << 20) + 1)
    with pytest.raises(InputError, match=r"an answer of more than 1 MB\.$"):
        asker.post({})
    assert len(paths) == 1


def test_an_answer_that_is_cut_short_is_asked_for_again(served: Served):
    asker, paths = served(100, 10)
    with pytest.raises(InputError, match="no embeddings from small .*IncompleteRead.*Check the"):
        asker.post({})
    assert len(paths) == 3


def test_an_answer_that_drips_is_not_waited_for(served: Served):
    asker, paths = served(40, 40, drips=True)  # two seconds, of which no byte comes late
    with pytest.raises(InputError, match=r"no embeddings from small \(timed out\)"):
        asker.post({})
    assert len(paths) == 3
