"""An acknowledged event is there after ``kill -9``; store down, answers go on; it comes back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from foretaste.serving.stores import UserStore, open_store

from .server_process import Server
from .stores.redis_server import RedisServer


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisServer]:
    """A server that keeps what it acknowledged even if it is killed."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.kill()


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Writers:
    """Threads that log numbered events, and know which were acknowledged."""

    def __init__(self, url: str, threads: int = 6) -> None:
        self.acknowledged: dict[str, list[str]] = {f"writer {n}": [] for n in range(threads)}
        self._url, self._stopped = url, threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(user,)) for user in self.acknowledged
        ]
        for thread in self._threads:
            thread.start()

    @property
    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def _write(self, user: str) -> None:
        with httpx.Client(base_url=self._url, timeout=20) as client:
            for number in range(1_000_000):
                if self._stopped.is_set():
                    return
                items = [f"{number}-{part}" for part in range(1 + number % 3)]
                body = [{"user_id": user, "item_id": item} for item in items]
                try:
                    response = client.post("/v1/events", json=body)
                except httpx.TransportError:
                    return  # killed; this one was not acknowledged
                if response.status_code == 200:
                    self.acknowledged[user] += items
                    # States are written while the log is, so that a kill meets both.
                    with suppress(httpx.TransportError):
                        client.post("/v1/recommendations", json={"user_id": user})

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)


def logged(store: UserStore, user: str) -> list[str]:
    """All item ids in the log of a user."""
    return store.item_ids(store.read([user], "", 1, 10_000)[0][0].items)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_every_acknowledged_event_survives_kill_9(kind, run_folder, tmp_path, request):
    url = f"lmdb:{tmp_path / 'store'}"
    if kind == "redis":
        url = request.getfixturevalue("redis").url
    runs = [run_folder("sasrec")]
    with Server(runs, "--store", url, log=tmp_path / "log") as server:
        writers = Writers(server.url)
        try:
            until(lambda: writers.count > 300)
        finally:
            server.kill()  # in the middle of it
            writers.stop()
    with Server(runs, "--store", url, log=tmp_path / "log") as server:
        with open_store(url) as store:
            for user, items in writers.acknowledged.items():
                assert set(items) <= set(logged(store, user)), "an acknowledged event is gone"
        server.log_events(("writer 0", "i01"), ("writer 0", "i02"))
        until(lambda: server.recommend(user_id="writer 0")["source"] == "state")


@pytest.mark.slow
def test_redis_stops_and_comes_back(redis, run_folder, tmp_path):
    runs = [run_folder("sasrec")]
    with Server(runs, "--store", redis.url, log=tmp_path / "log") as server:
        server.log_events(("ann", "i01"), ("ann", "i02"))
        until(lambda: server.recommend(user_id="ann")["source"] == "state")
        redis.kill()

        answer = server.recommend(user_id="ann", history=["i05"])
        assert (answer["source"], answer["degraded"]) == ("history", True)
        answer = server.recommend(user_id="ann")
        assert (answer["source"], answer["degraded"]) == ("fallback", True)
        assert not server.recommend(history=["i05"])["degraded"]
        begin = time.perf_counter()
        for _ in range(50):
            assert server.recommend(user_id="bob")["degraded"]
        assert time.perf_counter() - begin < 10  # a timeout of a second each would be 50
        events = {"user_id": "ann", "item_id": "lost"}
        refused = server.client.post("/v1/events", json=events)
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert server.client.delete("/v1/users/ann").status_code == 503
        ready = server.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
        assert ready.json()["reasons"]
        assert server.client.get("/healthz").status_code == 200
        assert server.figure("foretaste_store_up") == 0
        assert server.figure("foretaste_store_errors_total") >= 1
        assert server.figure("foretaste_degraded_lists_total") >= 52

        redis.start()
        until(lambda: server.client.get("/readyz").status_code == 200)
        until(lambda: not server.recommend(user_id="ann")["degraded"])
        answer = server.recommend(user_id="ann")
        assert answer["unknown"] == []  # what was not acknowledged was not logged
        assert answer["source"] == "state"
        server.log_events(("ann", "i03"))
        assert server.figure("foretaste_store_up") == 1


