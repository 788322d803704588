"""A page on this machine to draw on, or to drop pictures on, that shows what trained networks make of them."""

import base64
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from socket import create_server
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from torch import Tensor, nn

from experiments.errors import UserError
from experiments.inference.answers import Answer, Mask, Values
from experiments.inference.drawings import CANVAS_SIDE, predict_picture
from experiments.inference.load import card_of, load
from experiments.inference.predict import Invert, device_of, predict
from experiments.monitoring.drawing import data_url, enlarged, pictures
from experiments.runs.run_directory import read_summary

HOST = "127.0.0.1"
PICTURE_SIDE = 140  # pixels in the page, of the image that the network saw
INVERT: dict[str, Invert] = {"auto": "auto", "true": True, "false": False}
CANVAS = f"""<canvas width={CANVAS_SIDE} height={CANVAS_SIDE} role=img aria-label="Drawing"></canvas>
<p><button>Clear</button> <button>Open a picture</button> <input type=file accept="image/*" hidden></p>
<p><label>Brush <input type=range min=8 max=48 value=24></label></p>"""
FIGURE = (
    """<div style="display: flex; gap: 12px; margin-bottom: 12px"><img src="{url}" alt="{alt}"><p>{said}</p></div>"""
)
STYLE = """
canvas { width: 100%; max-width: 400px; border-radius: 8px; cursor: crosshair; touch-action: none;
         border: 1px solid var(--border-color-primary); background: white; }
p, label { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; }
p { margin-top: 8px; }
button { padding: 4px 16px; font: inherit; border-radius: 8px; background: var(--button-secondary-background-fill); }
"""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in the page: its name, what is known of it, and the network."""

    name: str
    about: str
    net: nn.Module


def load_networks(
    checkpoints: Sequence[Path], accelerator: str = "auto", trust: Sequence[str] = ()
) -> list[LoadedNetwork]:
    """Rebuild the networks of checkpoints, and try each on an empty image.

    Raises:
        UserError: if one cannot be loaded, or does not take images.
    """
    device, found = device_of(accelerator), []
    for path in checkpoints:
        net = load(path, trust).to(device)
        try:
            predict(net, Image.new("L", (8, 8)))
        except UserError as error:
            raise UserError(f"{path} cannot be shown: {error}") from error
        card = card_of(net)
        channels, height, width = card["image_shape"]
        about = [
            f"{type(net).__name__} with {sum(each.numel() for each in net.parameters()):,} parameters",
            f"takes {'grey' if channels == 1 else 'RGB'} images of {height} × {width} pixels",
            f"{'classes' if card['outputs'] == 'mask' else card['outputs']}: {len(card['class_names']):,}",
        ]
        run = path.absolute().parent.parent
        summary = read_summary(run) or {}
        is_best = run / str(summary.get("best_checkpoint")) == path.absolute()
        if is_best and isinstance(summary.get("test/accuracy"), float):
            about.append(f"test accuracy {summary['test/accuracy']:.2%}")
        parts = run.parts[-2:] if is_best else path.absolute().parts[-4:]
        found.append(LoadedNetwork("/".join(parts), ", ".join(about), net))
    return found


def gives_probabilities(net: nn.Module) -> bool:
    """Whether a network answers by probabilities of an image's classes or labels."""
    return card_of(net)["outputs"] in ("classes", "labels")


def answer_html(answer: Answer, network_input: Tensor, invert: str) -> str:
    """HTML of the network's input, and of its answer unless that is shown as bars."""
    (image,) = pictures(network_input[None] / 255)
    why = ", since its background was not that of the training images" if invert == "auto" else ""
    said = "What the network saw." + (f" Inverted{why}." if answer.inverted else "")
    found = FIGURE.format(url=data_url(enlarged(image, PICTURE_SIDE)), alt="the network's input", said=said)
    if isinstance(answer, Mask):
        mask = data_url(enlarged(answer.picture().convert("L"), PICTURE_SIDE))
        found += FIGURE.format(url=mask, alt="the mask", said=f"The mask: {escape(str(answer))}")
    return found + (f"<p>{escape(str(answer))}</p>" if isinstance(answer, Values) else "")


def page(networks: Sequence[LoadedNetwork]) -> gr.Blocks:
    """Lay out the page: the canvas, and beside it a column for each network."""

    def update(value: Any, centre: bool, invert: str) -> list[Any]:
        found: list[Any] = []
        for each in networks:
            if not value:
                found += ["", None]
                continue
            try:
                picture = base64.b64decode(value["content"])
                answer, network_input = predict_picture(each.net, picture, value["drawn"], centre, INVERT[invert])
            except ValueError as error:
                found += [f"<p role=alert>This picture cannot be read: {escape(str(error))}</p>", None]
                continue
            found += [answer_html(answer, network_input, invert), getattr(answer, "probabilities", None)]
        return found

    title = ", ".join(each.name for each in networks)
    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        gr.Markdown("## Draw, or drop a picture\nThe answer follows as you draw. Nothing leaves this machine.")
        with gr.Row():
            with gr.Column(min_width=320):
                script = Path(__file__).with_name("demo_canvas.js").read_text(encoding="utf-8")
                canvas = gr.HTML(html_template=CANVAS, css_template=STYLE, js_on_load=script)
                centre = gr.Checkbox(True, label="Scale and centre drawings as the training images are")
                invert = gr.Radio(list(INVERT), value="auto", label="Turn dark on light into light on dark")
            outputs: list[Any] = []
            for each in networks:
                with gr.Column(min_width=240):
                    gr.HTML(f"<h3>{escape(each.name)}</h3><p>{escape(each.about)}</p>")
                    outputs += [
                        gr.HTML(),
                        gr.Label(num_top_classes=10, label="Probabilities", visible=gives_probabilities(each.net)),
                    ]
        for event in (canvas.input, centre.change, invert.change):
            event(
                update, [canvas, centre, invert], outputs, show_progress="hidden", trigger_mode="always_last",
                api_visibility="private",
            )  # fmt: skip
    return blocks


@contextmanager
def serving(networks: Sequence[LoadedNetwork], port: int | None = None) -> Iterator[str]:
    """Serve the page on this machine alone, until the block ends; gives its address.

    Raises:
        UserError: if the port cannot be had.
    """
    if port is not None:
        if not 0 < port < 2**16:
            raise UserError(f"port={port} must be from 1 to {2**16 - 1}")
        try:
            create_server((HOST, port)).close()
        except OSError as error:
            raise UserError(f"port={port}: {os.strerror(error.errno or 0)}. Name another, or leave it out") from error
    blocks = page(networks)
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    _, url, _ = blocks.launch(
        server_name=HOST, server_port=port, share=False, inbrowser=False, inline=False, prevent_thread_lock=True,
        quiet=True, footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False,
        mcp_server=False, max_file_size=1, app_kwargs={"middleware": [hosts]},
    )  # fmt: skip
    try:
        yield url
    finally:
        blocks.close(verbose=False)
