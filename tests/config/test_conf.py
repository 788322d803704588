"""Every file under conf, found by itself: it composes, it builds, it trains a step."""

from pathlib import Path

import pytest
import torch

import experiments
from experiments.config.checks.check import config_mistakes
from experiments.config.checks.classes import class_mistakes
from experiments.config.installation import CONF
from experiments.errors import UserError
from experiments.training.build import build, make
from experiments.training.run import fit_and_test
from tests.packing import packed


def choices(group: str) -> list[str]:
    found = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    assert found, f"no config in conf/{group}"
    return found


GROUPS = [path.name for path in sorted(CONF.iterdir()) if path.is_dir() and path.name not in ("hydra", "local")]
EVERY = [(group, choice) for group in GROUPS for choice in choices(group)]
SMALL = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu", "callbacks=minimal")
NARROW = ("model.net.hidden_features=[16]",)


def commands_with_every_choice() -> list[list[str]]:
    """Choices of many groups at once, where they go together; a recipe alone, since it chooses for other groups."""
    alone, apart = {"experiment"}, {"augment", "sweep", "debug"}
    of_layers = {"optimizer", "param_groups"}  # some of which a network of one layer does not go with
    groups = [[row] for row in EVERY if row[0] in alone]
    groups += packed([row for row in EVERY if row[0] in apart])
    groups += packed([row for row in EVERY if row[0] in of_layers])
    groups += packed([row for row in EVERY if row[0] not in alone | apart | of_layers])
    return [["=".join(row) for row in group] for group in groups]


@pytest.mark.parametrize("typed", commands_with_every_choice(), ids=" ".join)
def test_every_choice_composes_and_holds_no_mistake(typed):
    own = {
        "model=custom": ["model.net._target_=experiments.nets.MLP"],
        "data=custom": ["data._target_=experiments.data.Digits"],
        "data=image_folder": ["data.root=somewhere"],
        "data=image_table": ["data.table=somewhere"],
    }
    config = experiments.compose(*typed, *(more for choice in typed for more in own.get(choice, ())))
    assert config["model"]["_target_"]
    assert config["run_dir"]
    assert config_mistakes(config, files=False) == []
    assert class_mistakes(config) == []


WITHOUT_WEIGHTS = {"pretrained": ["model.net.weights=none", "model.net.name=test_resnet"]}  # which would be fetched
NETWORKS = [model for model in choices("model") if model != "custom"]
DATA_SETS = [data for data in choices("data") if data != "custom"]
COLOURED = ["cifar10", "image_folder"]
GREY = [data for data in DATA_SETS if data not in COLOURED]
PAIRS = [(model, several[row % len(several)]) for row, model in enumerate(NETWORKS) for several in (GREY, COLOURED)]
PAIRS += [(NETWORKS[0], data) for data in GREY[len(NETWORKS) :]]


@pytest.mark.parametrize(("model", "data"), PAIRS)
def test_every_network_trains_a_step_on_several_data_sets_with_and_without_colours_and_tests(
    model, data, small_data, tmp_path
):
    config = experiments.compose(
        f"model={model}",
        f"data={data}",
        *small_data(data),
        *WITHOUT_WEIGHTS.get(model, ()),
        *SMALL,
        f"run_dir={tmp_path}",
        "logger=none",
    )
    summary = fit_and_test(build(config), config)
    assert summary["steps"] == 1
    assert 0 <= summary["test/accuracy"] <= 1


AUGMENTATIONS = [name for name in choices("augment") if name not in ("none", "mixup", "cutmix")]
SEVERAL = [[*AUGMENTATIONS[::2], "mixup"], [*AUGMENTATIONS[1::2], "cutmix"]]


@pytest.mark.parametrize("augment", ["none", "affine", "mixup", *(f"[{','.join(names)}]" for names in SEVERAL)])
def test_every_augmentation_trains_a_step(augment, tmp_path):
    config = experiments.compose(f"augment={augment}", *SMALL, *NARROW, f"run_dir={tmp_path}", "logger=none")
    experiment = build(config)
    names = [] if augment == "none" else augment.strip("[]").split(",")
    assert [type(made).__name__.lower() for made in experiment.data.augment] == [n.replace("_", "") for n in names]
    assert fit_and_test(experiment, config)["steps"] == 1


@pytest.mark.parametrize("metric", choices("metrics"))
def test_every_metric_is_measured_on_val_and_test_alone(metric, tmp_path):
    config = experiments.compose(f"metrics=[{metric}]", *SMALL, *NARROW, f"run_dir={tmp_path}", "logger=none")
    (name,) = config["metrics"]
    experiment = build(config)
    summary = fit_and_test(experiment, config)
    assert 0 <= summary[f"test/{name}"] <= 1
    logged = set(experiment.trainer.logged_metrics)
    assert f"train/{name}" not in logged
    assert f"test/{name}" in logged


FURTHER = [name for name in choices("callbacks") if name not in ("default", "none")]


@pytest.mark.parametrize("chosen", ["default", "[default,none]", f"[default,{','.join(FURTHER)}]"])
def test_every_callback_goes_through_a_run_beside_the_default_ones(chosen, tmp_path):
    config = experiments.compose(
        *SMALL, *NARROW, f"callbacks={chosen}", "trainer.max_epochs=2", f"run_dir={tmp_path}"
    )
    assert fit_and_test(build(config), config)["steps"] == 2
    assert experiments.load(tmp_path / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize("debug", choices("debug"))
def test_every_debug_preset_runs(debug, tmp_path):
    narrow = NARROW if debug != "overfit" else ("model.net.hidden_features=[64]",)
    config = experiments.compose(f"debug={debug}", *SMALL[2:], *narrow, f"run_dir={tmp_path}", "logger=none")
    summary = fit_and_test(build(config), config)
    if debug == "overfit":
        assert summary["steps"] == 100
        net = experiments.load(tmp_path / "checkpoints" / "best.ckpt")
        data = make(config["data"])
        data.setup("fit")
        images, labels = data.on_after_batch_transfer(data.splits["train"].tensors, 0)
        with torch.no_grad():
            assert (net(images).argmax(1) == labels).float().mean() > 0.98


@pytest.mark.parametrize(
    ("choice", "key"),
    [("data=image_folder", "data.root"), ("data=image_table", "data.table"), ("model=custom", "model.net._target_")],
)
def test_what_has_no_default_is_asked_for_by_its_name(choice, key):
    with pytest.raises(UserError, match=f"^{key} must be given, as key=value"):
        experiments.compose(choice)


def test_a_group_named_after_every_folder_is_in_the_defaults_list():
    text = (CONF / "train.yaml").read_text()
    for folder in (path.name for path in CONF.iterdir() if path.is_dir()):
        assert f"{folder}:" in text or f"{folder}/" in text, folder


def test_all_common_trainer_keys_need_no_plus():
    import inspect

    from lightning import Trainer

    ours = set(experiments.compose()["trainer"]) - {"_target_"}
    theirs = set(inspect.signature(Trainer).parameters)
    assert ours <= theirs
    assert theirs - ours <= {
        "logger", "callbacks", "plugins", "enable_checkpointing", "fast_dev_run", "overfit_batches", "barebones",
        "limit_predict_batches", "inference_mode", "reload_dataloaders_every_n_epochs", "enable_autolog_hparams",
        "model_registry", "self",
    }  # fmt: skip


def test_a_users_local_defaults_are_taken_where_they_exist():
    assert "optional local: default" in (CONF / "train.yaml").read_text()
    assert "/conf/local/" in (Path(CONF).parent / ".gitignore").read_text()