@pytest.mark.slow
def test_a_full_redis_refuses_events_and_answers_everybody(redis, run_folder, tmp_path):
    runs = [run_folder("sasrec")]
    with Server(runs, "--store", redis.url, log=tmp_path / "log") as server:
        server.log_events(("ann", "i01"), ("ann", "i02"))
        until(lambda: server.recommend(user_id="ann")["source"] == "state")
        assert server.figure("foretaste_store_takes_events") == 1
        with redis.client() as client:
            client.config_set("maxmemory", 1)
        for _ in range(30):
            refused = server.client.post("/v1/events", json={"user_id": "bob", "item_id": "i01"})
            assert refused.status_code == 503 and "maxmemory" in refused.json()["detail"]
            answer = server.recommend(user_id="ann")
            assert (answer["source"], answer["degraded"]) == ("state", False)
        assert server.client.get("/readyz").status_code == 200
        assert server.figure("foretaste_store_up") == 1
        assert server.figure("foretaste_store_takes_events") == 0


@pytest.mark.slow
def test_workers_share_a_store(run_folder, tmp_path):
    """Two processes: what one logs or forgets, the other knows."""
    store = tmp_path / "store"
    options = ["--store", f"lmdb:{store}", "--workers", "2"]
    with Server([run_folder("sasrec")], *options, log=tmp_path / "log") as server:
        until(lambda: server.client.get("/readyz").status_code == 200)

        def fresh(method: str, path: str, **options) -> httpx.Response:
            """Over a connection of its own, so that either process may answer."""
            return httpx.request(method, server.url + path, timeout=30, **options)

        for number in range(20):
            event = {"user_id": "ann", "item_id": f"i{number:02}"}
            assert fresh("POST", "/v1/events", json=event).status_code == 200
            answer = fresh("POST", "/v1/recommendations", json={"user_id": "ann", "k": 30}).json()
            seen = {f"i{place:02}" for place in range(number + 1)}
            assert not seen & {line["item_id"] for line in answer["items"]}
        until(
            lambda: (
                fresh("POST", "/v1/recommendations", json={"user_id": "ann"}).json()["source"]
                == "state"
            )
        )
        assert server.figure("foretaste_events_total") == 20  # of both processes together
        assert fresh("DELETE", "/v1/users/ann").json() == {"forgotten": True}
        for _ in range(10):
            answer = fresh("POST", "/v1/recommendations", json={"user_id": "ann"}).json()
            assert answer["source"] == "fallback"
        assert server.stop() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_default_store_lies_beside_the_run(write_run, tmp_path):
    run: Path = write_run(tmp_path / "runs" / "ease", "ease")
    with Server([run], log=tmp_path / "log") as server:
        assert server.about["store"] == f"lmdb:{tmp_path / 'runs' / 'ease.store'}"
        server.log_events(("ann", "i01"))
        assert server.stop() == 0
    assert (tmp_path / "runs" / "ease.store" / "data.mdb").exists()


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_redis_that_is_not_there_at_the_start_is_told_and_found_later(
    redis: RedisServer, run_folder, tmp_path: Path, workers: str
):
    redis.kill()
    options = ("--store", redis.url, "--workers", workers)
    with Server([run_folder("ease")], *options, log=tmp_path / "log") as server:
        [note] = server.about["notes"]
        assert redis.url in note and "events are refused" in note
        until(lambda: "events are refused" in server.log.read_text())  # before anybody asks
        event = {"user_id": "ann", "item_id": "i01"}
        assert server.client.post("/v1/events", json=event).status_code == 503
        redis.start()
        until(lambda: server.client.post("/v1/events", json=event).status_code == 200)
    with Server([run_folder("ease")], *options, log=tmp_path / "again") as server:
        assert server.about["notes"] == []


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_closed_terminal_ends_the_service_as_sigterm_does(workers, run_folder, tmp_path):
    options = ["--store", f"lmdb:{tmp_path / 'store'}", "--workers", workers]
    with Server([run_folder("ease")], *options, log=tmp_path / "log") as server:
        server.log_events(("ann", "i01"))
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(timeout=60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
