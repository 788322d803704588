"""What a trained network says of images it has never seen, by what its checkpoint says of its outputs."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from lightning import Fabric
from PIL.Image import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from experiments.data import normalize
from experiments.data.images.files import find, has_other_background, refusing_decompression_bombs, to_input
from experiments.errors import UserError
from experiments.inference.answers import Answer, answer_of
from experiments.inference.load import card_of, load_ensemble
from experiments.learning.metrics import predictions_of
from experiments.training.build import constructing
from experiments.training.devices import check_accelerator

BATCH_SIZE = 256
AnImage = str | Path | Image | Tensor
Invert = bool | Literal["auto"]


def predict(net: nn.Module, images: AnImage | Iterable[AnImage], invert: Invert = "auto") -> list[Answer]:
    """Ask a network of ``experiments.load`` about images, on the device where it lies.

    The answers are of the kind that its card's ``outputs`` names: of the module ``answers``, ``Prediction`` of
    classes, ``Labels``, ``Values`` or ``Mask``.

    ``experiments.data.images.files.to_input`` states how an image is brought to the network's input.

    Args:
        net: a network that ``experiments.load`` returned; it is put into evaluation mode.
        images: files, PIL images or uint8 tensors; or the name of a file, a folder or a glob.
        invert: turn dark strokes on a light background into light ones on dark; ``auto`` does so where a grey image's
            background is light and that of the images trained on was dark, or the other way round.

    Raises:
        UserError: if an image cannot be read.
    """
    if isinstance(images, (str, Path)):
        images = find(images)
    elif isinstance(images, Image) or (isinstance(images, Tensor) and images.dim() < 4):
        images = [images]
    found = []
    for number, answer in enumerate(iterate_predictions(net, images, invert)):
        if isinstance(answer, str):
            raise UserError(f"image {number} cannot be read: {answer}")
        found.append(answer)
    return found


def iterate_predictions(net: nn.Module, images: Iterable[AnImage], invert: Invert = "auto") -> Iterator[Answer | str]:
    """Ask about images one batch after the other; in place of one that cannot be read, yield the reason."""
    card = card_of(net)
    shape, mean, std, names, output_type = (
        card[key] for key in ("image_shape", "mean", "std", "class_names", "outputs")
    )
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"images are grey or RGB; this network takes inputs of {' × '.join(map(str, shape))}")
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    net.eval()

    def prepared(image: AnImage) -> tuple[Tensor, bool] | str:
        try:
            found = to_input(image, shape)
        except ValueError as error:
            return str(error)
        turned = has_other_background(found, mean) if invert == "auto" else invert
        return 255 - found if turned else found, turned

    remaining = iter(images)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        while some := list(islice(remaining, BATCH_SIZE)):
            with refusing_decompression_bombs():
                inputs = list(pool.map(prepared, some))
            readable = [image[0] for image in inputs if not isinstance(image, str)]
            answers: Iterator[Tensor] = iter(())
            if readable:
                with torch.inference_mode():
                    batch = normalize(torch.stack(readable).to(device), mean, std)
                    predictions = predictions_of(net(batch), output_type).cpu()
                sides = shape[1:] if output_type == "mask" else []
                if predictions.shape != (len(readable), len(names), *sides):
                    raise UserError(
                        f"{type(net).__name__} gives {tuple(predictions.shape)} for {len(readable)} images in "
                        f"{len(names)} classes"
                    )
                answers = iter(predictions)
            for image in inputs:
                yield image if isinstance(image, str) else answer_of(output_type, next(answers), names, image[1])


def device_of(accelerator: str) -> torch.device:
    """The device that an accelerator, as Lightning names them, computes on.

    Raises:
        UserError: if it is not here.
    """
    check_accelerator(accelerator)
    with constructing("the accelerator"):
        return Fabric(accelerator=accelerator, devices=1).device


def predict_files(
    checkpoints: Sequence[str | Path],
    images: str,
    invert: Invert = "auto",
    accelerator: str = "auto",
    trust: Sequence[str] = (),
) -> dict[Path, Answer | str]:
    """Ask about the files that ``images`` names; in place of one that cannot be read stands the reason.

    The networks of several checkpoints answer by the mean of their predictions.

    Raises:
        UserError: if a checkpoint or all the images are missing.
    """
    device = device_of(accelerator)
    files = find(images)
    net = load_ensemble(checkpoints, trust)
    answers = track(
        iterate_predictions(net.to(device), files, invert),
        "images",
        total=len(files),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    return dict(zip(files, answers, strict=True))
