"""What an installation has and how fast its machine is."""

from __future__ import annotations

import importlib.util
import shutil
import time
from typing import Any

from foretaste.experiments.machine import machine, versions

EXTRAS = {
    "als": "implicit",
    "ann": "faiss",
    "federated": "flwr",
    "llm": "gguf",
    "serve": "fastapi",
    "text": "sentence_transformers",
    "tune": "optuna",
}


def examine() -> dict[str, Any]:
    """Versions, extras that are installed or missing, and a short measurement of the machine."""
    free = shutil.disk_usage(".").free
    return {
        "versions": versions(),
        "extras": {name: importlib.util.find_spec(of) is not None for name, of in EXTRAS.items()},
        "machine": machine()
        | {
            "free_disk_bytes": free,
            "accelerator": _accelerator(),
            "matmul_gflops": round(matmul_rate() / 1e9, 1),
        },
    }


def matmul_rate(size: int = 1536, seconds: float = 0.5) -> float:
    """Operations a second of a float32 matrix product with all threads, the best of several."""
    import torch

    left, right = torch.ones(size, size), torch.ones(size, size)
    out = torch.empty(size, size)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if torch.backends.mps.is_available() else "none"
