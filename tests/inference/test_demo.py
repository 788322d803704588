"""The page to draw on: in a real browser, with a real mouse, on networks that were really trained."""

import base64
import importlib.util
import io
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import experiments
from experiments.data import Digits
from experiments.inference.drawings import CANVAS_SIDE, centred, predict_picture
from experiments.runs.run_directory import best_checkpoint
from experiments.training.run import train
from tests.browser import CHROMIUM, DIRECT, DRIVER, TWO, browser, free_port, wait_for
from tests.conftest import ROOT

needs_gradio = pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="gradio is not installed")
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium or its driver is not installed")
SHORT = ("trainer.accelerator=cpu", "callbacks=minimal", "logger=none")
DIGITS_MEAN, MNIST_MEAN = Digits.mean, (0.1307,)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The tutorial's CNN on the embedded digits, three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "cnn-digits" / "first"
    train(experiments.compose("model=cnn", "optimizer.lr=0.005", "trainer.max_epochs=3", *SHORT, f"run_dir={folder}"))
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A network for photographs, RGB, of two classes: what is red, and what is blue."""
    folder = tmp_path_factory.mktemp("colours")
    for name, colour in {"red": (200, 40, 40), "blue": (40, 60, 200)}.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(noisy(colour, number)).save(folder / "photos" / name / f"{number}.png")
    data = ("data=image_folder", f"data.root={folder}/photos", "data.image_size=16")
    run = folder / "runs" / "mlp-photos" / "first"
    train(experiments.compose("model=mlp", *data, "trainer.max_epochs=8", *SHORT, f"run_dir={run}"))
    return run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The module, which makes gradio's folder of temporary files where it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        from experiments.inference import demo

        yield demo


def noisy(colour, seed):
    noise = np.random.default_rng(seed).normal(0, 20, (30, 40, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def drawing_of(image, side, corner):
    """A canvas on which a digit (1, H, W), light on dark, is drawn in black, ``side`` pixels high, at a corner."""
    ink = Image.fromarray(image[0].numpy()).resize((side, side), Image.Resampling.BICUBIC)
    canvas = Image.new("RGBA", (CANVAS_SIDE, CANVAS_SIDE), "white")
    canvas.paste("black", corner, ink.point(lambda value: value if value > 60 else 0))
    return canvas


@pytest.mark.parametrize(("mean", "filled"), [(MNIST_MEAN, 20), (DIGITS_MEAN, 28), ((1 - 0.1307,), 20)])
def test_a_drawing_is_brought_to_the_size_and_place_of_the_training_images(mean, filled):
    drawing = torch.full((1, CANVAS_SIDE, CANVAS_SIDE), 255, dtype=torch.uint8)
    drawing[:, 10:110, 150:190] = 0  # a bar of 100 by 40
    found = centred(drawing, (28, 28), mean)
    height, width = found.shape[1:]
    assert height == width == round(100 * 28 / filled)
    rows, columns = (found[0] == 0).nonzero(as_tuple=True)
    assert len(rows) == 100 * 40  # nothing of it is cut off
    assert rows.double().mean().item() == pytest.approx((height - 1) / 2, abs=1)
    assert columns.double().mean().item() == pytest.approx((width - 1) / 2, abs=1)
    wide = centred(drawing, (10, 40), mean)
    assert wide.shape[2] / wide.shape[1] == pytest.approx(4, abs=0.1)
    assert (wide == 0).sum() == 100 * 40
    empty = torch.full_like(drawing, 255)
    assert centred(empty, (28, 28), mean).equal(empty)


def test_small_drawings_in_a_corner_are_read_as_the_images_that_they_are_of(run):
    net = experiments.load(best_checkpoint(run))
    images, labels = (values[:60] for values in Digits().read("test"))

    def share_of_right_answers(**options):
        drawings = [png(drawing_of(image, 150, (15, 110))) for image in images]
        answers = [predict_picture(net, drawing, drawn=True, **options)[0] for drawing in drawings]
        assert all(answer.inverted for answer in answers)  # black on white, whatever fills the image
        return np.mean([int(answer.predicted) == label for answer, label in zip(answers, labels, strict=True)])

    assert share_of_right_answers() > 0.9
    assert share_of_right_answers(centre=False) < 0.5  # which is why they are centred


def test_a_picture_gets_the_answer_that_predict_gives(run):
    net = experiments.load(best_checkpoint(run))
    images, _ = Digits().read("test")
    for invert, image in [
        ("auto", images[0]),
        ("auto", 255 - images[0]),
        (True, images[0]),
        (False, 255 - images[0]),
    ]:
        picture = Image.fromarray(image[0].numpy())
        (truth,) = experiments.predict(net, picture, invert)
        answer, network_input = predict_picture(net, png(picture), invert=invert)
        assert answer == truth
        assert network_input.equal(255 - image if truth.inverted else image)
    for content, words in [
        (b"no image", "not an image of a known format"),
        (png(Image.new("1", (10_000, 9_000))), "decompression bomb|pixels are more than"),
    ]:
        with pytest.raises(ValueError, match=words):
            predict_picture(net, content)


def listening():
    """The addresses at which this process listens, as hexadecimal numbers; on Linux."""
    held = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and path.exists()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in held}


def shown(window):
    """What each network says: the most probable class, from the page."""
    return window.run(
        "return [...document.querySelectorAll('[data-testid=label-output-value]')].map(e => e.innerText)"
    )


CONNECTED = []  # what this process connected to; a hook cannot be taken away again
sys.addaudithook(lambda event, given: CONNECTED.append(given[1]) if event == "socket.connect" else None)


@needs_gradio
@needs_browser
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what listens is read from /proc")
def test_what_is_drawn_and_dropped_is_answered_and_nothing_leaves_the_machine(demo, run, colours, tmp_path):
    networks = demo.load_networks([best_checkpoint(run), best_checkpoint(colours)], "cpu")
    before, at = listening(), len(CONNECTED)
    with demo.serving(networks) as url, browser(tmp_path / "driver.log") as window:
        assert len(listening() - before) == 1
        assert (listening() - before).pop().startswith("0100007F:")  # 127.0.0.1
        window.open(url)
        wait_for(lambda: window.run("return document.querySelectorAll('canvas, h3').length == 3"))
        text = window.run("return document.body.innerText")
        for words in ("cnn-digits/first", "mlp-photos/first", "28 × 28", "RGB images of 16 × 16", "test accuracy 9"):
            assert words in text, words

        window.drag("canvas", TWO)
        wait_for(lambda: shown(window)[:1] == ["2"])
        assert shown(window)[1] in ("red", "blue")
        asked = window.requests()
        assert len([address for address in asked if address.endswith("/queue/join?")]) > 1  # in one stroke
        said = "Inverted, since its background was not that of the training images"
        assert window.run("return document.body.innerText").count(said) == 1  # photographs are left as they are
        window.run("document.querySelector('input[type=radio][value=false]').click()")
        wait_for(lambda: said not in window.run("return document.body.innerText"))
        window.run("document.querySelector('canvas ~ p button').click()")
        wait_for(lambda: shown(window) == [])

        drop = """
        const bytes = Uint8Array.from(atob(arguments[0]), (one) => one.charCodeAt(0)), held = new DataTransfer();
        held.items.add(new File([bytes], 'dropped.png'));
        document.querySelector('canvas').dispatchEvent(new DragEvent('drop', {dataTransfer: held, bubbles: true}));"""
        for colour, name in [((210, 50, 30), "red"), ((30, 50, 210), "blue")]:
            content = png(Image.fromarray(noisy(colour, 99)))
            window.run(drop, base64.b64encode(content).decode())
            wait_for(lambda name=name: shown(window)[1:] == [name])
        window.run(drop, base64.b64encode(b"no image").decode())
        wait_for(lambda: "cannot be read: not an image" in window.run("return document.body.innerText"))

        asked += window.requests()
        assert len(asked) > 20
        assert [address for address in asked if not address.startswith((url, "data:"))] == []
        assert window.complaints() == []
        refuses(url)
    assert {address[0] for address in CONNECTED[at:]} == {"127.0.0.1"}
    assert listening() == before


def refuses(url):
    """No other host's name, no file, no upload."""
    boundary = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nmany bytes\r\n--x--\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for path, content, headers, code in [
        ("", None, {"Host": "elsewhere.example"}, 400),
        (f"gradio_api/file={ROOT}/README.md", None, {}, 403),
        ("gradio_api/file=/etc/passwd", None, {}, 403),
        ("gradio_api/upload", boundary, form, 413),
    ]:
        with pytest.raises(urllib.error.HTTPError) as answer:
            DIRECT.open(urllib.request.Request(url + path, content, headers), timeout=20)
        assert answer.value.code == code, path


