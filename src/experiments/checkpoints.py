"""What is in a checkpoint, how it is written, read and trusted.

A checkpoint is Lightning's, of tensors and plain values alone. ``hyper_parameters.card`` says how to rebuild the
network: ``net`` (its resolved config), ``image_shape``, ``mean``, ``std`` and ``class_names``.
"""

import io
import logging
import math
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import nn

from experiments.composition import relocated
from experiments.errors import UserError

log = logging.getLogger(__name__)
MOST_PIXELS = 2**28  # of one image, channels included
MOST_VALUES, MOST_DEPTH = 20_000_000, 50
ROLLING = re.compile(r"rolling-(?P<epoch>\d+)-(?P<step>\d+)\.ckpt")


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is whole or is not there, even if the process or the machine dies meanwhile.

    Raises:
        UserError: if the folder cannot be written or the disk is full; what stood at ``path`` before stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        if os.name == "posix":  # the new name must survive a power cut too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with suppress(OSError):  # where the folder itself is the trouble, there is nothing to remove
            beside.unlink()
        raise UserError(f"{path} cannot be written: {error.strerror}. Earlier files are untouched.") from error


def read(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint that is whole, running no code from it.

    Raises:
        UserError: if the file is missing, damaged, no checkpoint, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_tricks(archive, path.stat().st_size)
            damaged = archive.testzip()  # torch.load does not notice a flipped bit
        if damaged is not None:
            raise UserError(f"the checkpoint {path} is damaged: {damaged} does not match its checksum")
        content = torch.load(path, map_location=map_location, weights_only=True)
        _weigh(content, 0, {})
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged, or no checkpoint of tensors and plain values: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    for key in ("state_dict", "hyper_parameters", "callbacks", "loops"):
        if not isinstance(content.get(key, {}), dict):
            raise UserError(f"{path} is no checkpoint: its {key} is a {type(content[key]).__name__}, not a mapping")
    return content


def _refuse_tricks(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError if an archive is other than torch writes it: it might unpack to more than there is."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise ValueError("its parts are compressed or encrypted, which torch's never are")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its parts overlap: they claim more bytes than the file has")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("it holds two parts of the same name")


def _weigh(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values there are, a shared one counted wherever it stands, and how deep they lie.

    Raises:
        ValueError: if there are more than a checkpoint has, or a tensor claims more values than the file holds.
    """
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise ValueError(f"it holds a tensor of the layout {value.layout} on {value.device}, not plain numbers")
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ValueError(f"a tensor claims the shape {tuple(value.shape)}, more than the file holds of it")
        return 1, 0
    if not isinstance(value, (dict, list, tuple, set)):
        return 1, 0
    if id(value) not in known:
        known[id(value)] = (0, MOST_DEPTH)  # what holds itself is found to be too deep
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        below = [(0, 0)] if depth > MOST_DEPTH else [_weigh(part, depth + 1, known) for part in parts]
        weight, height = 1 + sum(count for count, _ in below), 1 + max((high for _, high in below), default=0)
        if max(depth, height) > MOST_DEPTH or weight > MOST_VALUES:
            raise ValueError(
                f"it holds more than {MOST_VALUES:,} values, or lists nested more than {MOST_DEPTH} deep"
            )
        known[id(value)] = (weight, height)
    return known[id(value)]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically and durably, and read without running code.

    ``moved`` names the folder a run lay in and the one it lies in now, for the paths that callbacks keep.
    """

    def __init__(self, moved: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.moved = moved

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the target, flush to the disk, then rename."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read with ``weights_only``, whatever was asked for."""
        content = read(path, map_location)
        if self.moved is not None and "callbacks" in content:
            content["callbacks"] = relocated(content["callbacks"], *self.moved)
        return content


def rolling_name(epoch: int, step: int) -> str:
    """The file name of a checkpoint to go on from."""
    return f"rolling-{epoch:04d}-{step:07d}.ckpt"


def rolling_files(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every checkpoint to go on from, the newest first."""
    found = [(match, path) for path in folder.glob("rolling-*.ckpt") if (match := ROLLING.fullmatch(path.name))]
    return sorted(((int(match["step"]), path) for match, path in found), reverse=True)


def remove_temporaries(folder: Path) -> None:
    """Remove the unfinished files of writes that were killed."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint to go on from that is whole; says which ones it passes over, and why."""
    for _, path in rolling_files(folder):
        try:
            read(path)
        except UserError as error:
            log.warning("passed over: %s", error)
        else:
            return path
    return None


def card(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of its network: ``net``, ``image_shape``, ``mean``, ``std``, ``class_names``.

    Raises:
        UserError: if it says nothing.
    """
    found = checkpoint.get("hyper_parameters", {}).get("card")
    if not isinstance(found, dict) or "net" not in found:
        raise UserError(
            f"{path} does not say how to build its network: it was not written by a Classifier of a run. Build the "
            "network yourself and load the state_dict in the file, or use load_from_checkpoint of the class it is of"
        )
    shape, mean, std, names = (found.get(key, []) for key in ("image_shape", "mean", "std", "class_names"))
    fine = (
        isinstance(found["net"], dict)
        and all(isinstance(part, (list, tuple)) for part in (shape, mean, std, names))
        and all(type(side) is int and 0 < side <= MOST_PIXELS for side in shape)
        and math.prod(shape) <= MOST_PIXELS
        and all(isinstance(part, (int, float)) and math.isfinite(part) for part in (*mean, *std))
        and all(isinstance(name, str) for name in names)
    )
    if not fine:
        raise UserError(
            f"{path} says of its network what cannot be: image_shape, mean, std or class_names are damaged"
        )
    return found


def misfits(module: nn.Module, weights: dict[str, torch.Tensor]) -> list[str]:
    """Every name whose shape differs between a module and weights, with both sides."""
    mine = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    return [
        f"{name}: {mine.get(name, 'nothing')} in the network, {theirs.get(name, 'nothing')} in the file"
        for name in dict.fromkeys([*mine, *theirs])
        if mine.get(name) != theirs.get(name)
    ]


def refuse_misfits(module: nn.Module, differing: list[str], source: str) -> NoReturn:
    """Raise UserError with the names that differ."""
    more = f"\n  and {len(differing) - 20} more" if len(differing) > 20 else ""
    raise UserError(
        f"the weights in {source} do not fit {type(module).__name__}:\n  " + "\n  ".join(differing[:20]) + more
    )


def load_state(module: nn.Module, weights: Any, source: str) -> None:
    """Load weights, all of them and no others.

    Raises:
        UserError: if names or shapes differ; the message gives each with both sides.
    """
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise UserError(f"{source} holds no state_dict: its values are not all tensors")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        refuse_misfits(module, misfits(module, weights) or str(error).splitlines(), source)


def init_from(net: nn.Module, path: str | Path) -> None:
    """Start a network from the weights in a file: a plain state_dict (``model.pth``), or a checkpoint of a run.

    Raises:
        UserError: if the file is missing or damaged, or its names and shapes are not the network's.
    """
    content = read(path)
    if isinstance(content.get("state_dict"), dict):  # a checkpoint; what is a LightningModule by itself has no net.
        content = net_weights(content) or content["state_dict"]
    load_state(net, content, f"init_from={path}")


def net_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's own ``state_dict``: the names it has outside the LightningModule."""
    return {
        name.removeprefix("net."): value
        for name, value in checkpoint.get("state_dict", {}).items()
        if isinstance(name, str) and name.startswith("net.")
    }
