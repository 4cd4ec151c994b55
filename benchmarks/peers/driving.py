"""Driving workers from a benchmark: one process for each library, one at work at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
LIBRARIES = ("foretaste", "rectools", "rectools, helped", "recbole", "recbole, helped")

# Large buffers of the peers go back to the system after every step and are faulted in again.
# Kept instead, they train faster and hold more memory. A peer is measured as it comes and, as
# "NAME, helped", with its buffers kept; Foretaste only as it comes.
HELPED = ", helped"
KEEP_BUFFERS = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "1073741824",
}


class Worker:
    """A library's worker process; calling it sends a command and waits for the answer."""

    def __init__(self, library: str, peers: Path, log: Path) -> None:
        """Start the worker in the library's own environment."""
        name = library.removesuffix(HELPED)
        python = sys.executable if name == "foretaste" else str(peers / name / "bin" / "python")
        self.library, self.helped = library, library.endswith(HELPED)
        self.process = subprocess.Popen(
            [python, str(HERE / f"{name}_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("a"),
            text=True,
            env=os.environ | (KEEP_BUFFERS if self.helped else {}),
        )

    def load(self, data: Path, config: dict[str, Any]) -> dict[str, Any]:
        """The command "load"; a helped RecBole also has torch's anomaly detection, which its
        import switches on, switched off again."""
        own = {"anomaly": not self.helped} if self.library.startswith("recbole") else {}
        return self("load", data=str(data.resolve()), config=config | own)

    def __call__(self, command: str, **options: Any) -> dict[str, Any]:
        """The answer to one command; RuntimeError when the worker reports an error or is gone."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"cmd": command, **options}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.library}: the worker ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.library}: {answer['traceback']}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def write_table(path: Path, rows: Sequence[dict[str, Any]], about: str) -> None:
    """Rows of equal keys as a Markdown table under a line that says how they were made."""
    columns = list(rows[0])
    lines = [about, "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_text(row[column]) for column in columns) + " |" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table that ``write_table`` wrote; none where there is none."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.0f}"
    return str(value)
