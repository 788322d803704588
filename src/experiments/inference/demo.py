"""A page on this machine to draw on, or to drop pictures on, that shows what trained networks make of them."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO
from pathlib import Path
from socket import create_server
from typing import Any

import gradio as gr
import torch
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from torch import Tensor, nn
from torch.nn.functional import pad

from experiments.data.images.files import is_of_other_ground, refusing_bombs, to_input
from experiments.errors import UserError
from experiments.inference.load import card_of, load
from experiments.inference.predict import Invert, Prediction, device_of, predict
from experiments.monitoring.drawing import data_url, enlarged, pictures
from experiments.runs.run_directory import read_summary

HOST = "127.0.0.1"
CANVAS_SIDE = 280  # pixels
MNIST_SHARE = 20 / 28  # of their images' sides is what MNIST's digits fill
SPARSE = 0.2  # the mean of MNIST's images is 0.13, that of the embedded digits, which fill theirs, 0.31
SEEN_SIDE = 140  # pixels in the page, of the image that the network saw
INVERT: dict[str, Invert] = {"auto": "auto", "true": True, "false": False}
CANVAS = f"""<canvas width={CANVAS_SIDE} height={CANVAS_SIDE} role=img aria-label="Drawing"></canvas>
<p><button>Clear</button> <label>Brush <input type=range min=8 max=48 value=24></label></p>
<p><label>Or drop a picture, or choose one: <input type=file accept="image/*"></label></p>"""
SEEN = """<div style="display: flex; gap: 12px"><img src="{url}" alt=""><p>{said}</p></div>"""
STYLE = """
canvas { width: 100%; max-width: 400px; border-radius: 8px; cursor: crosshair; touch-action: none;
         border: 1px solid var(--border-color-primary); background: white; }
