"""Export a run's best network."""

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.config.command_line import run_script, without_garbage_collection
from experiments.config.installation import CHECKOUT
from experiments.config.options import option, read


@dataclass
class Export:
    """Export a network: python scripts/export.py run=<run directory> format=onnx output=model.onnx.

    state_dict: the weights alone, as torch.save(net.state_dict(), "model.pth") writes them.
    onnx: images (batch, channels, height, width), floats in [0, 1], to logits; normalisation included.
    """

    format: str = option("state_dict, onnx")
    output: str | None = option("the file to write, if not model.pth or model.onnx", None)
    run: str | None = option("a run directory, for its best checkpoint", None)
    checkpoint: str | None = option("a checkpoint, instead of a run", None)
    trust: list[str] = option("packages of your own that the checkpoint may name", [])


def main() -> None:
    options = read(Export)
    with without_garbage_collection():
        from experiments.inference.export import export
        from experiments.runs.environment import code_change_warning
        from experiments.runs.run_directory import checkpoint_of

    checkpoint = checkpoint_of(options.run, options.checkpoint)
    if options.run and (note := code_change_warning(Path(options.run), CHECKOUT or Path.cwd())):
        print(note, file=sys.stderr)
    print(f"written: {export(checkpoint, options.format, options.output, options.trust)}")


if __name__ == "__main__":
    run_script(main)
