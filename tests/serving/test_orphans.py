"""The parent of the workers is killed: they finish what they accepted, and free the port."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from .server_process import Server, read_answer, status

WORKERS = 2


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether a worker is there, and more than an entry that nobody has collected."""
    try:
        return b"spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def workers(server: Server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [pid for pid in map(int, children.split()) if lives(pid)]


@contextmanager
def none_left(pids: list[int]) -> Iterator[None]:
    """Whatever fails, nothing is left behind by this test."""
    try:
        yield
    finally:
        for pid in filter(lives, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
            one.listen()
        except OSError:
            return False
    return True


def event(number: int) -> tuple[bytes, bytes]:
    """A request that logs an event, in two parts."""
    body = b'{"user_id": "ann", "item_id": "i%02d"}' % number
    head = b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body[:9], body[9:]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(run_folder, tmp_path):
    runs, log = [run_folder("sasrec")], tmp_path / "log"
    options = ["--store", f"lmdb:{tmp_path / 'store'}", "--workers", str(WORKERS)]
    with Server(runs, *options, log=log) as server, ExitStack() as open_ones:
        until(lambda: len(workers(server)) == WORKERS)
        pids = workers(server)
        open_ones.enter_context(none_left(pids))
        server.log_events(*(("ann", f"i{number:02}") for number in range(4)))
        begun = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            for _ in range(8)
        ]
        for number, one in enumerate(begun, start=4):
            one.sendall(event(number)[0])
        time.sleep(1.0)  # by then the workers have read them
        server.kill()
        until(lambda: is_free(server.port))
        assert any(map(lives, pids)), "the workers did not wait for what was accepted"
        for number, one in enumerate(begun, start=4):
            one.sendall(event(number)[1])
        assert [status(read_answer(one)) for one in begun] == [200] * 8
        until(lambda: not any(map(lives, pids)))

        again = ["--port", str(server.port)]
        with Server(runs, *options, *again, log=log) as newer:
            assert newer.port == server.port
            answer = newer.recommend(user_id="ann", k=30)
            assert answer["logged"] == 12
            assert not {f"i{number:02}" for number in range(12)} & {
                line["item_id"] for line in answer["items"]
            }
            assert newer.stop() == 0
    assert "Traceback" not in log.read_text()
