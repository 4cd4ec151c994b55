"""Requests at a constant rate, whatever the service does (an open loop); a process of its own.

    python benchmarks/open_loop.py '{"url": "http://127.0.0.1:8000", "rate": 500, "seconds": 10,
                                     "users": 2000, "items": 12000}'

The time of a request counts from when it was due, not from when it could be sent: a service that
stalls is charged for all that waited. Requests come in pairs: an event of a user, and the list that
follows it. The report is one JSON object.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

CONNECTIONS, AT_FIRST = 128, 16


def drive(url: str, rate: float, seconds: float, users: int, items: int) -> dict[str, Any]:
    """One stretch of load from another process; what it found."""
    options = {"url": url, "rate": rate, "seconds": seconds, "users": users, "items": items}
    command = [sys.executable, __file__, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class Connection(asyncio.Protocol):
    """One request at a time over a connection that is kept."""

    def __init__(self, client: "Client") -> None:
        self.client, self.buffer, self.asked = client, b"", -1

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.client.free(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        place = head.find(b"content-length: ") + 16
        if len(body) >= int(head[place : head.find(b"\r", place)]):
            self.buffer = b""
            self.client.answered(self.asked, int(head[9:12]))
            self.client.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.lost(self)


class Client:
    """Sends requests when they are due and notes when the answers come."""

    def __init__(self, port: int, rate: float, seconds: float, users: Sequence[str], items: int):
        rng = np.random.default_rng(int(rate * 1_000))
        self.port, self.rate = port, rate
        self.count = max(2, int(rate * seconds) // 2 * 2)
        self.due = np.arange(self.count) / rate
        self.latency = np.full(self.count, np.inf)
        self.status = np.zeros(self.count, np.int64)
        self.waiting: deque[int] = deque()
        self.idle: list[Connection] = []
        self.open, self.connections = self.count, 0
        self.opening: set[asyncio.Future] = set()
        asking = rng.choice(len(users), self.count // 2)
        chosen = rng.integers(0, items, self.count // 2)
        self.requests = [
            request
            for user, item in zip(asking.tolist(), chosen.tolist(), strict=True)
            for request in (
                self._request("events", {"user_id": users[user], "item_id": f"i{item:05}"}),
                self._request("recommendations", {"user_id": users[user], "k": 20}),
            )
        ]

    def _request(self, route: str, body: dict[str, Any]) -> bytes:
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/{route} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    async def run(self) -> dict[str, Any]:
        await asyncio.gather(*(self.connect() for _ in range(AT_FIRST)))
        self.begin, sent = time.perf_counter() + 0.05, 0
        while sent < self.count:
            now = time.perf_counter() - self.begin
            while sent < self.count and self.due[sent] <= now:
                self.waiting.append(sent)
                sent += 1
            self.send()
            due = self.begin + self.due[min(sent, self.count - 1)]
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        patience = time.perf_counter() + 10
        while self.open and time.perf_counter() < patience:
            await asyncio.sleep(0.01)
        return self.report()

    def send(self) -> None:
        while self.waiting and self.idle:
            connection = self.idle.pop()
            connection.asked = self.waiting.popleft()
            connection.transport.write(self.requests[connection.asked])
        if self.waiting and self.connections < CONNECTIONS:
            self.opening.add(task := asyncio.ensure_future(self.connect()))
            task.add_done_callback(self.opening.discard)

    async def connect(self) -> None:
        self.connections += 1
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)
        except OSError:
            self.connections -= 1

    def lost(self, connection: Connection) -> None:
        """The server closes connections that are not used for a while."""
        self.connections -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        else:
            self.answered(connection.asked, 0)

    def free(self, connection: Connection) -> None:
        self.idle.append(connection)
        self.send()

    def answered(self, asked: int, status: int) -> None:
        if asked >= 0 and np.isinf(self.latency[asked]):
            now = time.perf_counter()
            self.latency[asked] = now - self.begin - self.due[asked]
            self.status[asked] = status
            self.open -= 1

    def report(self) -> dict[str, Any]:
        answered = self.status == 200
        latency = np.where(answered, self.latency, 1e6) * 1_000
        lists = latency[1::2]
        return {
            "rate": self.rate,
            "requests": self.count,
            "statuses": {str(code): n for code, n in Counter(self.status.tolist()).items()},
            "failed": int((~answered).sum()),
            "p50": float(np.percentile(latency, 50)),
            "p99": float(np.percentile(latency, 99)),
            "p99 of lists": float(np.percentile(lists, 99)),
            "p50 of lists": float(np.percentile(lists, 50)),
            "client_share": time.process_time() / (self.due[-1] + 1e-9),
        }


def main(options: dict[str, Any]) -> None:
    """Send, wait for the answers, print the report."""
    port = int(options["url"].rpartition(":")[2])
    users = [f"u{user}" for user in range(options["users"])]
    client = Client(port, options["rate"], options["seconds"], users, options["items"])
    with suppress(ImportError):
        import uvloop

        print(json.dumps(uvloop.run(client.run())))
        return
    print(json.dumps(asyncio.run(client.run())))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
