import gzip
import hashlib
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from experiments.data import CIFAR10, EMNIST, KMNIST, MNIST, FashionMNIST
from experiments.errors import UserError
from tests.small_data import idx_bytes, pack_cifar_files, pack_emnist_files, write_cifar_files, write_idx_files


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


SOURCES = {MNIST: datasets.MNIST, FashionMNIST: datasets.FashionMNIST, KMNIST: datasets.KMNIST}


class Dropping(SimpleHTTPRequestHandler):
    """Serves a folder, and drops the connection half-way through the files that the server names."""

    def log_message(self, *arguments):
        pass

    def copyfile(self, source, outputfile):
        content = source.read()
        dropped = Path(self.path).name in self.server.dropped
        outputfile.write(content[: len(content) // 2] if dropped else content)


@pytest.fixture
def server(tmp_path):
    """A local web server over a folder; ``dropped`` names the files that it breaks off."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Dropping, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        http.folder, http.dropped, http.url = folder, set(), f"http://127.0.0.1:{http.server_address[1]}/"
        yield http
        http.shutdown()


def serve(server, monkeypatch, cls):
    """Small files in the data set's true format, at the addresses and with the checksums that it expects."""
    if cls in SOURCES:
        write_idx_files(server.folder, packed=True)
        checksums = [
            (name, hashlib.md5((server.folder / name).read_bytes()).hexdigest()) for name, _ in cls.source.resources
        ]
        monkeypatch.setattr(cls.source, "mirrors", [server.url])
        monkeypatch.setattr(cls.source, "resources", checksums)
        return cls.source.resources[2][0]
    if cls is EMNIST:
        prefixes = ("emnist-balanced-train", "emnist-balanced-test")
        write_idx_files(server.folder, 141, 47, packed=True, prefixes=prefixes, num_classes=47)
        archive = pack_emnist_files(server.folder, monkeypatch)
        monkeypatch.setattr(cls.source, "url", server.url + archive.name)
        return archive.name
    archive = pack_cifar_files(write_cifar_files(server.folder, monkeypatch), monkeypatch)
    monkeypatch.setattr(cls.source, "url", server.url + archive.name)
    return archive.name


EVERY = [MNIST, FashionMNIST, KMNIST, EMNIST, CIFAR10]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_missing_files_are_downloaded_once(server, monkeypatch, tmp_path, cls):
    name = serve(server, monkeypatch, cls)
    data = cls(root=str(tmp_path / "root"), val_size=47)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    (there,) = (tmp_path / "root").rglob(name)
    assert there.read_bytes() == (server.folder / name).read_bytes()
    shutil.rmtree(server.folder)
    data.prepare_data()  # nothing is fetched again


@pytest.mark.parametrize("fault", ["wrong checksum", "404", "dropped half-way"])
@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_a_failed_download_leaves_nothing_and_the_next_one_succeeds(server, monkeypatch, tmp_path, cls, fault):
    name = serve(server, monkeypatch, cls)
    whole = (server.folder / name).read_bytes()
    if fault == "404":
        (server.folder / name).unlink()
    elif fault == "wrong checksum":
        (server.folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        server.dropped.add(name)
    root = tmp_path / "root"
    data = cls(root=str(root), val_size=47)
    with pytest.raises(UserError, match=rf"(?s){name}.*data=digits"):
        data.prepare_data()
    assert not list(root.rglob(name))
    assert not list(root.rglob(".*"))
    (server.folder / name).write_bytes(whole)
    server.dropped.clear()
    data.prepare_data()
    data.setup("test")


@pytest.mark.parametrize(
    ("subset", "num_classes", "first"), [("letters", 26, 1), ("digits", 10, 0), ("byclass", 62, 0)]
)
def test_emnist_is_upright_and_its_labels_start_at_zero(tmp_path, monkeypatch, subset, num_classes, first):
    folder = tmp_path / "EMNIST" / "raw"
    prefixes = (f"emnist-{subset}-train", f"emnist-{subset}-test")
    write_idx_files(folder, 130, 62, prefixes=prefixes, num_classes=num_classes, first_label=first)
    truth = datasets.EMNIST(str(tmp_path), split=subset, train=False)
    images, labels = EMNIST(root=str(tmp_path), split=subset).read("test")
    assert images.squeeze(1).transpose(1, 2).equal(truth.data)
    data = EMNIST(root=str(tmp_path), split=subset)
    assert data.num_classes == num_classes
    assert [data.class_names[label] for label in labels] == [truth.classes[label] for label in truth.targets]
    with pytest.raises(ValueError, match="data.split='nothing' is not one of byclass"):
        EMNIST(split="nothing")


def test_emnists_archive_must_match_its_checksum(tmp_path, monkeypatch):
    folder = tmp_path / "EMNIST" / "raw"
    write_idx_files(folder, packed=True, prefixes=("emnist-digits-train", "emnist-digits-test"))
    archive = pack_emnist_files(folder, monkeypatch)
    data = EMNIST(root=str(tmp_path), split="digits")
    assert len(data.read("test")[0]) == 20
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UserError, match="gzip.zip does not match its checksum"):
        EMNIST(root=str(tmp_path), split="digits").read("test")
