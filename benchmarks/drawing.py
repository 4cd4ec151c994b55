"""Curves in panels, as an SVG that stands by itself: for figures of the docs."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

COLOURS = ("#0f766e", "#b45309", "#64748b")
PANEL, HEIGHT, LEFT, TOP, BOTTOM = 300, 330, 56, 40, 76
"""Pixels: a panel with the air at its right, the figure, and the room around the curves."""

Points = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """Where values lie: the first and the last of the numbers that it shows are its ends."""

    name: str
    shown: Sequence[float]
    written: Callable[[float], str]
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1."""
        low, high, value = (
            np.log2(one) if self.log else one for one in (self.shown[0], self.shown[-1], value)
        )
        return float((value - low) / (high - low))


class Panel(NamedTuple):
    """A place for curves; ``left`` is the pixel that it begins at."""

    title: str
    across: Axis
    up: Axis
    left: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        high = HEIGHT - BOTTOM - TOP
        across = self.left + self.across.share(x) * (PANEL - 16)
        return round(across, 1), round(TOP + (1 - self.up.share(y)) * high, 1)

    def frame(self, *, numbered: bool = True) -> list[str]:
        """Title, levels and numbers; the levels have theirs where ``numbered``."""
        begin, end = self.across.shown[0], self.across.shown[-1]
        marks = [f'<text x="{self.left}" y="{TOP - 16}" font-weight="600">{self.title}</text>']
        for level in self.up.shown:
            (x, y), (right, _) = self.at(begin, level), self.at(end, level)
            marks.append(f'<line x1="{x}" y1="{y}" x2="{right}" y2="{y}" stroke="#94a3b855"/>')
            if numbered:
                told = self.up.written(level)
                marks.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{told}</text>')
        for number in self.across.shown:
            x, y = self.at(number, self.up.shown[0])
            told = self.across.written(number)
            marks.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{told}</text>')
        x = round(self.left + (PANEL - 16) / 2, 1)
        marks.append(f'<text x="{x}" y="{y + 36}" text-anchor="middle">{self.across.name}</text>')
        return marks

    def curve(self, points: Points, colour: str, *, dashed: bool = False) -> str:
        """A line through points."""
        path = " ".join(f"{x},{y}" for x, y in (self.at(*point) for point in points))
        kind = '"1.5" stroke-dasharray="3 4"' if dashed else '"2.5"'
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width={kind}/>'

    def dot(self, x: float, y: float, colour: str, told: str) -> str:
        """A point with a few letters above it."""
        across, down = self.at(x, y)
        return (
            f'<circle cx="{across}" cy="{down}" r="4" fill="{colour}"/>'
            f'<text x="{across}" y="{down - 16:.1f}" text-anchor="middle" font-size="11">{told}'
            "</text>"
        )

    def interval(self, x: float, low: float, high: float, colour: str) -> str:
        """An upright line between two values."""
        (across, bottom), (_, top) = self.at(x, low), self.at(x, high)
        return (
            f'<line x1="{across}" y1="{bottom}" x2="{across}" y2="{top}" stroke="{colour}" '
            'stroke-width="1.5"/>'
        )


def legend(names: Iterable[tuple[str, str]], left: float, apart: float) -> list[str]:
    """A line in the colour of each name at the bottom, so many pixels apart."""
    marks = []
    for place, (name, colour) in enumerate(names):
        x, y = left + apart * place, HEIGHT - 10
        marks.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" stroke="{colour}" '
            f'stroke-width="2.5"/><text x="{x + 28}" y="{y}">{name}</text>'
        )
    return marks


def write(path: Path, marks: Iterable[str], width: int, title: str) -> None:
    """The file; ``title`` is what is read aloud in place of it."""
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#64748b"><title>{title}</title>'
        f"{''.join(marks)}</svg>\n"
    )
