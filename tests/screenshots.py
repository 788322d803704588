"""The documents' screenshots: python -m tests.screenshots [data overrides, such as data=mnist data.root=...].

Trains three networks, opens TensorBoard, a report and the demo of two of them in headless Chromium, draws in the
latter, and writes docs/tensorboard.png, docs/report.png and docs/demo.png.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import FIND_ALL, TWO, Browser, browser, free_port, get, started, tensorboard, wait_for

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 200_000  # bytes


def save(window: Browser, name: str) -> None:
    """In so many colours as fit the size."""
    picture = Image.open(io.BytesIO(window.screenshot())).convert("RGB")
    for colors in (256, 128, 64, 32):
        buffer = io.BytesIO()
        picture.quantize(colors, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() < LARGEST:
            break
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / name).write_bytes(buffer.getvalue())
    print(f"docs/{name}: {picture.width} × {picture.height}, {buffer.tell():,} bytes")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", "model=mlp,cnn,rnn"]
        command += ["trainer.log_every_n_steps=10", f"hydra.sweep.dir={folder}/digits", *sys.argv[1:]]
        subprocess.run(command, check=True, cwd=folder)
        with tensorboard(folder / "digits", folder / "tensorboard.log") as url:
            wait_for(lambda: len(get(f"{url}data/runs")) == 3)
            with browser(folder / "driver.log", width=1360, height=860) as window:
                window.open(f"{url}?darkMode=false#custom_scalars")
                script = FIND_ALL + "return found.length;"
                wait_for(lambda: window.run(script, "vz-line-chart2, tf-line-chart-data-loader") > 2)
                window.run("return new Promise(done => setTimeout(done, 4000));")  # charts draw themselves slowly
                save(window, "tensorboard.png")
        with browser(folder / "driver.log", width=1180, height=1500) as window:
            window.open((folder / "digits" / "0" / "report.html").as_uri())
            save(window, "report.png")
        address = f"http://127.0.0.1:{(port := free_port())}/"
        command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "run=[digits/0,digits/1]", "open=false"]
        with (
            contextlib.chdir(folder),
            started([*command, f"port={port}"], address, folder / "demo.log"),
            browser(folder / "driver.log", width=1060, height=1120) as window,
        ):
            window.open(address)
            wait_for(lambda: window.run("return document.querySelector('canvas')"))
            window.drag("canvas", TWO)
            window.run("return new Promise(done => setTimeout(done, 2000));")  # bars grow slowly
            save(window, "demo.png")


if __name__ == "__main__":
    main()
