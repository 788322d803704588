"""What a network says of a picture, or of a drawing on white, and what it sees of it."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from experiments.data.images.files import has_other_background, refusing_decompression_bombs, to_input
from experiments.inference.answers import Answer
from experiments.inference.load import card_of
from experiments.inference.predict import Invert, predict

CANVAS_SIDE = 280  # pixels
MNIST_SHARE = 20 / 28  # of their images' sides is what MNIST's digits fill
SPARSE = 0.2  # the mean of MNIST's images is 0.13, that of the embedded digits, which fill theirs, 0.31


def predict_picture(
    net: nn.Module, picture: bytes, drawn: bool = False, centre: bool = True, invert: Invert = "auto"
) -> tuple[Answer, Tensor]:
    """Ask about one picture.

    Args:
        net: a network of ``experiments.load``.
        picture: what an image file holds.
        drawn: whether it is a drawing on white.
        centre: bring a drawing to size and place as ``centred`` does.
        invert: as in ``predict``; whether a drawing is turned does not depend on ``centre``.

    Returns:
        The answer, and the image that the network saw: uint8 (C, H, W), before normalisation.

    Raises:
        ValueError: if the picture cannot be read; the message says why.
    """
    card = card_of(net)
    shape = card["image_shape"]
    with refusing_decompression_bombs():
        network_input = to_input(BytesIO(picture), shape)
        turned = has_other_background(network_input, card["mean"]) if invert == "auto" else invert
        if drawn and centre:
            drawing = to_input(BytesIO(picture), (1, CANVAS_SIDE, CANVAS_SIDE))
            network_input = to_input(centred(drawing, shape[1:], card["mean"]), shape)
    if turned:
        network_input = 255 - network_input
    (answer,) = predict(net, network_input, invert=False)
    return replace(answer, inverted=turned), network_input


def centred(drawing: Tensor, size: Sequence[int], mean: Sequence[float]) -> Tensor:
    """Cut a drawing, uint8 (1, H, W) and dark on white, to its ink, with margins as the training images have them.

    Images of MNIST's kind, mostly background, are filled as MNIST's are: to 20 of 28 pixels, with the centre of mass in
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
