"""Predict what images show with a run's best network."""

import sys
from dataclasses import dataclass

from experiments.config.command_line import run_script, without_garbage_collection
from experiments.config.options import option, read
from experiments.errors import UserError

SOME_FAILED = 3
INVERT = {"auto": "auto", "true": True, "false": False}


@dataclass
class Predict:
    """Predict images: python scripts/predict.py run=<run directory> images=<file, folder or glob>.

    Images of any size and mode are turned as EXIF says, laid on white where transparent, brought to grey or RGB and
    scaled to cover the network's size and cut around their centre. Without output=, the answers are shown. The CSV
    holds a line a file: file, predicted, probability, probability/<class> for every class, error and inverted. Other
    tasks than classes have columns of their own: labels, values, or masks, which are written as PNG files beside it.
    Exit code 0: all images were read; 3: some were not,
    and their lines say why; 2: none could be tried.
    """

    images: str = option("a file, a folder (with its sub-folders), or a quoted glob")
    output: str | None = option("a CSV file to write", None)
    run: list[str] = option("a run directory, several as an ensemble: [<a>,<b>], or a multirun's directory", [])
    checkpoint: str | None = option("a checkpoint, instead of a run", None)
    invert: str = option(
        "true turns dark strokes on a light background, as on paper; auto where it is so; false", "auto"
    )
    accelerator: str = option("auto, cpu, gpu, mps", "auto")
    trust: list[str] = option("packages of your own that the checkpoint may name", [])


def main() -> None:
    options = read(Predict)
    with without_garbage_collection():
        from experiments.inference.answers import write_answers
        from experiments.inference.predict import predict_files
        from experiments.runs.run_directory import checkpoints_of

    paths = checkpoints_of(options.run, options.checkpoint)
    if options.invert not in INVERT:
        raise UserError(f"invert={options.invert} must be one of {', '.join(INVERT)}")
    answers = predict_files(paths, options.images, INVERT[options.invert], options.accelerator, options.trust)
    if options.output:
        write_answers(answers, options.output)
    else:
        for file, answer in answers.items():
            print(f"{file}  {answer}")
    done = [answer for answer in answers.values() if not isinstance(answer, str)]
    print(f"{len(done):,} images predicted{f': {options.output}' if options.output else ''}")
    if options.invert == "auto" and (turned := sum(answer.inverted for answer in done)):
        print(
            f"{turned:,} inverted, since their background is not that of the training images (invert=false: as they are)"
        )
    if len(done) < len(answers):
        print(f"{len(answers) - len(done):,} could not be read: error says why", file=sys.stderr)
        sys.exit(SOME_FAILED)


if __name__ == "__main__":
    run_script(main)
