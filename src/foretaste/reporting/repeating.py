"""What the runs cost and all that is needed to repeat them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.reporting.runs import ReportedRun
from foretaste.reporting.tables import Cell, Fact, Row, Table
from foretaste.reporting.wording import NOTHING, duration, size, whole

FEDERATION = "federation.toml"
"""Beside the recipe of a federated run, what its federation was."""


class Repeat(NamedTuple):
    """The commands of a run and its whole recipe."""

    title: str
    series: int
    command: str
    again: str
    recipe: str


def costs(runs: Sequence[ReportedRun], part: str) -> Table:
    """Time and memory of every run."""
    rows = []
    for run in runs:
        evaluated = run.metrics.get(part) or {}
        seconds, users = evaluated.get("seconds"), evaluated.get("users")
        rate = f"{users / seconds:,.0f} users/s" if seconds and users else NOTHING
        cells = (
            Cell(duration(run.section("fit").get("seconds"))),
            Cell(duration(seconds), "" if rate == NOTHING else rate),
            Cell(duration(run.record.get("wall_seconds"))),
            Cell(size(run.record.get("peak_memory_bytes"))),
            Cell(_device(run)),
        )
        rows.append(Row(run.title, cells, run.series))
    head = ("Run", "Learning", "Answering", "In all", "Most memory", "On")
    caption = (
        "Memory is the most that the process held; runs made one after the other in one process "
        "share it."
    )
    return Table(head, tuple(rows), caption)


def machines(runs: Sequence[ReportedRun]) -> tuple[Fact, ...]:
    """The machines that the runs were made on, each once."""
    found: dict[str, list[str]] = {}
    for run in runs:
        machine = run.section("machine")
        parts = [str(machine["cpu"])] if machine.get("cpu") else []
        parts += [f"{whole(machine['cores'])} cores"] if machine.get("cores") else []
        parts += [f"{size(machine['memory_bytes'])} memory"] if machine.get("memory_bytes") else []
        found.setdefault(", ".join(parts) or "not recorded", []).append(run.title)
    if len(found) == 1:
        return (Fact("Machine", next(iter(found))),)
    return tuple(Fact(", ".join(names), machine) for machine, names in found.items())


def versions(runs: Sequence[ReportedRun]) -> Table:
    """Seeds, fingerprints and versions of packages."""
    packages = list(dict.fromkeys(name for run in runs for name in run.section("versions")))
    rows = [
        _line("Data fingerprint", [_short(run) for run in runs]),
        _line("Seed", [run.record.get("seed") for run in runs]),
        _line("Started", [run.record.get("started") for run in runs]),
        *(_line(name, [run.section("versions").get(name) for run in runs]) for name in packages),
    ]
    return Table(("", *(run.title for run in runs)), tuple(rows), "What the figures depend on.")


def repeats(runs: Sequence[ReportedRun]) -> tuple[Repeat, ...]:
    """How to make every run again."""
    return tuple(
        Repeat(
            run.title,
            run.series,
            str(run.record.get("command") or ""),
            _again(run.folder.path),
            "\n".join(
                path.read_text(encoding="utf-8", errors="replace")
                for path in _recipes(run.folder.path)
            ),
        )
        for run in runs
    )


def _recipes(folder: Path) -> list[Path]:
    """The files that say what a run is."""
    return [path for name in ("recipe.toml", FEDERATION) if (path := folder / name).exists()]


def _again(folder: Path) -> str:
    """The command that makes a run again beside it."""
    beside = shlex.quote(f"{folder}-again")
    if (folder / FEDERATION).exists():
        return f"foretaste federate {shlex.quote(str(folder))} --run {beside}"
    return f"foretaste train {shlex.quote(str(folder / 'recipe.toml'))} --run {beside}"


def report_command(runs: Sequence[ReportedRun]) -> str:
    """The command that writes this report again."""
    return " ".join(["foretaste report", *(shlex.quote(str(run.folder.path)) for run in runs)])


def _short(run: ReportedRun) -> str:
    """The first 16 signs of the fingerprint; ``run.json`` has them all."""
    return str(run.section("data").get("fingerprint") or NOTHING)[:16]


def _device(run: ReportedRun) -> str:
    machine = run.section("machine")
    threads = f", {machine['threads']} threads" if machine.get("threads") else ""
    return f"{machine.get('device') or NOTHING}{threads}"


def _line(name: str, values: Sequence[Any]) -> Row:
    return Row(name, tuple(Cell(NOTHING if value is None else str(value)) for value in values))
