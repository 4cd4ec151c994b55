"""The package as a whole: what importing costs, what is public, what no file may contain."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import foretaste

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "foretaste"
HEAVY = {"lightning_fabric", "numpy", "pandas", "polars", "pyarrow", "pydantic", "scipy", "torch"}
PICKLERS = {"cloudpickle", "dill", "joblib", "pickle", "shelve"}
HELP = ["-m", "foretaste.cli.main", "--help"]


def seconds(*arguments: str) -> float:
    """The best of five runs of the interpreter: the one that the machine disturbed least."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return min(times)


def imported(*arguments: str) -> set[str]:
    """The top-level packages that a run of the interpreter imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_importing_costs_less_than_half_a_second() -> None:
    assert seconds("-c", "import foretaste") - seconds("-c", "pass") < 0.5


def test_importing_loads_nothing_heavy() -> None:
    assert not imported("-c", "import foretaste") & HEAVY


def test_reading_a_log_needs_no_torch() -> None:
    code = "import foretaste; foretaste.read_interactions; foretaste.split; foretaste.Dataset"
    assert not imported("-c", code) & {"torch", "lightning_fabric"}


def test_help_comes_at_once() -> None:
    # Half a second is the aim on an idle machine; the other half is for a busy one.
    assert seconds(*HELP) < 1.0


def test_help_loads_nothing_heavy() -> None:
    assert not imported(*HELP) & HEAVY


@pytest.mark.parametrize("name", [name for name in foretaste.__all__ if name != "__version__"])
def test_public_name_is_there_and_documented(name: str) -> None:
    assert name in dir(foretaste)
    assert getattr(foretaste, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recomender'"):
        _ = foretaste.recomender


def test_the_version_is_that_of_the_installation() -> None:
    from importlib.metadata import version

    assert foretaste.__version__ == version("foretaste")


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_file_is_longer_than_a_subject() -> None:
    files = python_files("src", "tests", "benchmarks", "examples")
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {str(path): length for path, length in lengths.items() if length > 400}


@pytest.mark.parametrize(
    "path", python_files("src"), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_nothing_is_pickled(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {name.name.partition(".")[0] for name in node.names} & PICKLERS
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in PICKLERS
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
