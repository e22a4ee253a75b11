"""Facts about the machine and the process, for figures that mean nothing without them. Without torch."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from trocar import __version__
from trocar.cores import usable_cores
from trocar.inference.engines.hardware import cpu_flags

TELLING_FLAGS: Final = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
    "bf16",
)
PACKAGES: Final = ("openvino", "onnxruntime", "torch", "numpy", "opencv-python-headless", "opencv-python", "av")


def machine() -> dict[str, str | int | list[str]]:
    """CPU, cores, instruction sets that matter to networks, and the versions of the libraries that do the work."""
    facts: dict[str, str | int | list[str]] = {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "flags": [flag for flag in TELLING_FLAGS if flag in (cpu_flags() or ())],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "trocar": __version__,
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def memory_mb() -> float | None:
    """Memory that this process holds now; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_memory_mb() -> float | None:
    """The most memory that this process ever held; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
