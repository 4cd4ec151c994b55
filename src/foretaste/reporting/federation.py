"""What a federation came to: accuracy over rounds and over bytes, and who took part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from markupsafe import Markup

from foretaste.reporting import charts
from foretaste.reporting.runs import ReportedRun
from foretaste.reporting.tables import Cell, Row, Table
from foretaste.reporting.wording import NOTHING, figure, known, metric_title, size, whole

KILOBYTE = 1_000
VIEWS = {
    "made": "histories were given some",
    "asked": "titles came from the language model",
    "unmatched": "of them are not in the catalog and were dropped",
    "refused": "histories had a prompt refused",
    "without_views": "times a user trained without",
}
"""What is counted where views are made, and how it is told."""


class Federation(NamedTuple):
    """Charts and a table of all runs that were federated.

    Attributes:
        metric: what the charts show.
        by_rounds: the metric over rounds.
        by_bytes: the metric over kilobytes that a client has received and sent in training, on
            average.
        shown: runs with a line in the charts.
        table: clients, bytes of a round, epsilon, nodes that failed.
        notes: figures of the round that was kept, what became of views, problems of nodes.
    """

    metric: str
    by_rounds: Markup
    by_bytes: Markup
    shown: tuple[ReportedRun, ...]
    table: Table
    notes: tuple[str, ...]


def federation(runs: Sequence[ReportedRun]) -> Federation | None:
    """The part of the report about federations; None when no run was one."""
    federated = [run for run in runs if run.section("federation").get("rounds")]
    if not federated:
        return None
    names = {str(run.section("federation").get("metric")) for run in federated}
    metric = metric_title(names.pop()) if len(names) == 1 else "validation metric"
    by_rounds = [_line(run, _rounds(run)) for run in federated]
    by_bytes = [_line(run, _kilobytes(run)) for run in federated]
    title = f"{metric} on validation"
    return Federation(
        metric=metric,
        by_rounds=charts.lines([one for one in by_rounds if one.points], title=f"{title} by round"),
        by_bytes=charts.lines(
            [one for one in by_bytes if one.points],
            title=f"{title} by kilobytes that a client has received and sent in training",
        ),
        shown=tuple(run for run, line in zip(federated, by_rounds, strict=True) if line.points),
        table=_table(federated),
        notes=tuple(note for run in federated for note in _told(run)),
    )


def figures_kept(about: Mapping[str, Any]) -> str:
    """The figures of the round that was kept, by whom they are of; empty when it has none."""
    kept = next((one for one in about["rounds"] if one["round"] == about.get("best_round")), {})
    at_server, at_clients = kept.get("figures") or {}, kept.get("on_clients") or {}
    found = {
        "validation": at_server.get("valid"),
        "users who never train": at_server.get("held_out"),
        "clients' own newest events": at_clients.get(about.get("metric")),
    }
    told = [f"{who} {figure(value)}" for who, value in found.items() if known(value)]
    if not told:
        return ""
    return f"{metric_title(str(about['metric']))} of the round that was kept: {', '.join(told)}"


def of_views(about: Mapping[str, Any]) -> str:
    """What became of views where they were made; empty when none were asked for."""
    counts = about.get("views") or {}
    told = [f"{whole(counts[name])} {what}" for name, what in VIEWS.items() if counts.get(name)]
    return f"Views: {', '.join(told)}" if told else ""


def _told(run: ReportedRun) -> list[str]:
    about = run.section("federation")
    told = [f"{run.title}: {one}" for one in (figures_kept(about), of_views(about)) if one]
    return [*told, *_problems(run)]


def _line(run: ReportedRun, places: Mapping[int, float]) -> charts.Line:
    about = run.section("federation")
    points, mark = [], None
    for one in about["rounds"]:
        at_clients = (one.get("on_clients") or {}).get(about.get("metric"))
        value = (one.get("figures") or {}).get("valid", at_clients)  # as the best round is chosen
        if known(value):
            points.append((places[one["round"]], value))
            if one["round"] == about.get("best_round"):
                mark = points[-1]
    return charts.Line(run.title, tuple(points), run.series, mark)


def _rounds(run: ReportedRun) -> dict[int, float]:
    return {one["round"]: one["round"] for one in run.section("federation")["rounds"]}


def _kilobytes(run: ReportedRun) -> dict[int, float]:
    """What a client has received and sent in training up to each round, on average over all."""
    about = run.section("federation")
    clients = max(about.get("clients") or 1, 1)
    spent = accumulate(
        (one["down"] + one["up"]) * one["users"] / clients / KILOBYTE for one in about["rounds"]
    )
    return {one["round"]: total for one, total in zip(about["rounds"], spent, strict=True)}


def _table(runs: Sequence[ReportedRun]) -> Table:
    rows = []
    for run in runs:
        about = run.section("federation")
        rounds: list[dict[str, Any]] = about["rounds"]
        trained = [one for one in rounds if one["users"]] or rounds
        mean = {
            name: sum(one[name] for one in trained) / len(trained)
            for name in ("users", "down", "up")
        }
        failed = sum(sum(one["problems"].values()) for one in rounds)
        cells = (
            Cell(str(about.get("method") or NOTHING), str(about.get("engine") or "")),
            Cell(whole(about.get("clients")), f"{whole(about.get('nodes'))} nodes"),
            Cell(whole(len(rounds)), f"{whole(mean['users'])} clients each"),
            Cell(size(mean["down"]), _of_evaluation(rounds, "evaluation_down")),
            Cell(size(mean["up"]), _of_evaluation(rounds, "evaluation_up")),
            Cell(NOTHING if about.get("epsilon") is None else figure(about["epsilon"])),
            Cell(whole(failed)),
        )
        rows.append(Row(run.title, cells, run.series))
    head = (
        *("Run", "Method", "Clients", "Rounds", "Down", "Up"),
        *("Epsilon of a user", "Replies left out"),
    )
    note = "Bytes are of one client in one round in which it trains, or is measured, serialised."
    return Table(head, tuple(rows), note)


def _of_evaluation(rounds: Sequence[Mapping[str, Any]], name: str) -> str:
    """Bytes of a round in which clients were measured; nothing when they never were."""
    sizes = [one[name] for one in rounds if one.get(name)]
    return f"{size(sum(sizes) / len(sizes))} for evaluation" if sizes else ""


def _problems(run: ReportedRun) -> list[str]:
    counts: dict[str, int] = {}
    for one in run.section("federation")["rounds"]:
        for problem, times in one["problems"].items():
            counts[problem] = counts.get(problem, 0) + times
    worst = sorted(counts.items(), key=lambda pair: -pair[1])[:3]
    return [f"{run.title}: {problem} ({times} times)" for problem, times in worst]
