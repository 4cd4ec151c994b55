"""``foretaste demo``: the main job on the embedded data, start to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli import options

HISTORY = ["The Matrix", "Incepton", "Looper", "District 9"]


def demo(
    folder: Annotated[Path, typer.Option("--run", help="Where the runs go.")] = Path("runs/demo"),
    settings: options.Settings = None,
    seed: options.Seed = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Read, check, split, train three models, compare, recommend, report."""
    from foretaste.cli.display import print_json, progress, say
    from foretaste.cli.steps import show_demo
    from foretaste.experiments.demo import run_demo
    from foretaste.experiments.recipe import parse_settings
    from foretaste.reporting import write_report

    talk = (lambda text: None) if quiet or json else say
    extra = parse_settings(settings or []) | ({} if seed is None else {"run.seed": seed})
    done = run_demo(folder, extra, HISTORY, progress=progress(quiet, json), say=talk)
    report = write_report([run.path for run in done.runs], folder / "report.html")
    if json:
        print_json(
            {
                "report": str(report),
                "runs": [str(run.path) for run in done.runs],
                "best": done.comparison.rows[0].run,
                "recommended": done.answer.to_json(),
            }
        )
        return
    if not quiet:
        show_demo(done, report)
