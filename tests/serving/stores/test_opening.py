"""Addresses of stores, open stores and closed ones."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from foretaste.errors import InputError, MissingExtraError
from foretaste.serving.stores import StoreError, open_store

from .making import change, events, records


def test_a_closed_store_says_so(store):
    store.append(events("ann", "a"))
    store.close()
    store.close()
    for call in (
        store.ping,
        lambda: store.append(events("ann", "a")),
        lambda: store.read(["ann"], "model", 4, 1),
        lambda: store.extend([change("ann", 0, 1, records(1))]),
        lambda: store.forget("ann"),
        lambda: store.size("ann"),
        lambda: store.sweep(),
        store.known_items,
    ):
        with pytest.raises(StoreError, match=f"^{store.name}: closed$"):
            call()


def test_an_open_store_answers(store):
    store.ping()
    assert store.durable == (store.name != "memory")


@pytest.mark.parametrize(
    "url", ["", "memory:", "memory:x", "lmdb", "lmdb:", "redis", "sqlite:x", "Memory", "/folder/x"]
)
def test_another_address_is_refused_naming_the_three(url):
    with pytest.raises(InputError, match=r"memory, lmdb:FOLDER or redis://HOST:PORT/DATABASE"):
        open_store(url)


def test_a_wrong_address_does_not_tell_its_password():
    for url in ("rediss+x://me:hunter2@host/0", "redis://me:hunter2@/0", "redis://:hunter2@h/a"):
        with pytest.raises(InputError) as raised:
            open_store(url)
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis://host:0",
        "redis://host:99999",
        "redis://host:x",
        "redis://host/name",
        "redis://host/-1",
        "redis://host/0?decode_responses=True",
        "redis://[::1",
    ],
)
def test_an_address_that_is_no_redis_is_refused(url):
    with pytest.raises(InputError, match="redis://"):
        open_store(url)


@pytest.mark.parametrize("option", [{"ttl": 0}, {"ttl": -1.0}, {"log_ttl": float("nan")}])
def test_a_time_to_live_is_above_zero(option):
    with pytest.raises(InputError, match=f"^{next(iter(option))} = "):
        open_store("memory", **option)


def test_an_option_of_another_store_is_refused():
    given: list[tuple[str, dict[str, Any]]] = [
        ("memory", {"sync": True}),
        ("memory", {"timeout": 1.0}),
        ("redis://127.0.0.1:1/0", {"sync": False}),
        ("lmdb:x", {"timeout": 1.0}),
    ]
    for url, option in given:
        with pytest.raises(InputError, match=f"^{next(iter(option))}: not an option"):
            open_store(url, **option)
    with pytest.raises(InputError, match="timeout = 0"):
        open_store("redis://127.0.0.1:1/0", timeout=0)


@pytest.mark.parametrize("url", ["lmdb:x", "redis://127.0.0.1:1/0"])
def test_a_missing_package_is_named_with_its_extra(url, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, url.partition(":")[0], None)
    with pytest.raises(MissingExtraError, match=r'pip install "foretaste\[serve\]"'):
        open_store(url)