@needs_gradio
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals")
def test_it_ends_with_ctrl_c_and_leaves_no_file(run, tmp_path):
    port = free_port()
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), f"run={run}", f"port={port}", "open=false"]
    process = subprocess.Popen([*command, "accelerator=cpu"], cwd=tmp_path, env={**os.environ, **nowhere},
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    with process:
        assert process.stdout.readline() == f"http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        with DIRECT.open(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT
    assert list(tmp_path.iterdir()) == []


@needs_gradio
def test_mistakes_are_one_message(demo, run, tmp_path, script_here, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # the script's own are gone after the test
    checkpoint = torch.load(best_checkpoint(run), weights_only=True)
    card = {**checkpoint["hyper_parameters"]["card"], "image_shape": [2, 28, 28], "mean": [0, 0], "std": [1, 1]}
    torch.save({**checkpoint, "hyper_parameters": {"card": card}}, tmp_path / "two.ckpt")
    torch.save({**checkpoint, "hyper_parameters": {}}, tmp_path / "none.ckpt")
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    for arguments, words in [
        ([], "name either run="),
        (["run=nowhere"], "nowhere is no run directory"),
        ([f"checkpoint={tmp_path}/two.ckpt"], "two.ckpt cannot be shown: images are grey or RGB"),
        ([f"checkpoint={tmp_path}/none.ckpt"], "does not say how to build its network"),
        ([f"run={run}", f"port={port}"], f"port={port}: .*Name another, or leave it out"),
        ([f"run={run}", "port=0"], "port=0 must be from 1 to 65535"),
        ([f"run={run}", "port=many"], "port: .*many"),
        ([f"run={run}", "accelerator=tpux"], "tpux"),
    ]:
        code, output, errors = script_here("demo", *arguments, "open=false")
        assert (code, output) == (2, ""), arguments
        assert errors.removeprefix("loading ...\n").count("\n") == 1
        assert re.search(words, errors), errors
    taken.close()
