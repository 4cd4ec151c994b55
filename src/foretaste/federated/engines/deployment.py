"""A Flower deployment: a SuperLink and SuperNodes, each a process of its own.

``run_rounds`` starts all of them on this machine, on loopback, for a rehearsal; ``write_app``
writes the app that ``flwr run`` takes, for nodes on machines of their own (docs/federated.md).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import tomli_w

from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.experiments.run_folder import RunFolder
from foretaste.federated.core.checkpoint import Progressed
from foretaste.federated.core.server import Server
from foretaste.federated.core.travelling import EXCHANGES
from foretaste.federated.engines.flower import require_flower
from foretaste.federated.engines.node_log import Watching
from foretaste.federated.engines.simulation import ended, flower_settings
from foretaste.federated.gathering import node_count
from foretaste.federated.plan import Plan
from foretaste.federated.running import NODES
from foretaste.progress import Progress
from foretaste.storage import write_whole

LOOPBACK = "127.0.0.1"
PORT = 9092
"""Where the SuperLink of a prepared run listens; ``flwr run`` asks at the same machine."""
MOST_NODES = 32
"""Processes that a rehearsal on one machine may start."""
POLL = 0.5
START, GRACE = 60.0, 10.0
"""Seconds that a process may take to start and to end."""


def run_rounds(
    run: RunFolder, plan: Plan, split: Split, progress: Progress
) -> tuple[Progressed, Server]:
    """All rounds that are left, over processes on loopback.

    Raises:
        MissingExtraError: when Flower is not installed.
        InputError: too many nodes for one machine, or the federation stopped early; what the
            processes said lies in the run folder's ``flower``.
    """
    require_flower()
    nodes = node_count(split, plan.config.nodes)
    if nodes > MOST_NODES:
        raise InputError(
            f"federated.nodes = {plan.config.nodes} makes {nodes} nodes, each a process here; at "
            f"most {MOST_NODES}. Set federated.nodes lower, or choose --engine simulation."
        )
    app = write_app(run.path)
    port, *own = _free_ports(nodes + 1)
    write_connection(run.path, port)
    place = run.path.resolve()
    with flower_settings(run.path), ExitStack() as processes:
        logs = run.path / "flower"
        address = f"{LOOPBACK}:{port}"
        link = processes.enter_context(
            _process("superlink", logs, _superlink(port)),
        )
        _wait_for(port, link, logs / "superlink.log")
        started = [link]
        for number in range(nodes):
            config = f'plan="{place}" partition-id={number}'
            command = [
                *("flower-supernode", "--insecure", "--superlink", address),
                *("--host", LOOPBACK, "--port", str(own[number]), "--node-config", config),
            ]
            started.append(processes.enter_context(_process(f"supernode-{number}", logs, command)))
        _submit(app, logs)
        _watch(run, plan, started, Watching(progress, run.path / NODES))
    return ended(run, plan, split)


def write_app(folder: Path) -> Path:
    """Write the Flower app of a run folder, for ``flwr run``; returns its folder."""
    app = folder / "flower" / "app"
    app.mkdir(parents=True, exist_ok=True)
    about = {
        "build-system": {"requires": ["hatchling"], "build-backend": "hatchling.build"},
        "project": {
            "name": "foretaste-federation",
            "version": "1.0.0",
            "description": "A federated recommender of Foretaste.",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "foretaste",
                    "components": {
                        "serverapp": "foretaste_app:server_app",
                        "clientapp": "foretaste_app:client_app",
                    },
                    "config": {"plan": str(folder.resolve())},
                }
            }
        },
    }
    write_whole(app / "pyproject.toml", tomli_w.dumps(about).encode())
    code = (
        "from foretaste.federated.engines.apps import make_client_app, make_server_app\n\n"
        "server_app = make_server_app()\nclient_app = make_client_app()\n"
    )
    write_whole(app / "foretaste_app.py", code.encode())
    return app


def write_connection(folder: Path, port: int = PORT) -> None:
    """Tell ``flwr run`` (with FLWR_HOME = the run's ``flower``) where the SuperLink listens."""
    connection = {"address": f"{LOOPBACK}:{port}", "insecure": True}
    values = {"superlink": {"default": "superlink", "superlink": connection}}
    write_whole(folder / "flower" / "config.toml", tomli_w.dumps(values).encode())


def command_of(folder: Path) -> str:
    """What runs the rounds of a prepared run, where its SuperLink is."""
    home = folder / "flower"
    return f"FLWR_HOME={home} flwr run {home / 'app'} --stream"


def _superlink(port: int) -> list[str]:
    return [
        *("flower-superlink", "--insecure", "--host", LOOPBACK, "--port", str(port)),
        "--disable-runtime-dependency-installation",
    ]


def _submit(app: Path, logs: Path) -> None:
    """``flwr run``: the app goes to the SuperLink, which starts the server's half."""
    done = subprocess.run(
        [*_command("flwr"), "run", str(app.resolve())],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    (logs / "run.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise InputError(f"flwr run {app}: the app was not taken ({said}). See {logs / 'run.log'}.")


def _watch(
    run: RunFolder, plan: Plan, started: Sequence[subprocess.Popen[bytes]], progress: Progress
) -> None:
    """Until the last round is done, the server stopped, or nothing has happened for too long."""
    config = plan.config
    exchanges = len(EXCHANGES) if config.secure.on else 1
    waits = (1 + exchanges) * (config.retries + 1) + 1  # for nodes, their replies, and figures
    patience = config.wait * waits + START
    begin, seen = time.monotonic(), -1
    with progress.task("federating", config.rounds) as task:
        while True:
            events = _events(run)
            rounds = sum(one["event"] == "round" for one in events)
            if rounds > seen:
                task.advance(rounds - max(seen, 0))
                begin, seen = time.monotonic(), rounds
            last = max((one["round"] for one in events if one["event"] == "round"), default=0)
            resumed = max((i for i, one in enumerate(events) if one["event"] in _BEGINS), default=0)
            stopped = any(one["event"] == "stopped" for one in events[resumed:])
            if last >= config.rounds or stopped:
                return
            if time.monotonic() - begin > patience or started[0].poll() is not None:
                return
            time.sleep(POLL)


_BEGINS = ("started", "resumed")


def _events(run: RunFolder) -> list[dict]:
    text = (run.path / "log.jsonl").read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # a line may be half written
    return [json.loads(line) for line in whole.splitlines()]


@contextmanager
def _process(name: str, logs: Path, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, ended with all that it started."""
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            [*_command(command[0]), *command[1:]],
            env=_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
            child.wait(timeout=GRACE)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    child.wait(timeout=GRACE)


def _command(name: str) -> list[str]:
    """A command of Flower in this environment, whatever the search path says."""
    beside = Path(sys.executable).parent / name
    if not beside.exists():
        raise InputError(
            f'{name} is not at {beside}. Install with: pip install "foretaste[federated]"'
        )
    return [str(beside)]


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "NO_COLOR": "1"}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait_for(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and child.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(POLL)
    raise InputError(f"flower-superlink did not start. What it said is in {log}.")
