import hashlib
import os
import pickle
import shutil

import pytest
import torch
from torchvision import datasets

from experiments.data import CIFAR10
from experiments.errors import UserError
from tests.small_data import pack_cifar_files, write_cifar_files


def ready(root):
    data = CIFAR10(root=str(root), val_size=20)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def test_the_folder_and_the_archive_hold_what_torchvision_reads(tmp_path, monkeypatch):
    folder = write_cifar_files(tmp_path, monkeypatch)
    pack_cifar_files(folder, monkeypatch)
    from_folder = ready(tmp_path)
    assert {name: len(split) for name, split in from_folder.splits.items()} == {"train": 80, "val": 20, "test": 20}
    with monkeypatch.context() as patch:  # the names of the classes lie in a file that is not needed here
        patch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
        truth = {split: datasets.CIFAR10(str(tmp_path), train=split == "train") for split in ("train", "test")}
    shutil.rmtree(folder)
    from_archive = ready(tmp_path)
    assert not folder.exists()  # read where it lies
    for data in (from_folder, from_archive):
        for split in ("train", "test"):
            images, labels = data.read(split)
            assert images.permute(0, 2, 3, 1).equal(torch.from_numpy(truth[split].data))
            assert labels.tolist() == truth[split].targets


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_pickle_runs_nothing(tmp_path, monkeypatch):
    folder = write_cifar_files(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": Hostile(), "labels": [0]}, protocol=2)
    (folder / "test_batch").write_bytes(content)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", hashlib.md5(content).hexdigest()]])
    with pytest.raises(UserError, match=r"test_batch is no batch of CIFAR-10: it names (posix|nt)\.mkdir"):
        ready(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_todays_pickles_of_numpy_arrays_are_read_too(tmp_path, monkeypatch):
    folder = write_cifar_files(tmp_path, monkeypatch)
    images = torch.randint(0, 256, (7, 3072), dtype=torch.uint8)
    for protocol in (2, 4):
        content = pickle.dumps({"data": images.numpy(), "labels": list(range(7))}, protocol=protocol)
        (folder / "test_batch").write_bytes(content)
        monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", hashlib.md5(content).hexdigest()]])
        read, labels = CIFAR10(root=str(tmp_path)).read("test")
        assert read.flatten(1).equal(images)
        assert labels.tolist() == list(range(7))
