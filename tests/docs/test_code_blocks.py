"""Every example of README.md and docs/ runs.

Of each page, in order and in one empty folder: a block with ``title="FILE"`` is written to that
file, a ``python`` block is executed (one namespace for the page), and of a ``bash`` or ``console``
block the ``foretaste`` commands are run; they must exit with 0. Other commands (``pip``, ``make``)
are not run. A page has a process of its own, because examples define recommenders, and those are
registered for the rest of the process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("README.md")), *sorted((ROOT / "docs").rglob("*.md"))]

# Blocks marked no-run: the page, and a command or line in the block, with the reason.
NOT_RUN: dict[tuple[str, str], str] = {
    ("serving.md", "foretaste serve"): "serves until it is stopped; tests/serving starts it",
    ("serving.md", "mv runs/films"): "trains for minutes; tests/serving moves runs under a service",
    ("serving.md", "curl"): "asks a service that is not running here; tests/serving asks it",
}

# Commands that take minutes as they stand are run with these words added.
SHORTENED = {"foretaste demo": "--set train.epochs=1 --set split.min_item_count=15"}

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`]*)$")
TITLE = re.compile(r'title="([^"]+)"')


class Block(NamedTuple):
    """A fenced block: the line of its fence, the words after the fence, the text inside."""

    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def not_run(self) -> bool:
        return "no-run" in self.info.split()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, inside = (number, fence["info"].strip(), fence["indent"]), []
        elif opened and fence and fence["indent"] == opened[2] and not fence["info"].strip():
            yield Block(opened[0], opened[1], textwrap.dedent("\n".join(inside)) + "\n")
            opened = None
        elif opened:
            inside.append(line)
    assert opened is None, f"{page.name}:{opened[0]}: the block is not closed."


def commands(block: Block) -> Iterator[str]:
    """The ``foretaste`` commands of a shell block; a backslash joins lines."""
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        command = line.strip().removeprefix("$ ")
        if command.split(" ")[0] == "foretaste":
            yield command


def run_page(page: Path) -> None:
    """Run the blocks of a page in the working folder."""
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks(page):
        print(f"--- {page.name}:{block.line}: {block.info}", flush=True)
        if block.not_run:
            continue
        title = TITLE.search(block.info)
        if title:
            Path(title[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(title[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), namespace)
        elif block.language in ("bash", "console"):
            for command in commands(block):
                run_command(command)


def run_command(command: str) -> None:
    """Run one command line as a shell would, with this interpreter's ``foretaste``."""
    for known, more in SHORTENED.items():
        command = re.sub(rf"^{known}(?= |$)", f"{known} {more}", command)
    print(f"$ {command}", flush=True)
    ours = f'foretaste() {{ "{sys.executable}" -m foretaste.cli.main "$@"; }}'
    script = f"set -euo pipefail\n{ours}\n{command}"
    done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {command}")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__page__", __file__, str(page)],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_has_a_reason(page: Path) -> None:
    for block in blocks(page):
        if block.not_run:
            known = [words for name, words in NOT_RUN if name == page.name and words in block.text]
            assert known, f"{page.name}:{block.line}: no-run without a reason in NOT_RUN."


def test_every_reason_is_still_needed() -> None:
    marked = [(page.name, block.text) for page in PAGES for block in blocks(page) if block.not_run]
    for name, words in NOT_RUN:
        assert any(name == page and words in text for page, text in marked), f"{name}: {words}"


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
