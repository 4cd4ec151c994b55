"""``foretaste report``: one self-contained HTML file about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli import options


def report(
    runs: options.Runs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; RUN/report.html by default.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a report that opens offline."""
    from foretaste.cli.display import print_json, say
    from foretaste.reporting import write_report

    path = write_report(runs, output or runs[0] / "report.html")
    if json:
        print_json({"report": str(path)})
    else:
        say(f"Open {path} in a browser.")
