"""Classify images with a run's best network."""

import sys
from dataclasses import dataclass

from experiments.config.command_line import run_script, without_garbage_collection
from experiments.config.options import option, read

SOME_FAILED = 3


@dataclass
class Predict:
    """Classify images: python scripts/predict.py run=<run directory> images=<file, folder or glob> output=<csv>.

    Images of any size and mode are turned as EXIF says, laid on white where transparent, brought to grey or RGB and
    scaled to cover the network's size and cut around their centre. The CSV holds a line a file: file, predicted,
    probability, probability/<class> for every class, and error. Exit code 0: all images were read; 3: some were not,
    and their lines say why; 2: none could be tried.
    """

    images: str = option("a file, a folder (with its sub-folders), or a quoted glob")
    output: str = option("the CSV file to write")
    run: str | None = option("a run directory, for its best checkpoint", None)
    checkpoint: str | None = option("a checkpoint, instead of a run", None)
    invert: bool = option("true for dark strokes on light ground, as on paper", False)
    accelerator: str = option("auto, cpu, gpu, mps", "auto")
    trust: list[str] = option("packages of your own that the checkpoint may name", [])


def main() -> None:
    options = read(Predict)
    with without_garbage_collection():
        from experiments.inference.predict import predict_files
        from experiments.runs.run_directory import checkpoint_of

    path = checkpoint_of(options.run, options.checkpoint)
    done, failed = predict_files(
        path, options.images, options.output, options.invert, options.accelerator, options.trust
    )
    print(f"{done:,} images classified: {options.output}")
    if failed:
        print(f"{failed:,} could not be read: the column error says why", file=sys.stderr)
        sys.exit(SOME_FAILED)


if __name__ == "__main__":
    run_script(main)
