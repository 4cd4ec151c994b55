"""What the demo tells at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foretaste.cli.compare import show
from foretaste.cli.display import say
from foretaste.cli.recommend import show_answer

if TYPE_CHECKING:
    from foretaste.experiments.demo import Demo


def show_demo(done: Demo, report: Path) -> None:
    """The comparison, a list for a typed history, and what to try next."""
    show(done.comparison)
    best = next(run for run in done.runs if run.name == done.comparison.rows[0].run)
    say(f"\n{best.record['model']} recommends after what you might have typed:")
    show_answer(done.answer)
    say(f"\nOpen {report} in a browser. Then try:")
    say(f'  foretaste recommend {best.path} --history "Amelie; Pulp Fiction; The Godfather"')
    say("  foretaste train --data my.csv --model sasrec")
    say("  foretaste train --data movietweetings --model ease --set split.min_item_count=5")
    say("  foretaste datasets")
