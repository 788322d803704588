"""Make a network faster: compile it, where there is what that needs, and lay its weights out for CPUs."""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

import torch
from lightning import LightningModule
from torch import nn

from experiments.errors import UserError


def missing_for_compile() -> str | None:
    """What torch.compile needs and is not here, and how to get it."""
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = (shlex.split(os.environ.get("CXX", "")) or [default])[0]
    if shutil.which(compiler) is None:
        return f"a C++ compiler, and there is no {compiler}: install one, name yours in the environment variable CXX"
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        return f"Python's headers, and there is no {header}: install them (on Debian python3-dev)"
    return None


def compile_in_place(module: LightningModule) -> None:
    """Let torch.compile the network (all of a module without one) at its first batch; names of weights stay.

    Raises:
        UserError: if there is nothing to compile with, which torch would say in the middle of that batch.
    """
    if missing := missing_for_compile():
        raise UserError(f"compile=true needs {missing}, or set compile=false")
    getattr(module, "net", module).compile()


def use_channels_last(module: LightningModule, asked: bool | str, device: torch.device) -> None:
    """Let 2-d convolutions work on images whose channels lie together, which CPUs do faster; ``auto`` is there alone.

    The weights are the same to the last digits: sums are taken in another order.

    Raises:
        UserError: if that was asked for where oneDNN would write beyond its memory; ``auto`` leaves it out there.
    """
    if not (asked is True or (asked == "auto" and device.type == "cpu")):
        return
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    if device.type == "cpu" and any(_overruns_memory(part) for part in convolutions):
        if asked is True:
            raise UserError(
                "channels_last=true: on CPUs, convolutions of 1 by 1 with a stride, and with fewer than 16 channels, "
                "get wrong gradients from it (oneDNN issue 6035). Use more channels, or leave it out"
            )
        return
    for part in convolutions:
        part.to(memory_format=torch.channels_last)


def _overruns_memory(convolution: nn.Conv2d) -> bool:
    """Whether oneDNN (3.12) fails at its gradient: with fewer than 8 channels, or 16 where there is AVX-512."""
    return convolution.kernel_size == (1, 1) and max(convolution.stride) > 1 and convolution.in_channels < 16
