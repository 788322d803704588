"""Find a learning rate for a network and a data set, in a hundred steps."""

import dataclasses
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass

from experiments.config.command_line import run_script, without_garbage_collection
from experiments.config.compose import compose
from experiments.config.installation import command
from experiments.config.options import option, read


@dataclass
class FindLR:
    """Find a learning rate: python scripts/find_lr.py model=mlp optimizer=sgd [what train.py takes]."""

    min_lr: float = option("the first learning rate", 1e-6)
    max_lr: float = option("the last learning rate", 1.0)
    steps: int = option("how many to try", 100)
    picture: str = option("where to draw the loss over the learning rate", "find_lr.png")


def main() -> None:
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # no bar where nobody watches
    own = {field.name for field in dataclasses.fields(FindLR)} | {"-h", "--help"}
    overrides = [argument for argument in sys.argv[1:] if argument.partition("=")[0] not in own]
    options = read(FindLR, [argument for argument in sys.argv[1:] if argument not in overrides])
    with tempfile.TemporaryDirectory() as folder:
        config = compose(*overrides, f"run_dir={folder}")
        with without_garbage_collection():
            from experiments.sweeps.summary.pictures import are_installed
            from experiments.training.find_lr import find_lr

        picture = options.picture if are_installed("matplotlib") else None
        fastest, lowest = find_lr(config, options.min_lr, options.max_lr, options.steps, picture)
    print(f"the loss falls fastest at a learning rate of {fastest:.2g}, and is lowest at {lowest:.2g}")
    print(f"a tenth of the latter, {lowest / 10:.2g}, is a good start, and the peak of a schedule that warms up")
    if config["param_groups"]:
        print("param_groups were left out: all parameters had one rate")
    print("no picture: it needs matplotlib (pip install matplotlib)" if picture is None else f"picture: {picture}")
    print("next:", command("train"), shlex.join([*overrides, f"optimizer.lr={lowest / 10:.2g}"]))


if __name__ == "__main__":
    run_script(main)
