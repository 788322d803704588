"""Which devices are here, what keeps torch from them, and what a run uses."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator

from experiments.errors import UserError

ACCELERATORS = {"cpu": CPUAccelerator, "cuda": CUDAAccelerator, "mps": MPSAccelerator}


def check_accelerator(name: str) -> None:
    """Raise UserError, naming the accelerators present, if ``name`` is an accelerator that is not."""
    present = [known for known, accelerator in ACCELERATORS.items() if accelerator.is_available()]
    usable = {"auto", *present, *(["gpu"] if len(present) > 1 else [])}
    if name in (*ACCELERATORS, "gpu") and name not in usable:
        why = f": {_why_no_cuda()}" if name == "cuda" or (name == "gpu" and sys.platform != "darwin") else ""
        raise UserError(
            f"trainer.accelerator={name} is not available on this machine{why}; present: {', '.join(present)}. "
            "trainer.accelerator=auto takes the best of them."
        )


def _why_no_cuda() -> str:
    """What keeps torch from a GPU: its build, the driver, or what CUDA_VISIBLE_DEVICES hides."""
    if built := cpu_build():
        return built
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0].rstrip(".")
    else:
        said = "CUDA finds no device"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return said if hidden is None else f"{said} with CUDA_VISIBLE_DEVICES={hidden!r}"


@contextmanager
def counting_gpus(devices: object) -> Iterator[None]:
    """Say how many GPUs there are where Lightning is asked for more."""
    try:
        yield
    except UserError as error:
        if "your machine only has" not in str(error):
            raise
        count = torch.cuda.device_count()
        raise UserError(
            f"trainer.devices={devices}: this machine has {count} GPU{'s' * (count != 1)}; "
            f"trainer.devices={count} or auto takes what is there"
        ) from error


def device_name(trainer: Trainer) -> str:
    """The device that a run computes on, and the GPU's name where it is one."""
    device = trainer.strategy.root_device
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def cpu_build() -> str | None:
    """What to say of a torch that has no GPU code at all; None for any other."""
    if torch.backends.cuda.is_built() or torch.backends.mps.is_built():
        return None
    return f"torch {torch.__version__} is a build for CPUs: https://pytorch.org/get-started has those for GPUs"


def is_slow_in_bf16(device: torch.device) -> bool:
    """Whether a device imitates bf16, at a multiple of what 32 bits cost."""
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return device.type == "cpu" and known is not None and not known()
