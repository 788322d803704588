"""Checkpoint writes that are killed, and files that are damaged: none is ever taken for whole."""

import io
import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

from experiments.errors import UserError
from experiments.runs.checkpoint_files import newest_undamaged, read_checkpoint, rolling_name
from experiments.runs.files import remove_temporaries, write_atomically


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save({"state_dict": {"net.weight": torch.randn(100, 100)}, "global_step": 20}, buffer)
    return buffer.getvalue()


@pytest.fixture(params=["same file system", "another file system"])
def folder(request, tmp_path):
    if request.param == "same file system":
        yield tmp_path
        return
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        yield Path(other)


def write_and_die(path: Path, content: bytes, after: int) -> None:
    """Write a checkpoint in a child process that kills itself when ``after`` bytes are on their way."""
    child = os.fork()
    if child == 0:
        whole_open = Path.open

        def dying_open(self, *arguments):
            file = whole_open(self, *arguments)
            whole_write = file.write

            class Dying:
                def write(_, data):
                    whole_write(bytes(data[:after]))
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)

                def __enter__(_):
                    return _

                def __exit__(_, *error):
                    file.close()

            return Dying()

        Path.open = dying_open
        write_atomically(path, content)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_write_killed_at_any_byte_leaves_the_checkpoint_before(folder, content):
    whole = folder / rolling_name(1, 10)
    write_atomically(whole, content)
    path = folder / rolling_name(2, 20)
    for after in (0, 1, len(content) - 1, len(content), *random.Random(0).sample(range(len(content)), 12)):
        write_and_die(path, content, after)
        assert not path.exists()
        assert newest_undamaged(folder) == whole
        assert list(folder.glob(".*.tmp"))
        remove_temporaries(folder)
        assert list(folder.iterdir()) == [whole]


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_never_taken_for_whole(tmp_path, content, damage):
    truth = torch.load(io.BytesIO(content), weights_only=True)["state_dict"]["net.weight"]
    whole = tmp_path / rolling_name(1, 10)
    whole.write_bytes(content)
    newer = tmp_path / rolling_name(2, 20)
    chance, passed_over = random.Random(1), 0
    for _ in range(100):
        position = chance.randrange(len(content))
        damaged = bytearray(content)
        if damage == "truncated":
            del damaged[position:]
        else:
            damaged[position] ^= 1 << chance.randrange(8)
        newer.write_bytes(damaged)
        found = newest_undamaged(tmp_path)
        if found == newer:  # only where the flipped bit means nothing, as in a file's date
            assert damage == "flipped"
            assert read_checkpoint(newer)["state_dict"]["net.weight"].equal(truth)
        else:
            assert found == whole
            passed_over += 1
    assert passed_over >= 95


def test_a_full_disk_is_a_clear_error_and_leaves_the_checkpoints_before(tmp_path, content):
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("making a small file system takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        whole = tmp_path / rolling_name(1, 10)
        write_atomically(whole, content)
        with pytest.raises(UserError, match="No space left on device"):
            write_atomically(tmp_path / rolling_name(2, 20), content)
        assert list(tmp_path.iterdir()) == [whole]
        assert newest_undamaged(tmp_path) == whole
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path, content):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "best.ckpt", content)
