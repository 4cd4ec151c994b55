"""The benchmark of a step: what it calls the step's products are those that the step makes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def latency(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("latency")


@pytest.mark.parametrize(
    ("name", "count"), [("full", 3 + 3), ("one pool", 4 + 4), ("seven levels", 3 + 2 + 6)]
)
def test_products_are_those_of_the_step(latency, monkeypatch, name: str, count: int):
    multiply, seen = np.matmul, []

    def recorded(one: np.ndarray, other: np.ndarray, **options: Any) -> np.ndarray:
        seen.append((one, other))
        return multiply(one, other, **options)

    monkeypatch.setattr(np, "matmul", recorded)
    ways = latency.ways(16, 30)
    shapes = []
    for way in (f"step, {name}", f"products, {name}"):
        seen.clear()
        ways[way]()
        shapes.append(sorted((one.shape, other.shape) for one, other in seen))
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == count
    assert all(part.flags.c_contiguous for pair in seen for part in pair)


@pytest.mark.parametrize("name", ["one pool", "seven levels"])
def test_rebuilt_keys_give_what_pool_arithmetic_gives(latency, name: str):
    ways = latency.ways(16, 30)
    one, other = (ways[f"step, {name}{more}"]()[0] for more in ("", ", keys rebuilt"))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
