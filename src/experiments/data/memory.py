"""The process's memory: kept from step to step, given back after large work, and how much of it is free."""

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


def keep_freed_memory() -> None:
    """Let the process keep the memory of tensors that are freed, for those of the next step.

    glibc hands large blocks back to the system and asks for them anew, every step: the kernel clears each page again,
    which takes up to half of a convolutional network's time on CPUs (``benchmarks/training.py``). Elsewhere than on
    Linux with glibc, nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, -1)  # never shrink the heap
        libc.mallopt(mmap_max, 0)  # and put large blocks into it too


def release_freed_memory() -> None:
    """Give freed memory back to the system, where the process keeps it for its next steps (``keep_freed_memory``)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without making Python wait for what a GPU is at."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_memory() -> int | None:
    """Bytes that this process may still take, also within a container's limit; None where nobody says.

    What it keeps for its next steps is free, too, and given back.
    """
    release_freed_memory()
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        with suppress(AttributeError, OSError, ValueError):  # not what is free, but what there is
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    try:
        files = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["file"]
        used = int((group / "memory.current").read_text()) - int(files)  # the files' cache gives way
        found.append(int((group / "memory.max").read_text()) - used)
    except (OSError, KeyError, ValueError):  # no container, or one without a limit
        pass
    return min(found, default=None)


def format_bytes(size: int) -> str:
    """A number of bytes in the unit that people would choose."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.3g} {units[0]}"