p, label { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; }
p { margin-top: 8px; }
button { padding: 4px 16px; font: inherit; border-radius: 8px; background: var(--button-secondary-background-fill); }
"""


@dataclass(frozen=True)
class Shown:
    """A network in the page: its name, what is known of it, and the network."""

    name: str
    about: str
    net: nn.Module


def load_shown(checkpoints: Sequence[Path], accelerator: str = "auto", trust: Sequence[str] = ()) -> list[Shown]:
    """Rebuild the networks of checkpoints, and try each on an empty image.

    Raises:
        UserError: if one cannot be loaded, or does not classify images.
    """
    device, found = device_of(accelerator), []
    for path in checkpoints:
        net = load(path, trust).to(device)
        try:
            (empty,) = predict(net, Image.new("L", (8, 8)))
        except UserError as error:
            raise UserError(f"{path} cannot be shown: {error}") from error
        channels, height, width = card_of(net)["image_shape"]
        about = [
            f"{type(net).__name__} with {sum(each.numel() for each in net.parameters()):,} parameters",
            f"takes {'grey' if channels == 1 else 'RGB'} images of {height} × {width} pixels",
            f"knows {len(empty.probabilities):,} classes",
        ]
        run = path.absolute().parents[1]
        summary = read_summary(run) or {}
        accuracy, best = summary.get("test/accuracy"), run / str(summary.get("best_checkpoint"))
        if isinstance(accuracy, float) and best == path.absolute():
            about.append(f"test accuracy {accuracy:.2%}")
        found.append(Shown("/".join(run.parts[-2:]), ", ".join(about), net))
    return found


def look(
    net: nn.Module, picture: bytes, drawn: bool = False, centre: bool = True, invert: Invert = "auto"
) -> tuple[Prediction, Tensor]:
    """Classify one picture.

    Args:
        net: a network of ``experiments.load``.
        picture: what an image file holds.
        drawn: whether it is a drawing on white.
        centre: bring a drawing to size and place as ``centred`` does.
        invert: as in ``predict``; whether a drawing is turned does not depend on ``centre``.

    Returns:
        The prediction, and the image that the network saw: uint8 (C, H, W), before normalisation.

    Raises:
        ValueError: if the picture cannot be read; the message says why.
    """
    card = card_of(net)
    shape = card["image_shape"]
    with refusing_bombs():
        seen = to_input(BytesIO(picture), shape)
        turned = is_of_other_ground(seen, card["mean"]) if invert == "auto" else invert
        if drawn and centre:
            drawing = to_input(BytesIO(picture), (1, CANVAS_SIDE, CANVAS_SIDE))
            seen = to_input(centred(drawing, shape[1:], card["mean"]), shape)
    if turned:
        seen = 255 - seen
    (answer,) = predict(net, seen, invert=False)
    return replace(answer, inverted=turned), seen


def centred(drawing: Tensor, size: Sequence[int], mean: Sequence[float]) -> Tensor:
    """Cut a drawing, uint8 (1, H, W) and dark on white, to its ink, with margins as the training images have them.

    Images of MNIST's kind, mostly ground, are filled as MNIST's are: to 20 of 28 pixels, with the centre of mass in
    the middle. All others are filled to their borders.

    Args:
        drawing: the whole canvas.
        size: height and width of the images that it is for; only their ratio matters.
        mean: of the training images, as the network's card has it.
    """
    ink = 255 - drawing[0]
    if not ink.any():
        return drawing
    rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    share = MNIST_SHARE if min(mean[0], 1 - mean[0]) < SPARSE else 1
    scale = max(side / (share * target) for side, target in zip(ink.shape, size, strict=True))
    margins = []
    for side, target, profile in zip(ink.shape[::-1], size[::-1], (ink.sum(0), ink.sum(1)), strict=True):
        free = round(scale * target) - side
        centre = (profile * (torch.arange(side) + 0.5)).sum() / profile.sum()
        before = min(max(round((free + side) / 2 - centre.item()), 0), free)
        margins += [before, free - before]
    return 255 - pad(ink, margins)[None]


def page(shown: Sequence[Shown]) -> gr.Blocks:
    """Lay out the page: the canvas, and beside it a column for each network."""

    def update(value: Any, centre: bool, invert: str) -> list[Any]:
        found: list[Any] = []
        for each in shown:
            if not value:
                found += ["", None]
                continue
            try:
                picture = base64.b64decode(value["content"])
                answer, seen = look(each.net, picture, value["drawn"], centre, INVERT[invert])
            except ValueError as error:
                found += [f"<p role=alert>This picture cannot be read: {escape(str(error))}</p>", None]
                continue
            (image,) = pictures(seen[None] / 255)
            why = ", since its ground was not that of the training images" if invert == "auto" else ""
            said = f"What the network saw.{f' Inverted{why}.' if answer.inverted else ''}"
            found += [SEEN.format(url=data_url(enlarged(image, SEEN_SIDE)), said=said), answer.probabilities]
        return found

    title = ", ".join(each.name for each in shown)
    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        gr.Markdown("## Draw, or drop a picture\nThe probabilities move as you draw. Nothing leaves this machine.")
        with gr.Row():
            with gr.Column(min_width=320):
                script = Path(__file__).with_name("demo_canvas.js").read_text(encoding="utf-8")
                canvas = gr.HTML(html_template=CANVAS, css_template=STYLE, js_on_load=script)
                centre = gr.Checkbox(True, label="Scale and centre drawings as the training images are")
                invert = gr.Radio(list(INVERT), value="auto", label="Turn dark on light into light on dark")
            outputs: list[Any] = []
            for each in shown:
                with gr.Column(min_width=240):
                    gr.HTML(f"<h3>{escape(each.name)}</h3><p>{escape(each.about)}</p>")
                    outputs += [gr.HTML(), gr.Label(num_top_classes=10, label="Probabilities")]
        for event in (canvas.input, centre.change, invert.change):
            event(
                update, [canvas, centre, invert], outputs, show_progress="hidden", trigger_mode="always_last",
                api_visibility="private",
            )  # fmt: skip
    return blocks


@contextmanager
def serving(shown: Sequence[Shown], port: int | None = None) -> Iterator[str]:
    """Serve the page on this machine alone, until the block ends; gives its address.

    Raises:
        UserError: if the port is taken.
    """
    if port is not None:
        try:
            create_server((HOST, port)).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port={port} cannot be used: {getattr(error, 'strerror', None) or error}. "
                "Name another, or leave it out for one that is free"
            ) from error
    blocks = page(shown)
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    try:
        _, url, _ = blocks.launch(
            server_name=HOST, server_port=port, share=False, inbrowser=False, inline=False, prevent_thread_lock=True,
            quiet=True, footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False,
            mcp_server=False, max_file_size=1, app_kwargs={"middleware": [hosts]},
        )  # fmt: skip
        yield url
    finally:
        blocks.close(verbose=False)
