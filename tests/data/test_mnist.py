import gzip
import hashlib
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torchvision import datasets

from experiments.data import MNIST
from experiments.errors import UserError
from tests.conftest import idx_bytes, write_idx_files


def test_real_mnist_is_split_as_stated_and_equals_torchvisions(mnist_root, tmp_path):
    data = MNIST(root=mnist_root)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 55_000,
        "val": 5_000,
        "test": 10_000,
    }
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, _ in datasets.MNIST.resources:
        (raw / name[:-3]).write_bytes(gzip.decompress((data.folder / name).read_bytes()))
    truth = datasets.MNIST(str(tmp_path), train=False)
    assert data.splits["test"].tensors[0].squeeze(1).equal(truth.data)
    assert data.splits["test"].tensors[1].equal(truth.targets)
    images, _ = data.read("train")
    assert (images / 255).mean().item() == pytest.approx(MNIST.mean[0], abs=5e-5)
    assert (images / 255).std().item() == pytest.approx(MNIST.std[0], abs=5e-5)


def test_unpacked_files_are_used_as_they_are(small_mnist):
    data = MNIST(root=str(small_mnist), val_size=20)
    before = {path: path.stat().st_mtime_ns for path in data.folder.iterdir()}
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 40, "val": 20, "test": 20}
    assert {path: path.stat().st_mtime_ns for path in data.folder.iterdir()} == before


def flip_magic(content):
    return b"\x01" + content[1:]


DAMAGES = {
    "empty": lambda content: b"",
    "text": lambda content: b"not found",
    "magic": flip_magic,
    "truncated": lambda content: content[:-1],
    "header only": lambda content: content[:7],
    "longer": lambda content: content + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_damaged_file_is_named(small_mnist, damage, name):
    data = MNIST(root=str(small_mnist), val_size=20)
    path = data.folder / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(UserError, match=name):
        data.setup("fit")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("train-labels-idx1-ubyte", torch.full((60,), 10, dtype=torch.uint8), "label 10; labels go from 0 to 9"),
        ("train-labels-idx1-ubyte", torch.zeros(59, dtype=torch.uint8), "60 images, but .* 59 labels"),
        ("train-images-idx3-ubyte", torch.zeros(60, 28, 27, dtype=torch.uint8), r"\(28, 27\), not \(28, 28\)"),
    ],
)
def test_values_that_cannot_be_are_refused(small_mnist, name, values, message):
    data = MNIST(root=str(small_mnist), val_size=20)
    (data.folder / name).write_bytes(idx_bytes(values))
    with pytest.raises(UserError, match=message):
        data.setup("fit")


def test_a_packed_file_must_match_its_checksum(tmp_path):
    write_idx_files(tmp_path / "MNIST" / "raw", packed=True)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz does not match its checksum"):
        MNIST(root=str(tmp_path)).setup("fit")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A local mirror that serves small packed files, whose checksums the data set expects."""
    folder = tmp_path / "served"
    write_idx_files(folder, packed=True)
    checksums = [
        (name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name, _ in datasets.MNIST.resources
    ]
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{http.server_address[1]}/"])
        monkeypatch.setattr(datasets.MNIST, "resources", checksums)
        yield folder
        http.shutdown()


def test_missing_files_are_downloaded_once(server, tmp_path):
    data = MNIST(root=str(tmp_path / "root"), val_size=20)
    data.prepare_data()
    data.setup("fit")
    assert sorted(path.name for path in data.folder.iterdir()) == sorted(path.name for path in server.iterdir())
    shutil.rmtree(server)
    data.prepare_data()  # nothing is fetched again


@pytest.mark.parametrize("fault", ["wrong checksum", "404"])
def test_a_failed_download_leaves_nothing_and_the_next_one_succeeds(server, tmp_path, fault):
    name = "t10k-images-idx3-ubyte.gz"
    whole = (server / name).read_bytes()
    if fault == "404":
        (server / name).unlink()
    else:
        (server / name).write_bytes(whole[:-1])
    data = MNIST(root=str(tmp_path / "root"), val_size=20)
    with pytest.raises(UserError, match=r"(?s)root/MNIST/raw.*t10k-images-idx3-ubyte.gz.*data=digits"):
        data.prepare_data()
    assert name not in [path.name for path in data.folder.iterdir()]
    assert not list(data.folder.glob(".*"))
    (server / name).write_bytes(whole)
    data.prepare_data()
    data.setup("test")
