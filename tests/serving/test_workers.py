"""Several processes over one Redis: one dies, all load a newer run, and users notice nothing."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from foretaste.serving.models import FILES, load_run
from foretaste.serving.stores import NAMELESS, UserStore, open_store

from .conftest import BEGIN, HOUR, ITEMS
from .lists import history_of
from .server_process import Server
from .stores.redis_server import RedisServer

WORKERS, STRANGERS, USERS = 3, 5, 6


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Visitor(threading.Thread):
    """A user who chooses an item and asks for a list, again and again, over fresh connections.

    ``acknowledged`` are the times of the events that were accepted; every third is of an item that
    no catalog holds.
    """

    def __init__(self, url: str, number: int) -> None:
        super().__init__()
        self.url, self.number, self.user = url, number, f"visitor {number}"
        self.acknowledged: list[int] = []
        self.statuses: set[int] = set()
        self.lost = 0  # connections that ended without an answer
        self.stopped = threading.Event()
        self.start()

    def run(self) -> None:
        for place in range(10_000):
            if self.stopped.is_set():
                return
            stranger = place % 3 == 2
            item = f"stranger {self.number}-{place}" if stranger else f"i{(7 * place) % ITEMS:02}"
            at = BEGIN + HOUR * place
            event = {"user_id": self.user, "item_id": item, "timestamp": at}
            try:
                accepted = httpx.post(f"{self.url}/v1/events", json=event, timeout=20)
                if accepted.status_code == 200:
                    self.acknowledged.append(at)
                body = {"user_id": self.user}
                answer = httpx.post(f"{self.url}/v1/recommendations", json=body, timeout=20)
                self.statuses |= {accepted.status_code, answer.status_code}
            except httpx.TransportError:
                self.lost += 1

    def stop(self) -> None:
        self.stopped.set()
        self.join(60)


def workers(server: Server) -> list[int]:
    """Processes that answer: children that listen, not the tracker of resources."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    pids = [int(pid) for pid in children.split()]
    lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in pids}
    return [pid for pid, line in lines.items() if line.exists() and b"spawn" in line.read_bytes()]


def fingerprints(server: Server) -> set[str]:
    """What is loaded, asked often enough to meet every process."""
    told = [httpx.get(f"{server.url}/v1/runs", timeout=20).json() for _ in range(8 * WORKERS)]
    return {one["runs"][0]["fingerprint"] for one in told}


def check_answers(server: Server, store: UserStore, run: Path, users: list[str]) -> None:
    """Lists, from states too, are those of the model for the log that Redis holds."""
    model = load_run("x", run).recommender
    for user in users:
        [(log, _)] = store.read([user], "", 1, 10_000)
        named = log.items != NAMELESS
        wanted = history_of(model, store.item_ids(log.items[named]), log.times[named].tolist())
        expected = [line.score for line in model.recommend(wanted, 5)[0]]
        for _ in range(2 * WORKERS):
            answer = httpx.post(
                f"{server.url}/v1/recommendations", json={"user_id": user, "k": 5}, timeout=20
            ).json()
            found = [line["score"] for line in answer["items"]]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert answer["source"] == "state"


@pytest.mark.slow
def test_processes_share_redis_die_and_load_a_newer_run(write_run, tmp_path):
    served: Path = write_run(tmp_path / "served", "sasrec")
    newer: Path = write_run(tmp_path / "newer", "sasrec", seed=4)
    old, new = (load_run("x", path).fingerprint for path in (served, newer))
    redis = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    redis.start()
    options = ["--store", redis.url, "--workers", str(WORKERS), "--set", "serve.watch_seconds=0.1"]
    options += ["--set", f"serve.unknown_items={STRANGERS}"]
    store = open_store(redis.url, timeout=20)
    try:
        with Server([served], *options, log=tmp_path / "log") as server:
            until(lambda: len(workers(server)) == WORKERS)
            until(lambda: fingerprints(server) == {old})
            visitors = [Visitor(server.url, number) for number in range(USERS)]
            try:
                until(lambda: all(len(one.acknowledged) > 8 for one in visitors))
                os.kill(workers(server)[0], signal.SIGKILL)
                before = {one: len(one.acknowledged) for one in visitors}
                until(lambda: all(len(one.acknowledged) > before[one] + 8 for one in visitors))
                for name in FILES:
                    shutil.copy(newer / name, served / f"{name}.partial")
                    (served / f"{name}.partial").replace(served / name)
                until(lambda: fingerprints(server) == {new})
            finally:
                for one in visitors:
                    one.stop()
            until(lambda: len(workers(server)) == WORKERS)
            assert set.union(*(one.statuses for one in visitors)) == {200}
            # Only what the killed process held at that moment can have been lost.
            assert sum(one.lost for one in visitors) <= 2 * USERS
            users = [one.user for one in visitors]
            for one in visitors:
                [(log, _)] = store.read([one.user], "", 1, 10_000)
                times = log.times.tolist()
                assert set(one.acknowledged) <= set(times), "an acknowledged event is gone"
                assert len(set(times)) == len(times)
            check_answers(server, store, newer, users)
            # The dictionary holds as many strangers as were allowed.
            strange = [name for name in store.known_items() if name.startswith("stranger")]
            assert len(strange) == STRANGERS
            logs = [store.read([user], "", 1, 10_000)[0][0].items for user in users]
            assert (np.concatenate(logs) == NAMELESS).any()
            # Every process dropped what the old model had kept.
            until(lambda: all(store.read([u], old, 9, 1)[0][1] is None for u in users))
            assert all(store.read([u], new, 9, 1)[0][1] is not None for u in users)
            assert server.stop() == 0
    finally:
        store.close()
        redis.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_figures_of_this_moment_are_those_of_the_processes_that_live(run_folder, tmp_path):
    redis = RedisServer(tmp_path)
    redis.start()
    options = ["--store", redis.url, "--workers", "2"]
    try:
        with Server([run_folder("ease")], *options, log=tmp_path / "log") as server:
            until(lambda: len(workers(server)) == 2)
            # One process tells of both; the other has never been asked for figures.
            assert server.figure("foretaste_store_up") == 1
            assert server.figure("foretaste_store_takes_events") == 1
            redis.kill()

            def ask() -> None:
                httpx.post(f"{server.url}/v1/recommendations", json={"user_id": "a"}, timeout=20)

            def is_lost() -> bool:
                ask()
                return server.figure("foretaste_store_up") == 0

            until(is_lost)
            for pid in workers(server):
                os.kill(pid, signal.SIGKILL)  # it leaves what it said last
            redis.start()
            server.client.close()
            server.client = httpx.Client(base_url=server.url, timeout=30)
            until(lambda: len(workers(server)) == 2)
            until(lambda: server.figure("foretaste_store_up") == 1)
            assert server.stop() == 0
    finally:
        redis.kill()
