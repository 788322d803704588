"""Compile a network, where there is what that needs."""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from lightning import LightningModule

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
