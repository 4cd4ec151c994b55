"""Put the tables that the benchmarks wrote into docs/benchmarks.md, between its markers.

    python benchmarks/publish.py

A page says ``<!-- table: quality.md -->`` and, below the table, ``<!-- end -->``. A test checks
that the page holds what the scripts wrote.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PLACE = re.compile(r"(<!-- table: (?P<name>[\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def published(page: str) -> str:
    """The page with every table as its file has it, or a sentence where there is none."""

    def table(found: re.Match[str]) -> str:
        path = HERE / found["name"]
        text = path.read_text() if path.exists() else "Not measured yet.\n"
        return f"{found[1]}\n{text}\n{found[3]}"

    return PLACE.sub(table, page)


if __name__ == "__main__":
    PAGE.write_text(published(PAGE.read_text()))
