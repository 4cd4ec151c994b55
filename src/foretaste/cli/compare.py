"""``foretaste compare``: runs side by side, paired user by user."""

from __future__ import annotations

from typing import Annotated

import typer

from foretaste.cli import options


def compare(
    runs: options.Runs,
    metric: Annotated[str, typer.Option("--metric", help="What is compared.")] = "ndcg@10",
    split: Annotated[str, typer.Option("--split", help="Which part: test or valid.")] = "test",
    json: options.Json = False,
) -> None:
    """Compare finished runs, with intervals and Holm-corrected p-values."""
    from foretaste.cli.display import print_json
    from foretaste.errors import InputError
    from foretaste.experiments.comparing import compare as compare_runs

    if split not in ("test", "valid"):
        raise InputError(f"--split {split}: choose test or valid.")
    found = compare_runs(runs, metric=metric, part=split)
    if json:
        print_json(
            {
                "metric": found.metric,
                "part": found.part,
                "users": found.users,
                "left_out": found.left_out,
                "runs": [_finite(row._asdict()) for row in found.rows],
                "pairs": [_finite(pair._asdict()) for pair in found.pairs],
            }
        )
    else:
        show(found)


def show(found) -> None:
    """The comparison as two tables."""
    from foretaste.cli.display import print_table, say
    from foretaste.data.sources import counted

    rows = [
        [row.run, row.model, f"{row.value:.4f}", _interval(row.low, row.high)] for row in found.rows
    ]
    title = f"{found.metric} on {found.part}, the same {counted(found.users, 'user')}"
    print_table(title, ["run", "model", "mean", "95 % interval"], rows)
    if found.left_out:
        say(f"{counted(found.left_out, 'user')} left out: not every run has {found.metric} there")
    rows = [
        [
            f"{pair.a} - {pair.b}",
            f"{pair.difference:+.4f}",
            _interval(pair.low, pair.high, "+"),
            f"{pair.p_holm:.4f}",
        ]
        for pair in found.pairs
    ]
    print_table(
        "differences, paired by user", ["pair", "difference", "95 % interval", "p (Holm)"], rows
    )


def _interval(low: float, high: float, sign: str = "") -> str:
    """Its ends; a single user has none."""
    return f"{low:{sign}.4f} to {high:{sign}.4f}" if low == low else "-"


def _finite(values: dict) -> dict:
    """JSON has no NaN: what does not exist is null."""
    return {key: None if value != value else value for key, value in values.items()}
