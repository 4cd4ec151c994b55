"""The three stores; Redis is a real server on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foretaste.serving.stores import UserStore, open_store

from .redis_server import RedisServer


class Place:
    """Where a store lies. Opened stores are closed at the end of the test."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url
        self.opened: list[UserStore] = []

    def open(self, **options) -> UserStore:
        """The store that lies here (that of memory is always a new one)."""
        if self.kind == "redis":  # patient, for machines that are busy with other tests
            options.setdefault("timeout", 20)
        store = open_store(self.url, **options)
        self.opened.append(store)
        return store

    def reopen(self, store: UserStore) -> UserStore:
        """Close a store and open it again; the same one if it lives in memory."""
        if self.kind == "memory":
            return store
        store.close()
        return self.open()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[RedisServer]:
    """One server for all tests that leave it alive."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "no")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path) -> Iterator[RedisServer]:
    """A server for one test, which keeps what it acknowledged even if it is killed."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def shared_place(request, tmp_path) -> Callable[[str], Place]:
    """A place of one kind, empty."""

    def made(kind: str) -> Place:
        if kind == "redis":
            server = request.getfixturevalue("redis_server")
            with server.client() as client:
                client.flushall()
            return Place(kind, server.url)
        return Place(kind, kind if kind == "memory" else f"lmdb:{Path(tmp_path) / 'store'}")

    return made


@pytest.fixture(params=["memory", "lmdb", "redis"])
def place(request, shared_place) -> Iterator[Place]:
    """Each of the three in turn."""
    place = shared_place(request.param)
    yield place
    for store in place.opened:
        store.close()


@pytest.fixture(params=["lmdb", "redis"])
def lasting_place(request, shared_place) -> Iterator[Place]:
    """Those that several processes can open."""
    place = shared_place(request.param)
    yield place
    for store in place.opened:
        store.close()


@pytest.fixture
def store(place) -> UserStore:
    """An empty store of each kind."""
    return place.open()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds; fail after ten seconds."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, "it never came to hold"
            time.sleep(0.02)

    return wait
