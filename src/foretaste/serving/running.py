"""Starting and ending the service."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from typing import NamedTuple

from foretaste.errors import InputError, MissingExtraError
from foretaste.serving.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Serving(NamedTuple):
    """What is told when the service is about to answer.

    Attributes:
        url: where.
        runs: their names, the default one first.
        store: where users are kept.
        notes: what the one who starts it should know.
    """

    url: str
    runs: list[str]
    store: str
    notes: list[str]


def serve(settings: Settings, *, tell: Callable[[Serving], None]) -> None:
    """Answer until the process is told to end; then finish what was accepted.

    Raises:
        InputError: when a run, the store, the token or the address cannot be used.
        MissingExtraError: when the packages of ``foretaste[serve]`` are not installed.
    """
    for package in ("fastapi", "uvicorn", "httptools", "prometheus_client", "orjson"):
        _require(package)
    settings.token()  # a token file that cannot be read is told before anything is loaded
    listener = _listen(settings)
    with listener:
        if settings.workers == 1:
            _serve_here(settings, listener, tell)
        else:
            _serve_in_workers(settings, listener, tell)


def _serve_here(
    settings: Settings, listener: socket.socket, tell: Callable[[Serving], None]
) -> None:
    import uvicorn

    from foretaste.serving.app import build_app
    from foretaste.serving.service import Service

    service = Service.open(settings)
    server = uvicorn.Server(_config(settings, build_app(service)))
    tell(_about(settings, listener))
    # The server gives the signal that ended it on to us when it is done.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    _end_when_hung_up()
    server.run(sockets=[listener])


def _serve_in_workers(
    settings: Settings, listener: socket.socket, tell: Callable[[Serving], None]
) -> None:
    from prometheus_client.multiprocess import mark_process_dead
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors.multiprocess import Multiprocess

    from foretaste.experiments.run_folder import RunFolder
    from foretaste.serving.metrics import SHARED
    from foretaste.serving.models import names_of

    class Supervisor(Multiprocess):
        """Closes its own copy of the listening socket first, so that nobody waits at it.

        A worker that was killed leaves no figures of what is, only of what was.
        """

        def handle_hup(self) -> None:
            if hanging_up_ends:
                self.handle_term()

        def terminate_all(self) -> None:
            for one in self.sockets:
                one.close()
            super().terminate_all()

        def keep_subprocess_alive(self) -> None:
            before = list(self.processes)
            super().keep_subprocess_alive()
            for process in before:
                if process not in self.processes and process.pid is not None:
                    mark_process_dead(process.pid)

    hanging_up_ends = _hanging_up_ends_us()
    names_of(settings.runs)
    for path in settings.runs:
        RunFolder.open(path).catalog()  # what is wrong is told once, not by every worker
    with tempfile.TemporaryDirectory(prefix="foretaste-figures-") as figures:
        os.environ |= {**settings.to_environment(), SHARED: figures}
        config = _config(settings, "foretaste.serving.running:worker_app")
        supervisor = Supervisor(config, sockets=[listener])
        tell(_about(settings, listener))
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise InputError("a worker could not start; its reason is above.")


def worker_app():
    """The application of a worker process. A mistake of the user's ends it with one line."""
    from uvicorn.config import STARTUP_FAILURE

    from foretaste.serving.app import app_from_environment

    _end_when_hung_up()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        return app_from_environment()
    except InputError as error:
        sys.stderr.write(f"foretaste: {' '.join(str(error).split())}\n")
        sys.exit(STARTUP_FAILURE)


def _hanging_up_ends_us() -> bool:
    """Whether a closed terminal ends this process; ``nohup`` and the like keep it from that."""
    return hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def _end_when_hung_up() -> None:
    """Drain, as after a SIGTERM, when the terminal is closed."""
    if _hanging_up_ends_us():
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))


def _end_with_parent() -> None:
    """Drain, as after a SIGTERM, when the parent is gone: killed, it tells its workers nothing."""
    parent = parent_process()
    assert parent is not None
    parent.join()  # the end of a pipe that only the parent holds open
    signal.raise_signal(signal.SIGTERM)


def _config(settings: Settings, app):
    import uvicorn

    from foretaste.serving.http_protocol import BoundedProtocol

    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        http=BoundedProtocol,
        ws="none",
        loop="auto",  # uvloop where it is installed
        workers=settings.workers,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=settings.drain_seconds,
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        # From here on nobody else can have the port; who comes early waits for the models.
        listener.listen(2_048)
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        # Anything else is of the address: no such name, or none of this machine.
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise InputError(
            f"--host {settings.host} --port {settings.port}: {reason}. Choose another {other}."
        ) from error
    listener.set_inheritable(True)
    return listener


def _about(settings: Settings, listener: socket.socket) -> Serving:
    from foretaste.serving.models import names_of

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    notes = []
    if settings.token() is None and settings.host not in LOOPBACK:
        notes.append(
            f"Anybody who reaches {settings.host} can ask, write and forget: no token is set. "
            "Set one with FORETASTE_TOKEN or --token-file."
        )
    if settings.store == "memory":
        notes.append("Users are kept in memory and are gone when the service ends.")
    elif settings.store_url.startswith(("redis:", "rediss:")):
        notes += _unanswered(settings)
    url = f"http://{host}:{listener.getsockname()[1]}"
    return Serving(url, names_of(settings.runs), _without_password(settings.store_url), notes)


def _unanswered(settings: Settings) -> list[str]:
    """What is to be known of a server of users that does not answer. The service starts anyway."""
    from foretaste.serving.stores import StoreError, open_store

    with open_store(settings.store_url, timeout=settings.store_timeout) as store:
        try:
            store.ping()
        except StoreError as error:
            return [
                f"{error}. Until it answers, events are refused and lists come without what users "
                "did."
            ]
    return []


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if "@" in rest else url


def _end(number: int, frame: object) -> None:
    del number, frame
    sys.exit(0)


def _require(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingExtraError(package, "serve")
