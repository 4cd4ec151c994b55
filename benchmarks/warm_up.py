"""MDGR's dial as a curve: what a warm-up slot more costs, and what it brings.

    .venv/bin/python benchmarks/warm_up.py

Nothing is measured here. Quality and milliseconds a question of trained models are read from
``generative_quality.md``, the time of one user's list over random codes from ``decoding.md``, and
drawn to ``docs/images/warm_up.svg``. Make it again when a table has changed; a test says so.
"""

import re
from pathlib import Path
from typing import NamedTuple

from drawing import COLOURS, LEFT, PANEL, Axis, Panel, legend, write
from peers.driving import read_table

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "images" / "warm_up.svg"
MDGR = re.compile(r"MDGR, (\d+) warm-up")
REFERENCE = "TIGER"
SHAPE = {"levels": "4", "beams": "30", "reads": "codes"}
"""The rows of ``decoding.md`` that are drawn."""
TIMES = (0.1, 1, 10, 100)
SECOND = LEFT + PANEL + 90
"""Where the second panel begins."""


class Answer(NamedTuple):
    """NDCG@10 with its interval, and milliseconds of one processor a question."""

    ndcg: float
    low: float
    high: float
    milliseconds: float


def qualities(table: Path) -> dict[str, dict[int | str, Answer]]:
    """By data, the answers with each number of warm-up slots and those of TIGER's beam.

    Numbers of slots that fewer seeds were asked with are left out: seeds differ by more.
    """
    found: dict[str, dict[int | str, Answer]] = {}
    rows = list(read_table(table))
    dial = [row for row in rows if MDGR.fullmatch(row["model"])]
    most = {row["data"]: 0 for row in dial}
    for row in dial:
        most[row["data"]] = max(most[row["data"]], int(row["seeds"]))
    for row in rows:
        if row in dial and int(row["seeds"]) < most[row["data"]]:
            continue
        asked = MDGR.fullmatch(row["model"])
        if asked or row["model"] == REFERENCE:
            value = re.fullmatch(r"([\d.]+) \(([\d.]+)-([\d.]+)\)", row["NDCG@10"])
            assert value is not None, row
            numbers = (float(part) for part in (*value.groups(), row["ms/question"]))
            found.setdefault(row["data"], {})[int(asked[1]) if asked else REFERENCE] = Answer(
                *numbers
            )
    return {data: one for data, one in found.items() if len(one) > 2}  # a curve has two points


def times(table: Path) -> dict[str, dict[int | str, float]]:
    """By items of the catalog, milliseconds of one user's list with each number of slots."""
    found: dict[str, dict[int | str, float]] = {}
    for row in read_table(table):
        if any(row[key] != value for key, value in SHAPE.items()):
            continue
        asked = MDGR.fullmatch(row["way"])
        if asked or row["way"].startswith(REFERENCE):
            slots = int(asked[1]) if asked else REFERENCE
            found.setdefault(row["items"], {})[slots] = float(row["one user, ms"])
    return found


def draw(folder: Path, path: Path) -> None:
    """The figure of the tables in a folder."""
    milliseconds, up = "{:g}".format, (0, 0.05, 0.1, 0.15)
    quality = Panel(
        "NDCG@10 by slots of warm-up, trained models",
        Axis("ms of one processor a question (dashed: TIGER)", TIMES, milliseconds, log=True),
        Axis("", up, "{:.2f}".format),
        LEFT,
    )
    marks = quality.frame()
    sets = qualities(folder / "generative_quality.md")
    for (_, answers), colour in zip(sets.items(), COLOURS[: len(sets)], strict=True):
        dial = [(slots, one) for slots, one in answers.items() if isinstance(slots, int)]
        marks.append(quality.curve([(one.milliseconds, one.ndcg) for _, one in dial], colour))
        for slots, one in dial:
            marks.append(quality.interval(one.milliseconds, one.low, one.high, colour))
            marks.append(quality.dot(one.milliseconds, one.ndcg, colour, str(slots)))
        if beam := answers.get(REFERENCE):  # its time alone: its quality is of other seeds
            ends = [(beam.milliseconds, level) for level in (up[0], up[-1])]
            marks.append(quality.curve(ends, colour, dashed=True))
    marks += legend(zip(sets, COLOURS[: len(sets)], strict=True), LEFT, 180)
    catalogs = times(folder / "decoding.md")
    most = max(slots for one in catalogs.values() for slots in one if isinstance(slots, int))
    speed = Panel(
        "ms for one user, by items of the catalog",
        Axis("slots of warm-up (dashed: TIGER)", tuple(range(most + 1)), milliseconds),
        Axis("", (1, 10, 100, 1_000), milliseconds, log=True),
        SECOND,
    )
    marks += speed.frame()
    for (_, found), colour in zip(catalogs.items(), COLOURS[: len(catalogs)], strict=True):
        dial = [(slots, time) for slots, time in found.items() if isinstance(slots, int)]
        marks.append(speed.curve(dial, colour))
        if REFERENCE in found:
            level = found[REFERENCE]
            marks.append(speed.curve([(0, level), (most, level)], colour, dashed=True))
    marks += legend(zip(catalogs, COLOURS[: len(catalogs)], strict=True), SECOND, 110)
    title = "Quality and time of MDGR by the number of slots that are filled one at a time"
    write(path, marks, SECOND + PANEL + 40, title)


if __name__ == "__main__":
    draw(HERE, FIGURE)
