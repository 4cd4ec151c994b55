"""Figures of codes in the terminal."""

from __future__ import annotations

from typing import Any

from foretaste.cli.display import print_table, say


def print_codes(figures: dict[str, Any]) -> None:
    """What ``report.json`` of a folder of codes holds, in a table and a few lines."""
    report = figures["report"]
    near, stability = report["neighbours"], report["stability"]
    rows = []
    for number, level in enumerate(report["levels"]):
        row = [
            str(number + 1),
            f"{level['size']:,}",
            f"{level['used']:,}",
            f"{level['perplexity']:.1f}",
            f"{level['largest']:.1%}",
            f"{near['agreement'][number]:.1%} ({near['chance'][number]:.1%})",
        ]
        if stability:
            row.append(f"{stability['agreement'][number]:.1%} ({stability['chance'][number]:.1%})")
        rows.append(row)
    head = ["level", "codes", "used", "perplexity", "largest", "neighbours agree (chance)"]
    title = f"{figures['name']}: {report['items']:,} items, {report['tokenizer']}"
    if figures["sources"]:
        title += f" of {figures['sources']}"
    print_table(title, head + (["other seeds agree (chance)"] if stability else []), rows)
    met = report["collisions"]
    say(
        f"{met['before']:,} items shared their nearest codes ({met['largest']:,} at most); "
        f"{met['moved']:,} moved, {met['after']} share codes now."
    )
    say(
        f"Nearest neighbours kept: {near['overlap']:.1%}. Lost in coding: {report['error']:.1%} of "
        f"the variance. Fitted in {figures['seconds']:.1f} s, "
        f"{figures['learning_seconds']:.1f} s of them for the codebooks."
    )
    for note in (*figures["notes"], *report["findings"]):
        say(note)
