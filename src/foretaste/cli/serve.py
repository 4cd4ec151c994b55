"""``foretaste serve``: one or several runs over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli import options


def serve(
    runs: options.Runs,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            help="memory, lmdb:PATH or redis://HOST:PORT/DB; by default LMDB in RUN.store, "
            "beside the first run.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 takes a free one.")] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            help="A name that requests may be for, such as that of a proxy; may be given again. "
            "Without a token, others than this machine's are refused.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="A file with the bearer token; or FORETASTE_TOKEN."),
    ] = None,
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Load a run again when it changes.")
    ] = None,
    settings: options.Settings = None,
    json: options.Json = False,
) -> None:
    """Answer over HTTP. The first run answers requests that name none."""
    from foretaste.errors import InputError
    from foretaste.experiments.recipe import parse_settings
    from foretaste.serving.running import serve as serve_runs
    from foretaste.serving.settings import Settings

    chosen = parse_settings(settings or [])
    foreign = [field for field in chosen if not field.startswith("serve.")]
    if foreign:
        raise InputError(f"--set {foreign[0]}: only serve.* can be set here.")
    flags = {
        "store": store,
        "host": host,
        "port": port,
        "allowed_host": allowed_host and tuple(allowed_host),
        "workers": workers,
        "token_file": token_file,
        "watch": watch,
    }
    values = {name: value for name, value in flags.items() if value is not None}
    values |= {field.removeprefix("serve."): value for field, value in chosen.items()}
    serve_runs(Settings.build({"runs": tuple(runs), **values}), tell=_show_json if json else _show)


def _show(serving) -> None:
    import sys

    from foretaste.cli.display import say

    say(f"Serving {', '.join(serving.runs)} at {serving.url}")
    say(f"Users are kept in {serving.store}")
    for note in serving.notes:
        say(note)
    sys.stdout.flush()


def _show_json(serving) -> None:
    import sys

    from foretaste.cli.display import print_json

    print_json(serving._asdict())
    sys.stdout.flush()
