"""A page about code tables: how codes are used, what collided, what they keep, what they cost."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from foretaste.errors import InputError
from foretaste.reporting import charts, palette
from foretaste.reporting.tables import Cell, Row, Table
from foretaste.reporting.wording import NOTHING, duration, listing, share, whole
from foretaste.storage import write_whole

HERE = Path(__file__).parent
POINTS = 256
"""Points of a curve over the codes of a level, at most."""
GROUPS = ("2", "3", "4", "5 to 9", "10 to 99", "100+")


class Panel(NamedTuple):
    """One code table's picture of one thing."""

    title: str
    series: int
    chart: Markup
    said: str = ""


class LegendEntry(NamedTuple):
    """A line of a chart, by its dash."""

    title: str
    series: int
    dash: str


def write_code_report(figures: Sequence[dict[str, Any]], output: Path) -> Path:
    """Write one HTML file about one code table or several; it needs nothing beside it.

    Args:
        figures: what ``foretaste codes fit`` measured, a table each.
        output: the file; its folder is made when it does not exist.

    Raises:
        InputError: when nothing is given or the file cannot be written.
    """
    if not figures:
        raise InputError("codes report: no folder given. Name one that foretaste codes fit wrote.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output.parent}: cannot make the folder ({error.strerror}).") from error
    if output.is_dir():
        raise InputError(f"{output}: is a folder. Name a file, such as {output / 'report.html'}.")
    write_whole(output, render(figures).encode())
    return output


