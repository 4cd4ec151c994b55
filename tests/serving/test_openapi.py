"""The service is as its OpenAPI description says, whatever Schemathesis thinks of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .server_process import Server

TOKEN = "for-schemathesis-only"
REJECTED = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429"]
ACCEPTED = ["2xx", "401", "404", "409", "413", "429"]
"""Schemathesis' own lists lack 413, what a body gets that is too large, right or wrong inside."""


@pytest.fixture
def server(run_folder, tmp_path) -> Iterator[Server]:
    runs = [run_folder("sasrec"), run_folder("ease")]
    environment = {"FORETASTE_TOKEN": TOKEN}
    options = ["--store", f"lmdb:{tmp_path / 'store'}"]
    with Server(runs, *options, log=tmp_path / "log", env=environment) as server:
        server.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield server


def test_what_is_promised_of_events_and_of_forgetting_is_true_of_every_store(server: Server):
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    said = schemas["Logged"]["description"]
    assert "`--store memory` they are gone" in said and "appendfsync" in said
    said = schemas["Forgotten"]["description"]
    assert "free pages of LMDB" in said and "append-only file" in said


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Server, tmp_path):
    described = server.client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/events",
        "/v1/recommendations",
        "/v1/users/{user_id}",
        "/v1/items",
        "/v1/runs",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(
        f"[checks.negative_data_rejection]\nexpected-statuses = {REJECTED}\n"
        f"[checks.positive_data_acceptance]\nexpected-statuses = {ACCEPTED}\n"
    )
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)]
    command += ["run", f"{server.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {TOKEN}", "--checks", "all"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "25", "--max-time", "30"]
    command += ["--seed", "1", "--no-color", "--continue-on-failure"]
    found = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=200
    )
    assert found.returncode == 0, found.stdout[-6_000:] + found.stderr[-2_000:]
    assert "8 selected / 8 total" in found.stdout
    assert server.process.poll() is None
    assert "Traceback" not in server.log.read_text()
    assert server.figure("foretaste_requests_total", route="/v1/recommendations", status="200") > 5
    assert server.figure("foretaste_requests_total", route="/v1/events", status="200") > 5
