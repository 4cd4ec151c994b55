"""Under load: a newer run takes over, too much is shed, and the end is graceful."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from foretaste.serving.engine import Answers
from foretaste.serving.models import FILES, load_run
from foretaste.serving.questions import Question
from foretaste.serving.service import Service
from foretaste.serving.settings import Settings
from foretaste.serving.stores import open_store
from foretaste.serving.stores.memory import MemoryStore

from .in_process import ask
from .server_process import Server, read_answer, status


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Askers:
    """Threads that ask without a pause, and count what they were told."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self.told: Counter[object] = Counter()
        self._url, self._stopped = url, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        user = f"asker {number}"
        event = {"user_id": user, "item_id": f"i{number:02}"}
        asked = [("/v1/events", event), ("/v1/recommendations", {"user_id": user, "k": 3})]
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stopped.is_set():
                for path, body in asked:
                    try:
                        self.told[client.post(path, json=body).status_code] += 1
                    except httpx.TransportError as error:
                        self.told[type(error).__name__] += 1

    def stop(self) -> Counter[object]:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)
        return self.told


def fingerprint(server: Server) -> str:
    return server.client.get("/v1/runs").json()["runs"][0]["fingerprint"]


@pytest.mark.slow
def test_a_newer_run_takes_over_without_a_failed_request(write_run, tmp_path):
    served: Path = write_run(tmp_path / "served", "sasrec")
    newer: Path = write_run(tmp_path / "newer", "sasrec", seed=4)
    old = load_run("x", served)
    new = load_run("x", newer)
    assert old.fingerprint != new.fingerprint
    options = ["--store", "memory", "--set", "serve.watch_seconds=0.1"]
    with Server([served], *options, log=tmp_path / "log") as server:
        server.log_events(("ann", "i01"), ("ann", "i02"))
        until(lambda: server.recommend(user_id="ann")["source"] == "state")
        askers = Askers(server.url)
        try:
            # Written by halves, slowly: what is there meanwhile is not a model.
            whole = (newer / "weights.safetensors").read_bytes()
            (served / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
            time.sleep(0.5)
            assert fingerprint(server) == old.fingerprint
            for name in FILES:
                shutil.copy(newer / name, served / f"{name}.partial")
                (served / f"{name}.partial").replace(served / name)
            until(lambda: fingerprint(server) == new.fingerprint)
            # The folder is gone for a moment, and another run is put in its place.
            shutil.move(served, tmp_path / "away")
            time.sleep(0.3)
            assert fingerprint(server) == new.fingerprint
            shutil.move(write_run(tmp_path / "third", "sasrec", seed=5), served)
            until(lambda: fingerprint(server) not in (old.fingerprint, new.fingerprint))
        finally:
            told = askers.stop()
        assert set(told) == {200} and told[200] > 40
        answer = server.recommend(user_id="ann")
        assert answer["source"] in ("history", "state")  # never the old model's state
        third = load_run("x", served)
        expected = third.recommender.recommend([["i01", "i02"]], 10)[0]
        found = [line["score"] for line in answer["items"]]
        assert found == pytest.approx([line.score for line in expected], rel=1e-3, abs=1e-4)
        assert server.figure("foretaste_reloads_total", run="served") == 2
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_too_much_is_shed(run_folder, tmp_path):
    options = ["--set", "serve.waiting=4", "--set", "serve.batch=1", "--store", "memory"]
    with Server([run_folder("sasrec")], *options, log=tmp_path / "log") as server:
        history = [f"i{place % 30:02}" for place in range(10_000)]
        heavy = {"history": history, "explain": True, "exclude_seen": False}
        with (
            httpx.Client(base_url=server.url, timeout=60) as client,
            ThreadPoolExecutor(32) as pool,
        ):

            def ask(asked: dict) -> httpx.Response:
                return client.post("/v1/recommendations", json=asked)

            told = list(pool.map(ask, [heavy] * 120))
            codes = Counter(response.status_code for response in told)
            assert set(codes) == {200, 429}, codes
            refused = next(one for one in told if one.status_code == 429)
            assert refused.headers["retry-after"] == "1"
            assert server.recommend(history=["i01"])["items"]
            assert server.figure("foretaste_shed_requests_total", why="overload") == codes[429]
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_what_was_accepted_is_finished_and_what_comes_later_is_not_taken(run_folder, tmp_path):
    body = b'{"history": ["i01", "i02"]}'
    head = b"POST /v1/recommendations HTTP/1.1\r\nhost: localhost\r\n"
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)

    def is_closed() -> bool:
        try:
            socket.create_connection(("127.0.0.1", server.port)).close()
        except ConnectionRefusedError:
            return True
        return False

    with (
        Server([run_folder("sasrec")], "--store", "memory", log=tmp_path / "log") as server,
        ExitStack() as open_ones,
    ):
        begun = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            for _ in range(8)
        ]
        for one in begun:
            one.sendall(head + body[:9])
        for _ in range(3):  # by then the server has read the others
            assert server.client.get("/healthz").status_code == 200
        server.process.terminate()
        until(is_closed)
        time.sleep(0.5)  # longer than a server that waits for nobody
        for one in begun:
            one.sendall(body[9:])
        answers = [read_answer(one) for one in begun]
        assert [status(said) for said in answers] == [200] * 8
        assert all(len(json.loads(said.partition(b"\r\n\r\n")[2])["items"]) for said in answers)
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


def test_what_takes_too_long_is_503(run_folder, monkeypatch):
    settings = Settings.build({"runs": ["x"], "store": "memory", "seconds": 0.05})
    service = Service(settings, [load_run("ease", run_folder("ease"))], open_store("memory"))
    answer, answered = service.engine.answer, threading.Event()

    def late(questions: list[Question]) -> Answers:
        assert answered.wait(30)  # no answer before the client has been told that it is late
        return answer(questions)

    monkeypatch.setattr(service.engine, "answer", late)

    async def talk(client: httpx.AsyncClient) -> tuple[httpx.Response, bytes]:
        response = await client.post("/v1/recommendations", json={"history": ["i01"]})
        answered.set()
        return response, (await client.get("/metrics")).content

    response, figures = ask(service, talk)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "too long" in response.json()["detail"]
    assert b'foretaste_shed_requests_total{why="deadline"} 1.0' in figures


def test_the_end_of_a_sweep_is_not_waited_for_by_others(run_folder):
    sweeping = threading.Event()

    class Slow(MemoryStore):
        def _sweep(self, wanted) -> Iterator[int]:
            sweeping.set()
            time.sleep(1.0)
            yield 0

    settings = Settings.build({"runs": ["x"], "store": "memory"})
    service = Service(settings, [load_run("ease", run_folder("ease"))], Slow())
    pauses: list[float] = []

    async def tick() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.01)
            pauses.append(time.perf_counter() - begin)

    async def talk(client: httpx.AsyncClient) -> asyncio.Task:
        service._sweeper.replaced("old", [])
        assert await asyncio.to_thread(sweeping.wait, 10)
        return asyncio.create_task(tick())

    ask(service, talk)  # and the end
    assert max(pauses) < 0.5