def render(figures: Sequence[dict[str, Any]]) -> str:
    """The page as text; whatever comes from the figures is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (HERE / "report.js").read_text(encoding="utf-8").strip()
    style = palette.variables() + (HERE / "report.css").read_text(encoding="utf-8")
    return environment.get_template("codes.html.j2").render(
        title=f"Codes of {listing(list(dict.fromkeys(str(one['data']) for one in figures)))}",
        written=f"{datetime.now(UTC):%d %B %Y}".lstrip("0"),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        findings=[_findings(one, n) for n, one in enumerate(figures)],
        overview=_overview(figures),
        levels=_levels(figures),
        use=[_use(one, n) for n, one in enumerate(figures)],
        use_legend=_use_legend(figures),
        perplexity=_perplexity(figures),
        collisions=[_collisions(one, n) for n, one in enumerate(figures)],
        neighbours=_neighbours(figures),
        stability=_stability(figures),
        costs=_costs(figures),
        versions=_versions(figures),
    )


def _findings(one: dict[str, Any], number: int) -> tuple[str, int, list[str]]:
    told = [*one["notes"], *one["report"]["findings"]]
    return str(one["name"]), palette.series_of(number), told or ["Nothing to remark."]


def _overview(figures: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for number, one in enumerate(figures):
        report = one["report"]
        used = [level["used"] / level["size"] for level in report["levels"]]
        cells = (
            Cell(str(report["tokenizer"]), str(one["sources"])),
            Cell(whole(report["items"])),
            Cell(" × ".join(str(size) for size in report["sizes"])),
            Cell(share(sum(used) / len(used))),
            Cell(share(report["collisions"]["before"] / report["items"])),
            Cell(whole(report["collisions"]["moved"])),
            Cell(share(report["neighbours"]["overlap"])),
            Cell(share(report["error"])),
            Cell(duration(one["seconds"])),
        )
        rows.append(Row(str(one["name"]), cells, palette.series_of(number)))
    head = (
        *("codes", "tokenizer", "items", "codes a level", "used", "collided", "moved"),
        *("neighbours kept", "lost", "fit"),
    )
    return Table(head, tuple(rows), "Code tables side by side")


def _levels(figures: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for number, one in enumerate(figures):
        near, stability = one["report"]["neighbours"], one["report"]["stability"]
        for level, use in enumerate(one["report"]["levels"]):
            agreed = share(stability["agreement"][level]) if stability else NOTHING
            cells = (
                Cell(whole(use["size"])),
                Cell(whole(use["used"])),
                Cell(f"{use['perplexity']:.1f}"),
                Cell(share(use["largest"])),
                Cell(share(near["agreement"][level]), f"by chance {share(near['chance'][level])}"),
                Cell(agreed),
            )
            label = f"{one['name']}, level {level + 1}"
            rows.append(Row(label, cells, palette.series_of(number)))
    head = ("level", "codes", "used", "perplexity", "largest code", "neighbours agree", "stable")
    return Table(head, tuple(rows), "Level by level, before collisions are resolved")


def _use(one: dict[str, Any], number: int) -> Panel:
    """Items of each code, the most used first, a line for each level."""
    series = []
    for place, level in enumerate(one["report"]["levels"]):
        counts = level["counts"]
        step = max(1, len(counts) // POINTS)
        ranks = sorted({*range(0, len(counts), step), len(counts) - 1})
        points = tuple((float(rank + 1), float(counts[rank])) for rank in ranks)
        series.append(charts.Line(f"level {place + 1}", points, palette.series_of(place)))
    title = f"Items of each code, {one['name']}"
    chart = charts.lines(series, title=title)
    return Panel(str(one["name"]), palette.series_of(number), chart)


def _use_legend(figures: Sequence[dict[str, Any]]) -> list[LegendEntry]:
    levels = max(len(one["report"]["levels"]) for one in figures)
    return [
        LegendEntry(f"level {place + 1}", palette.series_of(place), palette.dash_of(place))
        for place in range(levels)
    ]


def _perplexity(figures: Sequence[dict[str, Any]]) -> Markup:
    rows = [
        charts.Bar(
            f"{one['name']}, level {place + 1}",
            level["perplexity"] / level["size"],
            series=palette.series_of(number),
            shown=f"{level['perplexity']:.1f} of {level['size']:,}",
        )
        for number, one in enumerate(figures)
        for place, level in enumerate(one["report"]["levels"])
    ]
    return charts.bars(rows, title="Perplexity as a share of the codes", top=1.0)


def _collisions(one: dict[str, Any], number: int) -> Panel:
    """How many groups of each size shared their nearest codes."""
    met = one["report"]["collisions"]
    rows = [
        charts.Bar(label, float(count), shown=whole(count))
        for label, count in zip(GROUPS, met["by_group"], strict=True)
    ]
    said = (
        f"{whole(met['before'])} items shared their nearest codes, at most "
        f"{whole(met['largest'])} the same; {whole(met['moved'])} moved, "
        f"{whole(met['after'])} share codes now. {whole(met['same_vector'])} have the same vector "
        "as another item."
    )
    chart = charts.histogram(rows, title=f"Groups of items with the same codes, {one['name']}")
    return Panel(str(one["name"]), palette.series_of(number), chart, said)


def _neighbours(figures: Sequence[dict[str, Any]]) -> Markup:
    rows = []
    for number, one in enumerate(figures):
        near, series = one["report"]["neighbours"], palette.series_of(number)
        kept = share(near["overlap"])
        rows.append(
            charts.Bar(f"{one['name']}, all codes", near["overlap"], series=series, shown=kept)
        )
        for place, value in enumerate(near["agreement"]):
            shown = f"{share(value)}, by chance {share(near['chance'][place])}"
            label = f"{one['name']}, level {place + 1}"
            rows.append(charts.Bar(label, value, series=series, shown=shown))
    return charts.bars(rows, title="Nearest neighbours that agree", top=1.0)


def _stability(figures: Sequence[dict[str, Any]]) -> Markup | None:
    rows = [
        charts.Bar(
            f"{one['name']}, level {place + 1}",
            value,
            series=palette.series_of(number),
            shown=f"{share(value)}, by chance {share(stability['chance'][place])}",
        )
        for number, one in enumerate(figures)
        if (stability := one["report"]["stability"])
        for place, value in enumerate(stability["agreement"])
    ]
    return charts.bars(rows, title="Items with the matching code", top=1.0) if rows else None


def _costs(figures: Sequence[dict[str, Any]]) -> Markup:
    rows = []
    for number, one in enumerate(figures):
        items, learning = one["report"]["items"], one["learning_seconds"]
        coding = one["seconds"] - learning
        for what, seconds, shown in (
            ("learning", learning, f"{duration(learning)} for codebooks"),
            (
                "coding",
                coding,
                f"{duration(coding)}; for a million at this pace: {duration(coding / items * 1e6)}",
            ),
        ):
            label = f"{one['name']}, {what}"
            series = palette.series_of(number)
            rows.append(charts.Bar(label, seconds, series=series, shown=shown))
    return charts.bars(rows, title="Seconds of fitting", axis=True)


def _versions(figures: Sequence[dict[str, Any]]) -> list[str]:
    machine = figures[0]["machine"]
    named = ", ".join(f"{name} {of}" for name, of in figures[0]["versions"].items())
    return [f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}", named]
