"""Colours: one per run, told apart by colour-blind readers, in light and in dark."""

from __future__ import annotations

# After M. Okabe and K. Ito, "Color Universal Design" (2008), each shade moved until it has a
# contrast of at least 3 to the page (light, dark); a test keeps it so.
SERIES = (
    ("#0069b4", "#5aa9e6"),
    ("#c84e00", "#f0864a"),
    ("#00855f", "#3cc39a"),
    ("#b0508f", "#e39ac8"),
    ("#946c00", "#e3b341"),
    ("#3b86b5", "#a5d8f7"),
    ("#5c5f66", "#b4b8c0"),
    ("#7a4b2a", "#cf9f7c"),
)
DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "12 4", "1 3", "6 2 1 2")
"""A second sign beside the colour, for charts of several lines and print without colour."""

_PAGE = {
    "page": ("#ffffff", "#14171c"),
    "panel": ("#f6f7f9", "#1c2027"),
    "ink": ("#16191f", "#e9ebef"),
    "soft": ("#555c68", "#a4acb9"),
    "line": ("#dfe2e7", "#323843"),
    "track": ("#eceef2", "#262b34"),
    "past": ("#a9aeb8", "#59616e"),
    "link": ("#0060a5", "#7cbcf0"),
    "good": ("#00704f", "#4bcba3"),
    "good-panel": ("#e8f5f0", "#12302a"),
    "warn": ("#865700", "#e9b64c"),
    "warn-panel": ("#fdf4e0", "#352a12"),
    "bad": ("#b3261e", "#ff9b90"),
    "bad-panel": ("#fdeceb", "#3c1a1a"),
}


def variables() -> str:
    """CSS variables of both themes: light unless the reader or the reader's system asks for dark.

    Dark holds on screens only, so that paper stays white.
    """
    colours = _PAGE | {f"series-{number}": pair for number, pair in enumerate(SERIES)}
    light = _block(colours, 0, "light")
    dark = _block(colours, 1, "dark")
    return (
        f":root {{ {light} }}\n"
        f'@media screen {{ :root[data-theme="dark"] {{ {dark} }} }}\n'
        "@media screen and (prefers-color-scheme: dark) "
        f'{{ :root:not([data-theme="light"]) {{ {dark} }} }}\n'
        + "\n".join(_series_rules(number) for number in range(len(SERIES)))
    )


def series_of(number: int) -> int:
    """The colour of the run with this number; after the last the first comes again."""
    return number % len(SERIES)


def dash_of(number: int) -> str:
    """The dash of the line with this number in its chart; the first is solid."""
    return DASHES[number % len(DASHES)]


def contrast(one: str, other: str) -> float:
    """Contrast of two ``#rrggbb`` colours, 1..21 (WCAG 2.2, "contrast ratio")."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _block(colours: dict[str, tuple[str, str]], theme: int, scheme: str) -> str:
    named = " ".join(f"--{name}: {pair[theme]};" for name, pair in colours.items())
    return f"color-scheme: {scheme}; {named}"


def _series_rules(number: int) -> str:
    return f".s{number} {{ --own: var(--series-{number}); }}"


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
