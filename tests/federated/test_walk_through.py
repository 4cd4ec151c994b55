"""The three terminals of docs/federated.md, on loopback: the very commands of the page.

The page's recipe is run with RQFedRec, which keeps codes and personal arrays in ``state``, between
messages that Flower has answered by a process each.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("flwr", reason="the extra 'federated' is not installed")

from foretaste.data.embedded_sets import read_embedded
from foretaste.errors import InputError
from foretaste.experiments.run_folder import RunFolder
from foretaste.federated.engines.deployment import (
    LOOPBACK,
    PORT,
    _end,
    _environment,
    _free_ports,
    _wait_for,
)
from foretaste.federated.engines.node_log import FILE
from foretaste.federated.running import go_on

PAGE = (Path(__file__).parents[2] / "docs" / "federated.md").read_text(encoding="utf-8")
PLAN = ("recipe.toml", "federation.toml", "catalog.parquet")


def terminals() -> list[str]:
    """What is typed into each terminal."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    return re.split(r"^# terminal \d.*\n", block, flags=re.M)[1:]


def script(text: str, port: int) -> list[str]:
    """A terminal's commands with this machine for the server, and a free port."""
    for of_page, here in (("SERVER", LOOPBACK), ("0.0.0.0", LOOPBACK), (str(PORT), str(port))):
        text = text.replace(of_page, here)
    ours = f'foretaste() {{ "{sys.executable}" -m foretaste.cli.main "$@"; }}'
    return ["bash", "-c", f"set -euo pipefail\n{ours}\n{text}"]


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "terminal.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            _end(child)


def typed(text: str, folder: Path, port: int = PORT) -> str:
    """Run commands to their end; what they said."""
    done = subprocess.run(
        script(text, port),
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def device(folder: Path, plan: Path, users: pl.Series) -> Path:
    """A device with a copy of the plan and the log of some users."""
    (folder / "plan").mkdir(parents=True)
    for name in PLAN:
        shutil.copy(plan / name, folder / "plan")
    log = read_embedded("movietweetings").frame
    own = log.filter(pl.col("user_id").is_in(users.implode()))
    own.select("user_id", "item_id", "timestamp").write_csv(folder / "my.csv")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_walk_through_of_the_docs(tmp_path):
    server = tmp_path / "server"
    server.mkdir()
    (recipe,) = re.findall(r'^```toml title="federation.toml"\n(.*?)^```', PAGE, re.M | re.S)
    (server / "federation.toml").write_text(recipe)
    (prepare,) = re.findall(r"^foretaste federate .* --prepare .*$", PAGE, re.M)
    typed(f"{prepare} --method rqfedrec --model als --set model.factors=8", server)
    run = server / "runs" / "deployed"

    # Before its rounds are done, a prepared run is no rehearsal on the recipe's data.
    with pytest.raises(InputError, match=r"0 of 2 rounds.*flwr run .*deployed/flower/app"):
        go_on(run)

    port, *own = _free_ports(3)
    config = run / "flower" / "config.toml"
    config.write_text(config.read_text().replace(str(PORT), str(port)))
    users = pl.Series(sorted(read_embedded("movietweetings").frame["user_id"].unique()))
    devices = [
        device(tmp_path / name, run, users.gather_every(20, start))
        for start, name in enumerate(("anna", "ben"))
    ]
    superlink, supernode, flwr_run = terminals()
    with running(script(superlink, port), server) as link:
        _wait_for(port, link, server / "terminal.log")
        nodes = [script(f"{supernode.rstrip()} --port {one}", port) for one in own]
        with running(nodes[0], devices[0]), running(nodes[1], devices[1]):
            typed(flwr_run, server, port)

    done = RunFolder.open(run)
    assert done.finished and done.measured
    rounds = done.record["federation"]["rounds"]
    assert [one["round"] for one in rounds] == [1, 2]
    for one in rounds:
        assert one["nodes"] == 2
        assert one["users"] > 0
        assert one["problems"] == {}
    for one in devices:
        kept = {path.name for path in (one / "state").iterdir()}
        assert kept >= {"kept.safetensors", "personal-000001.safetensors", FILE}
        told = json.loads((one / "state" / FILE).read_text().splitlines()[0])
        assert told["users"] > 100 and told["able"] > 10 and told["unknown"] > 100
