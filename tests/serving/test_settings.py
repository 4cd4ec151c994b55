"""Settings are checked before anything is loaded, and reach worker processes whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foretaste.errors import InputError
from foretaste.serving.service import Service
from foretaste.serving.settings import Settings, same_token
from foretaste.serving.stores.lmdb_store import LmdbStore


def test_the_default_store_lies_beside_the_first_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = Settings.build({"runs": ("runs/sasrec/", "runs/ease")})
    assert settings.store_url == f"lmdb:{tmp_path / 'runs' / 'sasrec.store'}"
    assert Settings.build({"runs": ("a",), "store": "memory"}).store_url == "memory"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prot": 80}, "serve.prot.*Fields are.*port"),
        ({"port": 70_000}, 'serve.port = "70000"'),
        ({"workers": 0}, "serve.workers"),
        ({"seconds": 0}, "serve.seconds"),
        ({"seconds": float("inf")}, 'serve.seconds = "inf"'),  # no JSON for workers
        ({"watch_seconds": 1e12}, "serve.watch_seconds"),  # no clock waits so long
        ({"batch": "many"}, "serve.batch"),
        ({"store": "memory", "workers": 2}, "users of its own"),
        ({"log_ttl": 0}, "serve.log_ttl"),
        ({"store_timeout": 0}, "serve.store_timeout"),
        ({"store_timeout": 2}, "serve.store_timeout = 2: only of --store redis"),
        (
            {"store": "memory", "store_sync": False},
            "serve.store_sync = false: only of --store lmdb",
        ),
    ],
)
def test_wrong_settings_are_said(values, said):
    with pytest.raises(InputError, match=said):
        Settings.build({"runs": ("a",), **values})
    with pytest.raises(InputError, match="serve.runs"):
        Settings.build({"runs": ()})


def test_the_store_is_opened_as_the_settings_say(run_folder, tmp_path):
    chosen: dict[str, object] = {"runs": (run_folder("ease"),), "ttl": 7, "log_ttl": 11}
    cases: list[tuple[str, dict[str, object]]] = [
        (f"lmdb:{tmp_path}", {"store_sync": False}),
        ("redis://127.0.0.1:1", {"store_timeout": 3}),
    ]
    for address, more in cases:
        service = Service.open(Settings.build({**chosen, "store": address, **more}))
        store = service.store.store
        assert (store.ttl, store.log_ttl) == (7, 11)
        if "store_sync" in more:
            assert isinstance(store, LmdbStore)
            assert not store._environment._environment.flags()["sync"]
        else:
            assert getattr(store, "_timeout", None) == 3
        service.store.close()


def test_they_cross_to_workers(monkeypatch):
    settings = Settings.build(
        {"runs": ("a b", "ünï"), "ttl": None, "token_file": "t", "waiting": 7, "watch": False}
    )
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == settings
    assert settings.runs == (Path("a b"), Path("ünï"))


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("FORETASTE_TOKEN", raising=False)
    assert Settings.build({"runs": ("a",)}).token() is None
    monkeypatch.setenv("FORETASTE_TOKEN", "from outside")
    assert Settings.build({"runs": ("a",)}).token() == "from outside"
    monkeypatch.setenv("FORETASTE_TOKEN", " abc\r\n")  # as $(cat file) and secrets may leave it
    assert Settings.build({"runs": ("a",)}).token() == "abc"
    monkeypatch.setenv("FORETASTE_TOKEN", "\n")
    with pytest.raises(InputError, match="FORETASTE_TOKEN: is blank"):  # not: everybody may ask
        Settings.build({"runs": ("a",)}).token()
    monkeypatch.setenv("FORETASTE_TOKEN", os.fsdecode(b"\xff\xfe"))
    with pytest.raises(InputError, match="FORETASTE_TOKEN: is not UTF-8"):  # not: 500 for everybody
        Settings.build({"runs": ("a",)}).token()
    file = tmp_path / "token"
    settings = Settings.build({"runs": ("a",), "token_file": file})
    with pytest.raises(InputError, match="cannot read the token"):
        settings.token()
    file.write_text(" \n")
    with pytest.raises(InputError, match="is empty"):
        settings.token()
    file.write_text("sëcret\n", encoding="utf-8")
    assert settings.token() == "sëcret"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        settings.token()


def test_tokens_are_compared_as_bytes():
    assert same_token("sëcret".encode(), "sëcret")
    assert not same_token(b"secret", "sëcret")
    assert not same_token(b"", "x")
