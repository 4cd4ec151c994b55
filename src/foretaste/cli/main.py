"""The command line: one verb, one file. This one maps what goes wrong to exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import foretaste
from foretaste.cli import codes
from foretaste.cli.compare import compare
from foretaste.cli.datasets import datasets
from foretaste.cli.demo import demo
from foretaste.cli.doctor import doctor
from foretaste.cli.evaluate import evaluate
from foretaste.cli.federate import federate
from foretaste.cli.recommend import recommend
from foretaste.cli.report import report
from foretaste.cli.resume import resume
from foretaste.cli.serve import serve
from foretaste.cli.train import train
from foretaste.cli.tune import tune
from foretaste.errors import InputError

USER_ERROR = 2

app = typer.Typer(
    name="foretaste",
    help="Recommenders from log to answer: train, compare honestly, recommend, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Interrupted(InputError):
    """The user pressed Ctrl-C."""


def _interruptible(verb: Callable[..., None]) -> Callable[..., None]:
    """``verb``, with Ctrl-C told in our words; Typer would end without any."""

    @functools.wraps(verb)
    def call(*args: Any, **options: Any) -> None:
        try:
            verb(*args, **options)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted. Finished epochs and trials are kept: go on with foretaste resume RUN"
            ) from None

    return call


VERBS = (
    demo,
    datasets,
    train,
    resume,
    tune,
    evaluate,
    recommend,
    compare,
    report,
    serve,
    federate,
    doctor,
)
for verb in VERBS:
    app.command()(_interruptible(verb))

codes_app = typer.Typer(
    name="codes",
    help="Semantic IDs: give items codes, and look at how good they are.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for verb in (codes.fit, codes.report):
    codes_app.command()(_interruptible(verb))
app.add_typer(codes_app)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foretaste {foretaste.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell it and stop."),
    ] = False,
) -> None:
    """Recommenders from log to answer: train, compare honestly, recommend, report."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 the user's input is wrong, 1 our fault."""
    # Waiting threads that spin stall each other a hundredfold when the cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader of our output has seen enough, as in "foretaste datasets | head -1".
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror}. Check the path, its permissions and the free space.")


def _fail(message: str) -> None:
    """One line on stderr, exit code 2."""
    sys.stderr.write(f"foretaste: {' '.join(message.split())}\n")
    sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
