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
        [row.run, row.model, f"{row.value:.4f}", f"{row.low:.4f} to {row.high:.4f}"]
        for row in found.rows
    ]
    title = f"{found.metric} on {found.part}, the same {found.users:,} users"
    print_table(title, ["run", "model", "mean", "95 % interval"], rows)
    if found.left_out:
        say(f"{counted(found.left_out, 'user')} left out: not every run has {found.metric} there")
    rows = [
        [
            f"{pair.a} - {pair.b}",
            f"{pair.difference:+.4f}",
            f"{pair.low:+.4f} to {pair.high:+.4f}",
            f"{pair.p_holm:.4f}",
        ]
        for pair in found.pairs
    ]
    print_table(
        "differences, paired by user", ["pair", "difference", "95 % interval", "p (Holm)"], rows
    )


def _finite(values: dict) -> dict:
    """JSON has no NaN: what does not exist is null."""
    return {key: None if value != value else value for key, value in values.items()}
