"""What a start costs: python benchmarks/start.py [json=<path>].

From the command to the first training step, against importing torch, torchvision and lightning and building a
Trainer; and --help against a bare Hydra application on the same configs. Every start is a process of its own; they
take turns.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import compare

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "scripts" / "train.py"
IMPORTS = "import os, torch, torchvision, lightning; lightning.Trainer(accelerator='cpu', logger=False); os._exit(0)"
BARE = f"""
import hydra
from experiments.config.hydra_internals import MAIN_OPTIONS
from experiments.config.resolvers import register_resolvers
register_resolvers()
hydra.main(config_path={str(HERE.parent / "conf")!r}, config_name="train", **MAIN_OPTIONS)(lambda config: None)()
"""


def seconds(*command: str) -> float:
    """How long a process takes."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, check=True)
        return time.perf_counter() - started


if __name__ == "__main__":
    compare(
        "to the first training step",
        {
            "imports and Trainer": lambda: seconds("-c", IMPORTS),
            "train.py": lambda: seconds(str(TRAIN), "+callbacks.first._target_=first_step.FirstStep"),
        },
    )
    compare(
        "--help",
        {
            "bare Hydra": lambda: seconds("-c", BARE, "--help"),
            "train.py": lambda: seconds(str(TRAIN), "--help"),
        },
    )
