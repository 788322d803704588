import pytest

from experiments.errors import UserError
from experiments.runs.allowed_classes import check_allowed

ALLOWED = [
    {"_target_": "experiments.nets.MLP", "hidden_features": [8]},
    {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1, "betas": [0.9, 0.999]},
    {"_target_": "torch.nn.CrossEntropyLoss"},
    {"_target_": "experiments.learning.Classifier", "net": {"_target_": "experiments.nets.CNN"}},
    {"_target_": "torchmetrics.classification.MulticlassF1Score", "num_classes": 10},
    {"_target_": "experiments.data.MNIST", "root": "data"},
    {"_target_": "torchvision.models.resnet18", "num_classes": 10},
    {"_target_": "torch.tensor", "data": [1.0, 2.0]},
    {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.Flatten"}]},
    {"_target_": "lightning.pytorch.profilers.PyTorchProfiler", "record_shapes": True},
    {
        "_target_": "lightning.pytorch.strategies.DDPStrategy",
        "timeout": {"_target_": "datetime.timedelta", "days": 1},
    },
    {"_target_": "lightning.pytorch.plugins.environments.LightningEnvironment"},
    {"_target_": "lightning.pytorch.plugins.precision.MixedPrecision", "precision": "bf16-mixed", "device": "cpu"},
]

REFUSED = [
    {"_target_": "os.system", "command": "true"},
    {"_target_": "subprocess.run", "args": ["true"]},
    {"_target_": "builtins.eval"},
    {"_target_": "torch.load", "f": "x", "weights_only": False},
    {"_target_": "torchvision.models.get_model", "name": "resnet18"},
    {"_target_": "torchvision.models.get_model_weights", "name": "resnet18"},
    {"_target_": "torchvision.models.list_models"},
    {"_target_": "torchvision.models.resnet.resnet18"},
    {"_target_": "torchvision.datasets.MNIST", "root": "x", "download": True},
    {"_target_": "torch.from_file", "filename": "x"},
    {"_target_": "torch.nn.init.os.getcwd"},
    {"_target_": "lightning.pytorch.plugins.io.TorchCheckpointIO"},
    {"_target_": "torch.hub.load", "repo_or_dir": "x"},
    {"_target_": "torch.nn.functional.warnings.sys.exit"},
    {"_target_": "torch.nn.modules.module.torch.load"},
    {"_target_": "torch.optim.optimizer.functools.partial"},
    {"_target_": "experiments.runs.files.os.unlink", "path": "x"},
    {"_target_": "experiments.runs.files.write_atomically"},
    {"_target_": "experiments.training.build.make"},
    {"_target_": "experiments.data.mnist.urllib.request.urlopen"},
    {"_target_": "torch.nn.Module.load_state_dict"},
    {"_target_": "experiments"},
    {"_target_": "experiments.nets.Nothing"},
    {"_target_": 3},
    {"_target_": "experiments.nets.MLP", "_args_": [1]},
    {"_target_": "experiments.nets.MLP", "_convert_": "none"},
    {"net": {"deep": [{"_target_": "os.getcwd"}]}},
    {"_target_": "experiments.nets.MLP", "activation": "${oc.env:HOME}"},
    {"value": ...},
]


@pytest.mark.parametrize("config", ALLOWED, ids=lambda config: config["_target_"])
def test_classes_of_the_right_kind_and_package_pass(config):
    check_allowed(config, "file.ckpt")


@pytest.mark.parametrize("config", REFUSED, ids=str)
def test_everything_else_is_refused_and_the_file_named(config):
    with pytest.raises(UserError, match=r"file\.ckpt"):
        check_allowed(config, "file.ckpt")


def test_a_users_package_is_allowed_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text("from torch import nn\nimport os\nclass MyNet(nn.Linear): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"trust=\[my_nets\]"):
        check_allowed({"_target_": "my_nets.MyNet"}, "file.ckpt")
    check_allowed({"_target_": "my_nets.MyNet"}, "file.ckpt", trust=["my_nets"])
    with pytest.raises(UserError):
        check_allowed({"_target_": "my_nets.os.getcwd"}, "file.ckpt", trust=["my_nets"])
    with pytest.raises(UserError):
        check_allowed({"_target_": "my_nets_of_another.MyNet"}, "file.ckpt", trust=["my_nets"])
