import io
import os
import pickle
import zipfile
from pathlib import Path
from threading import Event

import pytest
import torch

import experiments
from experiments.data import Digits
from experiments.errors import UserError
from experiments.learning.classifier import Classifier
from experiments.nets import MLP
from experiments.runs.checkpoint_files import AtomicCheckpointIO, rolling_name
from experiments.runs.files import write_atomically
from experiments.training.build import build
from experiments.training.run import fit_and_test


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of a network with options: its folder, its experiment, its summary."""
    folder = tmp_path_factory.mktemp("run")
    config = experiments.compose(
        "model.net.hidden_features=[16,8]", "model.net.dropout=0.1", "trainer.max_epochs=2",
        "trainer.limit_train_batches=5", "trainer.accelerator=cpu", f"run_dir={folder}", "callbacks=minimal",
    )  # fmt: skip
    experiment = build(config)
    return folder, experiment, fit_and_test(experiment, config)


def test_load_rebuilds_the_network_from_the_file_alone(run):
    folder, _experiment, summary = run
    net = experiments.load(folder / summary["best_checkpoint"])
    assert isinstance(net, MLP)
    assert not net.training
    images, labels = Digits().read("test")
    with torch.no_grad():
        accuracy = (
            (net(experiments.data.normalize(images, Digits.mean, Digits.std)).argmax(1) == labels).float().mean()
        )
    assert accuracy.item() == pytest.approx(summary["test/accuracy"], abs=1e-6)


def test_a_checkpoint_is_tensors_and_plain_values(run):
    folder, _, _ = run
    files = sorted((folder / "checkpoints").iterdir())
    assert [path.name.partition("-")[0] for path in files] == ["best.ckpt", "rolling", "rolling"]
    for path in files:
        content = torch.load(path, weights_only=True)
        card = content["hyper_parameters"]["card"]
        assert card["image_shape"] == [1, 28, 28]
        assert card["class_names"] == list("0123456789")
        assert card["net"]["in_features"] == 784
        assert card["outputs"] == "classes"
        assert not [value for value in card.values() if type(value) not in (dict, list, str)]


def test_load_from_checkpoint_works_with_objects_given(run):
    folder, _, _ = run
    module = Classifier.load_from_checkpoint(
        folder / "checkpoints" / "best.ckpt",
        net=MLP(hidden_features=[16, 8], dropout=0.1),
        loss=torch.nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam,
    )
    theirs = experiments.load(folder / "checkpoints" / "best.ckpt").state_dict()
    assert all(value.equal(theirs[name]) for name, value in module.net.state_dict().items())


def test_a_failed_write_leaves_the_file_before_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "best.ckpt"
    write_atomically(path, b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"best.ckpt cannot be written: No space left on device"):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match=r"x.ckpt cannot be written"):
        write_atomically(path / "x.ckpt", b"below a file")


def test_training_does_not_wait_for_the_disk_but_loading_and_the_end_do(tmp_path, monkeypatch):
    may_write = Event()
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: may_write.wait(60) and flush(file))
    files = AtomicCheckpointIO()
    files.write_in_background()
    first, second = (tmp_path / rolling_name(0, step) for step in (1, 2))
    weights = torch.ones(3)
    files.save_checkpoint({"state_dict": {"weight": weights}}, first)
    weights.fill_(2)
    assert not first.exists()
    may_write.set()
    assert files.load_checkpoint(first)["state_dict"]["weight"].tolist() == [1, 1, 1]
    files.save_checkpoint({"state_dict": {"weight": weights}}, second)
    files.teardown()
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_what_lightning_looks_at_is_written_at_once_and_after_what_came_before(tmp_path):
    files = AtomicCheckpointIO()
    files.write_in_background()
    files.save_checkpoint({}, tmp_path / rolling_name(0, 1))
    files.save_checkpoint({}, tmp_path / "best.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", rolling_name(0, 1)]
    files.teardown()


def test_what_a_write_in_the_background_refuses_is_raised_by_the_next(tmp_path):
    files = AtomicCheckpointIO()
    files.write_in_background()
    (tmp_path / "file").touch()
    files.save_checkpoint({}, tmp_path / "file" / rolling_name(0, 1))
    with pytest.raises(UserError, match=r"rolling-0000-0000001.ckpt cannot be written"):
        files.save_checkpoint({}, tmp_path / rolling_name(0, 2))
    files.teardown()  # nothing is left to be raised


def test_every_damage_is_noticed(run, tmp_path):
    whole = (run[0] / "checkpoints" / "best.ckpt").read_bytes()
    path = tmp_path / "damaged.ckpt"
    middle = whole.index(b"data/1") + 300  # inside a tensor, where torch.load notices nothing
    damaged = {
        "empty": b"",
        "text": b"hello",
        "truncated": whole[: len(whole) // 2],
        "flipped bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"damaged.ckpt"):
            experiments.load(path)
    with pytest.raises(UserError, match="there is no checkpoint at"):
        experiments.load(tmp_path / "none.ckpt")


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


def test_a_pickle_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"hyper_parameters": Harm(), "state_dict": {}}, "module.ckpt")
    Path("plain.ckpt").write_bytes(pickle.dumps(Harm()))
    for name in ("module.ckpt", "plain.ckpt"):
        with pytest.raises(UserError, match=name):
            experiments.load(name)
    assert not Path("harmed").exists()


def test_a_checkpoint_that_does_not_describe_itself_says_what_to_do(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="does not say how to build its network"):
        experiments.load(tmp_path / "other.ckpt")


def test_weights_that_do_not_fit_are_named(run, tmp_path):
    content = torch.load(run[0] / "checkpoints" / "best.ckpt", weights_only=True)
    del content["state_dict"]["net.linear_relu_stack.6.bias"]
    torch.save(content, tmp_path / "short.ckpt")
    with pytest.raises(UserError, match="linear_relu_stack.6.bias"):
        experiments.load(tmp_path / "short.ckpt")


def test_checkpoints_are_ordinary_zip_archives():
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    assert zipfile.ZipFile(buffer).testzip() is None
