"""What a run ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shlex
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("foretaste", "numpy", "polars", "scipy", "torch", "lightning-fabric")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores and memory in bytes."""
    import psutil

    return {
        "system": platform.system(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main_process() -> bool:
    """False in the helper processes of a training on several devices, which write nothing."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


def this_command() -> str:
    """How this process was called, as a shell takes it."""
    name = Path(sys.argv[0]).name
    called = "foretaste" if name == "__main__.py" else name  # python -m foretaste
    return shlex.join([called, *sys.argv[1:]])


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
