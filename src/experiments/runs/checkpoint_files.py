"""What is in a checkpoint, how it is written, read and trusted.

A checkpoint is Lightning's, of tensors and plain values alone. ``hyper_parameters.card`` says how to rebuild the
network: ``net`` (its resolved config), ``image_shape``, ``mean``, ``std`` and ``class_names``.
"""

import io
import logging
import re
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from experiments.errors import UserError
from experiments.runs.files import relocate_paths, write_atomically

log = logging.getLogger(__name__)
ROLLING = re.compile(r"rolling-(?P<epoch>\d+)-(?P<step>\d+)\.ckpt")


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint that is whole, running no code from it.

    Raises:
        UserError: if the file is missing, damaged, no checkpoint, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not notice a flipped bit
        if damaged is not None:
            raise UserError(f"the checkpoint {path} is damaged: {damaged} does not match its checksum")
        content = torch.load(path, map_location=map_location, weights_only=True)
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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically and durably, and read without running code.

    ``moved`` names the folder a run lay in and the one it lies in now, for the paths that callbacks keep.

    From ``write_in_background`` to ``teardown``, training goes on while a rolling checkpoint is written: what its
    write refuses is raised by the next save, or by ``finish_writing``. Others are written at once: Lightning and
    callbacks look at them, and remove those before them.
    """

    def __init__(self, moved: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.moved = moved
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def write_in_background(self) -> None:
        """Leave it to a thread to wait for the disk."""
        self._writer = self._writer or ThreadPoolExecutor(max_workers=1)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the target, flush to the disk, then rename."""
        self.finish_writing()
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        if self._writer is not None and ROLLING.fullmatch(Path(path).name):
            self._writing = self._writer.submit(write_atomically, Path(path), buffer.getbuffer())
        else:
            write_atomically(Path(path), buffer.getbuffer())

    def finish_writing(self) -> None:
        """Wait for the write in the background.

        Raises:
            UserError: if it failed.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def teardown(self) -> None:
        """Write at once again."""
        if self._writer is not None:
            self._writer.shutdown()
        self._writer = None
        self.finish_writing()

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read with ``weights_only``, whatever was asked for."""
        self.finish_writing()
        content = read_checkpoint(path, map_location)
        if self.moved is not None and "callbacks" in content:
            content["callbacks"] = relocate_paths(content["callbacks"], *self.moved)
        return content


def rolling_name(epoch: int, step: int) -> str:
    """The file name of a checkpoint to go on from."""
    return f"rolling-{epoch:04d}-{step:07d}.ckpt"


def rolling_files(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every checkpoint to go on from, the newest first."""
    found = [(match, path) for path in folder.glob("rolling-*.ckpt") if (match := ROLLING.fullmatch(path.name))]
    return sorted(((int(match["step"]), path) for match, path in found), reverse=True)


def newest_undamaged(folder: Path) -> Path | None:
    """The newest checkpoint to go on from that is whole; says which ones it passes over, and why."""
    for _, path in rolling_files(folder):
        try:
            read_checkpoint(path)
        except UserError as error:
            log.warning("passed over: %s", error)
        else:
            return path
    return None
