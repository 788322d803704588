"""A trained network for use elsewhere: a plain ``model.pth``, or ONNX."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.errors import UserError
from experiments.inference.load import card_of, load
from experiments.runs.files import write_atomically

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of ONNX logits, absolute up to 1 and relative above


def export(checkpoint: str | Path, format: str, output: str | Path | None = None, trust: Sequence[str] = ()) -> Path:
    """Write the network of a checkpoint in another format; return the file.

    ``state_dict``: the network's weights as ``torch.save(net.state_dict(), "model.pth")`` writes them.
    ``onnx``: images (batch, C, H, W), floats in [0, 1], to logits (batch, num_classes), or to what the network's task
    has for outputs, normalisation included; metadata ``class_names`` is a JSON list, ``outputs`` the card's. Written
    only if onnxruntime gives torch's logits.

    Args:
        checkpoint: a ``.ckpt`` file of a run.
        format: ``state_dict`` or ``onnx``.
        output: the file to write; by default ``model.pth`` or ``model.onnx``.
        trust: packages of your own whose networks the checkpoint may name.

    Raises:
        UserError: if the checkpoint cannot be read, the format is unknown, or the network cannot be expressed in it.
    """
    if format not in ("state_dict", "onnx"):
        raise UserError(f"format={format} is not one of state_dict, onnx")
    if format == "onnx" and (missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]):
        raise UserError(f"format=onnx needs {', '.join(missing)}: pip install {' '.join(missing)}")
    net = load(checkpoint, trust)
    path = Path(output or {"state_dict": "model.pth", "onnx": "model.onnx"}[format])
    write_atomically(path, onnx_bytes(net) if format == "onnx" else state_dict_bytes(net))
    return path


def state_dict_bytes(net: nn.Module) -> bytes:
    """The file that ``torch.save(net.state_dict(), ...)`` writes."""
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    return buffer.getvalue()


class Normalized(nn.Module):
    """A network behind its normalisation: images (batch, C, H, W), floats in [0, 1], to logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, C, H, W) in [0, 1] -> logits (batch, num_classes)."""
        return self.net((images - self.mean) / self.std)


def onnx_bytes(net: nn.Module) -> bytes:
    """An ONNX model of a network of ``experiments.load``, checked against it in onnxruntime.

    Raises:
        UserError: if torch cannot express the network in ONNX, or the logits differ.
    """
    card = card_of(net)
    # a copy: tracing leaves its marks in recurrent layers
    model = Normalized(copy.deepcopy(net), card["mean"], card["std"]).eval()
    images = torch.rand(5, *card["image_shape"], generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), _quietly():
            expected = model(images)
            program = torch.onnx.export(
                model,
                (images[:2],),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
            assert program is not None  # it is for dynamo=True
            proto = program.model_proto
    except Exception as error:  # whatever torch stumbles over in a network that it cannot trace
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"torch cannot express {type(net).__name__} in ONNX: {reason[0]}. Branches on values in forward cannot "
            "be; format=state_dict always works"
        ) from error
    proto.metadata_props.add(key="class_names", value=json.dumps(card["class_names"]))
    proto.metadata_props.add(key="outputs", value=card["outputs"])
    content: bytes = proto.SerializeToString()
    for some in (images, images[:1]):  # the number of images is not fixed
        difference = float((_onnx_logits(content, some) - expected[: len(some)]).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise UserError(
                f"the ONNX logits of {type(net).__name__} differ from torch's by {difference:.2g}: nothing written"
            )
    return content


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's advice to itself, and without the graphs that it prints when it gives up."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _onnx_logits(content: bytes, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
