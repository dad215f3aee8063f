"""What a table was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from onca.engine import in_use

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")
PACKAGES = (
    "onca", "torch", "torchvision", "numpy", "lightly", "pytorch-metric-learning", "faiss-cpu", "kornia", "kornia_rs",
    "pillow",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Processor, threads, the engine that serves what is ours, and versions."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in _cpuinfo("flags").split()],
        "threads": torch.get_num_threads(),
        "engine": in_use(),
        "torch capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "compiler": compiler(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def load() -> float:
    """Programs that wanted to run, averaged over the last minute: of ours, one."""
    return os.getloadavg()[0]


def compiler() -> str | None:
    """What torch.compile would call for C++, and its version; None where there is none."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        return None
    return subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo, "" where that is not to be had."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")
