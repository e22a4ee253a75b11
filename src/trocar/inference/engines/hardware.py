"""What the machine can do, asked without importing torch: a second of waiting, for a question."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from pathlib import Path


@functools.cache
def has_gpu() -> bool:
    """Whether torch would find a GPU. Only where the driver shows one is torch imported, and asked itself."""
    if not (_cuda_devices() or (sys.platform == "darwin" and platform.machine() == "arm64")):
        return False
    from trocar.devices import choose_device

    return choose_device("auto").type != "cpu"


def _cuda_devices() -> int:
    """Devices of NVIDIA's driver; 0 where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return 0
    return count.value if found else 0


@functools.cache
def cpu_flags() -> frozenset[str] | None:
    """Instruction sets of the CPU as Linux names them; None where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), None)
    return None if found is None else frozenset(found.split())


def lacks_int8() -> bool:
    """Whether the CPU is known to have no instructions for int8 dot products: int8 models run, but gain little."""
    flags = cpu_flags()
    return flags is not None and not flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def has_bf16() -> bool:
    """Whether the CPU is known to multiply in bf16."""
    return bool((cpu_flags() or frozenset()) & {"avx512_bf16", "amx_bf16", "bf16"})
