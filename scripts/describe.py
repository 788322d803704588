"""Describe a network without training it."""

import sys

from experiments.config.command_line import run_script, without_garbage_collection
from experiments.config.compose import compose
from experiments.config.installation import as_started
from experiments.errors import UserError

HELP = """\
Describe a network without training it: python scripts/describe.py model=mlp data=digits

Structure, every parameter, multiply-adds and memory; no data file is read. Takes the groups and keys of train.py
(python scripts/train.py --help lists them), and
  input        channels and sides of an image, if not the data set's: model.net.spatial_dims=1 input=[1,28]"""


def main() -> None:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(as_started(HELP))
        return
    inputs = [argument for argument in arguments if argument.startswith("input=")]
    sizes = inputs[-1].removeprefix("input=").strip("[]()").replace(",", " ").split() if inputs else None
    if sizes and not all(size.isdecimal() for size in sizes):
        raise UserError(f"{inputs[-1]} must be whole numbers: channels, then sides, such as input=[1,28]")
    config = compose(*(argument for argument in arguments if argument not in inputs))
    with without_garbage_collection():
        from experiments.inference.describe import describe, show

    show(describe(config, None if sizes is None else [int(size) for size in sizes]))


if __name__ == "__main__":
    run_script(main)
