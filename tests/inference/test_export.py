import importlib.util
import json

import pytest
import torch

import experiments
from experiments.data import Digits, normalize
from experiments.errors import UserError
from experiments.inference.export import export, onnx_bytes
from experiments.training.run import train
from tests.tutorial import NetWithResBlock, NeuralNetwork, SimpleCNN

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
         "trainer.accelerator=cpu", "callbacks=minimal", "logger=none", "test=false")  # fmt: skip


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """The best checkpoint of a short run of the named network, with its defaults; each is trained once."""
    known = {}

    def path(name):
        if name not in known:
            known[name] = tmp_path_factory.mktemp(name)
            own = ("model=custom", f"model.net._target_=experiments.nets.{name}")
            train(experiments.compose(*own, *SHORT, f"run_dir={known[name]}"))
        return known[name] / "checkpoints" / "best.ckpt"

    return path


@pytest.fixture(scope="module")
def images():
    return Digits().read("test")[0][:50]


def logits_of(net, images):
    with torch.no_grad():
        return net(normalize(images, Digits.mean, Digits.std))


@pytest.mark.parametrize(
    ("name", "tutorials"), [("MLP", NeuralNetwork), ("CNN", SimpleCNN), ("ResNet", NetWithResBlock)]
)
def test_the_tutorials_classes_load_the_state_dict_and_a_run_starts_from_it(best, images, tmp_path, name, tutorials):
    path = export(best(name), "state_dict", tmp_path / "model.pth")
    net = tutorials()
    net.load_state_dict(torch.load(path, weights_only=True), strict=True)
    trained = experiments.load(best(name))
    assert logits_of(net.eval(), images).equal(logits_of(trained, images))
    # and the way back
    own = ("model=custom", f"model.net._target_=experiments.nets.{name}", f"init_from={path}", f"run_dir={tmp_path}")
    started = experiments.build(experiments.compose(*own, "trainer.accelerator=cpu")).classifier.net
    assert all(value.equal(trained.state_dict()[key]) for key, value in started.state_dict().items())


@pytest.mark.parametrize("name", ["MLP", "CNN", "ResNet", "RNN", "VisionTransformer"])
def test_onnx_logits_are_torchs_for_any_number_of_images(best, images, name):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    net = experiments.load(best(name))
    truth = logits_of(net, images)
    session = onnxruntime.InferenceSession(onnx_bytes(net), providers=["CPUExecutionProvider"])
    assert logits_of(net, images).equal(truth)  # exporting leaves a network as it was
    assert [node.name for node in (*session.get_inputs(), *session.get_outputs())] == ["images", "logits"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list("0123456789")
    assert truth.std() > 0.01
    for count in (1, 7, 50):
        (logits,) = session.run(None, {"images": (images[:count].float() / 255).numpy()})
        assert logits.shape == (count, 10)
        assert (torch.from_numpy(logits) - truth[:count]).abs().max() <= 1e-4


class Branches(torch.nn.Linear):
    card = {"image_shape": [1, 2, 2], "mean": [0.0], "std": [1.0], "class_names": ["a", "b"]}  # noqa: RUF012

    def forward(self, x):
        x = super().forward(x.flatten(1))
        return x if x.sum() > 0 else -x


def test_a_network_that_onnx_cannot_express_says_so_in_one_message(capfd):
    pytest.importorskip("onnxscript")
    with pytest.raises(UserError, match="(?s)cannot express Branches in ONNX: .*format=state_dict"):
        onnx_bytes(Branches(4, 2))
    assert capfd.readouterr() == ("", "")


def test_missing_packages_are_named_with_the_command(best, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.inference.export.find_spec", lambda name: name == "onnx" or None)
    with pytest.raises(UserError, match="format=onnx needs onnxscript, onnxruntime: pip install onnxscript onnxr"):
        export(best("MLP"), "onnx", tmp_path / "model.onnx")
    assert importlib.util.find_spec("torch")


def test_the_script_writes_the_file_that_is_asked_for(best, script_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = best("MLP").parents[1]
    assert script_here("export", f"run={run}", "format=state_dict") == (0, "written: model.pth\n", "")
    assert (tmp_path / "model.pth").is_file()
    code, _, errors = script_here("export", f"run={run}", "format=pickle")
    assert (code, errors) == (2, "error: format=pickle is not one of state_dict, onnx\n")
    code, _, errors = script_here("export", "format=onnx")
    assert (code, errors.startswith("error: name either run=")) == (2, True)
