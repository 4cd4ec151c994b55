"""``foretaste serve`` says what it was given and cannot use, in one line, and exits with 2."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest

from foretaste.cli.main import main


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path) -> Callable[..., str]:
    """``refused("RUN", "--port", ...)``: what is said on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORETASTE_TOKEN", raising=False)

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["foretaste", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert (stop.value.code, said.out) == (2, "")
        assert said.err.count("\n") == 1
        return said.err

    return call


def test_runs_that_are_none(refused, tmp_path, run_folder, write_run):
    assert "not a run folder" in refused("nothing", "--store", "memory")
    cut_off = write_run(tmp_path / "cut-off", "ease")
    (cut_off / "model.json").unlink()
    said = refused(cut_off, "--store", "memory", "--port", 0)
    assert "foretaste resume" in said
    twice = run_folder("ease")
    assert "given twice" in refused(twice, twice, "--store", "memory", "--port", 0)


def test_settings_that_are_none(refused, run_folder, tmp_path):
    run = run_folder("ease")
    assert "only serve.* can be set" in refused(run, "--set", "train.epochs=3")
    assert "serve.sekonds" in refused(run, "--set", "serve.sekonds=3")
    assert "serve.port" in refused(run, "--port", 99_999)
    assert "users of its own" in refused(run, "--store", "memory", "--workers", 2)
    assert "cannot read the token" in refused(run, "--token-file", "missing")
    said = refused(run, "--store", "mysql://x", "--port", 0)
    assert "memory, lmdb:FOLDER or redis://" in said
    (tmp_path / "file").write_text("")
    assert "lmdb" in refused(run, "--store", "lmdb:file", "--port", 0)


def test_a_port_that_is_taken(refused, run_folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(run_folder("ease"), "--store", "memory", "--port", port)
    assert f"--port {port}" in said and "Choose another" in said
    assert said.endswith("Choose another --port.\n")


@pytest.mark.parametrize("host", ["256.1.1.1", "nohost.invalid", "192.0.2.1", "fe80::1"])
def test_an_address_that_is_none_of_this_machine(refused, run_folder, host):
    said = refused(run_folder("ease"), "--store", "memory", "--host", host)
    assert f"--host {host}" in said and said.endswith("Choose another --host.\n")


def test_a_redis_password_is_not_shown():
    from foretaste.serving.running import _without_password

    assert _without_password("redis://me:secret@host:1/0") == "redis://host:1/0"
    assert _without_password("redis://host:1/0") == "redis://host:1/0"
    assert _without_password("lmdb:/a@b") == "lmdb:/a@b"
