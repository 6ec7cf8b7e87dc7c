"""What this machine has now: CPU cores, free memory, GPUs, free disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine."""

    name: str
    """Name of the GPU, as the driver reports it."""
    free: int
    """Memory of the GPU that is free now, in bytes."""


@dataclass(frozen=True)
class Machine:
    """What this machine has to offer now."""

    cpus: int
    """Number of CPU cores of this machine."""
    memory: int
    """Free main memory, in bytes."""
    gpus: tuple[Gpu, ...]
    """The GPUs that the NVIDIA driver lists."""
    disk: int
    """Free disk space of the hub's cache, in bytes."""


def look() -> Machine:
    """What this machine has now: CPUs, free memory (of its container, if that has a limit), GPUs, disk."""
    memory = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
        memory = min(memory, limit - int(Path("/sys/fs/cgroup/memory.current").read_text("ascii")))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.exists())
    return Machine(os.cpu_count() or 1, memory, _gpus(), shutil.disk_usage(folder).free)


def _gpus() -> tuple[Gpu, ...]:
    command = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        rows = [line.rsplit(",", 1) for line in listed.split("\n") if "," in line]
        return tuple(Gpu(name.strip(), int(free) * 2**20) for name, free in rows)
    except (OSError, ValueError, subprocess.SubprocessError):  # no NVIDIA driver, or one that does not answer
        return ()
