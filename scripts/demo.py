"""Draw for a run's network, or drop pictures, in a page on this machine."""

import os
import signal
import sys
import time
import webbrowser
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import NoReturn

from experiments.config.command_line import run_script, without_garbage_collection
from experiments.config.options import option, read
from experiments.config.requirements import unfit_gradio
from experiments.errors import Stopped, UserError

HAS_SCREEN = sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
# nothing is reported, and the page's own address is asked of no proxy
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "NO_PROXY": "*", "no_proxy": "*"}


@dataclass
class Demo:
    """Open a page to draw on or to drop pictures on: python scripts/demo.py run=<run directory>.

    The probabilities move as one draws, beside the image as the network saw it. Of several runs, each has a column.
    The page is served to this machine alone (127.0.0.1), until Ctrl-C; it sends nothing elsewhere.
    """

    run: list[str] = option("a run directory, several side by side: [<a>,<b>], or a multirun's directory", [])
    checkpoint: str | None = option("a checkpoint, instead of a run", None)
    port: int | None = option("where to listen; without it, the first free port from 7860", None)
    open: bool = option("open the page in the browser, where there is a screen", True)
    accelerator: str = option("auto, cpu, gpu, mps", "auto")
    trust: list[str] = option("packages of your own that the checkpoint may name", [])


def stopped(number: int, _: object) -> NoReturn:
    raise Stopped(number)


def main() -> None:
    options = read(Demo)
    if mistake := unfit_gradio():
        raise UserError(mistake)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
    try:
        with TemporaryDirectory(prefix="experiments-demo-") as folder:
            os.environ.update(GRADIO_TEMP_DIR=folder, **QUIET)  # before gradio is imported
            serve(options)
    except Stopped as ending:
        sys.exit(ending.exit_code)


def serve(options: Demo) -> NoReturn:
    with without_garbage_collection():
        from experiments.runs.run_directory import checkpoints_of

        paths = checkpoints_of(options.run, options.checkpoint)
        print("loading ...", file=sys.stderr, flush=True)
        from experiments.inference.demo import load_networks, serving

    with serving(load_networks(paths, options.accelerator, options.trust), options.port) as url:
        print(f"{url} (Ctrl-C ends it)", flush=True)
        if options.open and HAS_SCREEN:
            webbrowser.open(url)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    run_script(main)
