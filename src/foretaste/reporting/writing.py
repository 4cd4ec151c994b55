"""Writing a report: read the runs, say what they come to, fill the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from foretaste.errors import InputError
from foretaste.reporting import palette
from foretaste.reporting.background import data_card, verdicts
from foretaste.reporting.federation import federation
from foretaste.reporting.glossary import glossary
from foretaste.reporting.headline import headline
from foretaste.reporting.learning import learning
from foretaste.reporting.people import people, titled
from foretaste.reporting.popularity import popularity_panels
from foretaste.reporting.repeating import costs, machines, repeats, report_command, versions
from foretaste.reporting.runs import ReportedRun, common_metrics, part_to_report, read_runs
from foretaste.reporting.scores import item_slices, metrics_table, paired, scores, user_slices
from foretaste.reporting.wording import metric_title
from foretaste.storage import write_whole

HERE = Path(__file__).parent


def write_report(
    runs: Sequence[Path | str], output: Path | str, *, title: str | None = None
) -> Path:
    """Write one HTML file about one run or several on the same data and split.

    The file needs nothing beside it: no network, no fonts, no scripts but one line that changes
    between light and dark.

    Args:
        runs: run folders. What a run lacks is said in the report.
        output: the file; its folder is made when it does not exist.
        title: of the report; by default the name of the data.

    Returns:
        ``output``.

    Raises:
        InputError: no run, a folder without a run, runs of different data or splits, or a file
            that cannot be written.
    """
    read = read_runs(runs)
    page = render(read, title=title)
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot make the folder ({error.strerror}).") from error
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Name a file, such as {path / 'report.html'}.")
    write_whole(path, page.encode())
    return path


def render(runs: Sequence[ReportedRun], *, title: str | None = None) -> str:
    """The page as text; whatever comes from the runs is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(_contents(runs, title))


def _contents(runs: Sequence[ReportedRun], title: str | None) -> dict[str, Any]:
    part = part_to_report(runs)
    metrics = common_metrics(runs, part)
    metric = metrics[0] if metrics else None
    comparison, why_not = paired(runs, part, metric)
    measured = [run for run in runs if run.figures(part)]
    leakage = verdicts(runs)
    script = (HERE / "report.js").read_text(encoding="utf-8").strip()
    name = runs[0].section("data").get("name") or "data"
    return {
        "title": title or f"Recommenders on {name}",
        "written": f"{datetime.now(UTC):%d %B %Y}".lstrip("0"),
        "foretaste_version": _version(),
        "style": Markup(palette.variables() + (HERE / "report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "dash_of": palette.dash_of,
        "runs": runs,
        "part": part,
        "metric": metric and metric_title(metric),
        "headline": headline(runs, part, metric, comparison, leakage[0].short),
        "card": data_card(runs[0]),
        "leakage": leakage,
        "scores": scores(runs, part, metric, comparison, why_not),
        "user_slices": user_slices(runs, part, metric),
        "item_slices": item_slices(runs, part),
        "popularity": popularity_panels([r for r in runs if r.figures(part, "lists")], part),
        "beside": metrics_table(measured, part, metric, beside=True) if measured else None,
        "learning": learning(runs),
        "federation": federation(runs),
        "people": people(runs),
        "titled": titled(runs),
        "costs": costs(runs, part),
        "machines": machines(runs),
        "repeats": repeats(runs),
        "report_command": report_command(runs),
        "versions": versions(runs),
        "glossary": glossary(runs, part),
    }


def _version() -> str:
    try:
        return version("foretaste")
    except PackageNotFoundError:
        return ""
