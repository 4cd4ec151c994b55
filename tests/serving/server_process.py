"""``foretaste serve`` in a process of its own, as a user would start it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx


class Server:
    """A real server on loopback. It is killed at the end, if it has not ended before."""

    def __init__(
        self, runs: Sequence[Path], *options: str, log: Path, env: dict[str, str] | None = None
    ) -> None:
        """Start it and wait until it answers; ``log`` gets what it writes to stderr."""
        self.log = log
        command = [sys.executable, "-m", "foretaste.cli.main", "serve", *map(str, runs)]
        command += ["--port", "0", "--json", *options]
        clean = {name: value for name, value in os.environ.items() if name != "FORETASTE_TOKEN"}
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env=clean | (env or {})
            )
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line, f"the server did not start:\n{log.read_text()}"
            self.about = json.loads(line)
            self.url: str = self.about["url"]
            self.port = int(self.url.rpartition(":")[2])
            self.client = httpx.Client(base_url=self.url, timeout=30)
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client.get("/healthz")
                return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL: no time for anything."""
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """SIGTERM, and the exit code when it has finished."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        if hasattr(self, "client"):
            self.client.close()
        return code

    def recommend(self, **asked) -> dict:
        """The answer to a question, which must be a list."""
        response = self.client.post("/v1/recommendations", json=asked)
        assert response.status_code == 200, response.text
        return response.json()

    def log_events(self, *events: tuple[str, str] | tuple[str, str, float]) -> dict:
        """Log (user, item) or (user, item, time); they must be accepted."""
        names = ("user_id", "item_id", "timestamp")
        body = [dict(zip(names, event, strict=False)) for event in events]
        response = self.client.post("/v1/events", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def figure(self, name: str, **labels: str) -> float:
        """A figure of ``/metrics``; 0 where it has not been counted yet."""
        wanted = ",".join(f'{label}="{value}"' for label, value in labels.items())
        for line in self.client.get("/metrics").text.splitlines():
            key, _, value = line.rpartition(" ")
            if key == (f"{name}{{{wanted}}}" if labels else name):
                return float(value)
        return 0.0

    def talk(self, sent: bytes, *, seconds: float = 20) -> bytes:
        """What the server says to raw bytes, until it closes the connection or says no more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.settimeout(seconds)
            with suppress(OSError):  # it may have closed already; what it said before is read below
                connection.sendall(sent)
            return read_answer(connection)


def status(said: bytes) -> int:
    """The status code of an answer."""
    return int(said.split(b" ", 2)[1])


def read_answer(connection: socket.socket) -> bytes:
    """One answer with its body."""
    said = b""
    try:
        while b"\r\n\r\n" not in said:
            part = connection.recv(65_536)
            if not part:
                return said
            said += part
        head, _, body = said.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        while len(body) < length:
            part = connection.recv(65_536)
            if not part:
                break
            body += part
        return head + b"\r\n\r\n" + body
    except (OSError, StopIteration):
        return said
