"""Networks of timm: their weights fit other heads, colours and sizes, and are needed once."""

import json
import shutil
import socket
import time

import pytest
import torch

import experiments
from experiments.config.checks.check import validated
from experiments.errors import UserError
from experiments.inference.evaluate import evaluate
from experiments.nets import pretrained, timm_networks
from experiments.training.build import build
from experiments.training.dry_run import dry_run
from experiments.training.run import train
from tests.faults.test_resume import same
from tests.small_data import write_image_folder

timm = pytest.importorskip("timm")
NAME = "test_resnet"  # a small one, of timm's own tests
MODEL = ("model=pretrained", f"model.net.name={NAME}")
QUIET = ("trainer.accelerator=cpu", "callbacks=minimal", "logger=none", "trainer.max_epochs=1", "test=false")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_image_folder(folder)
    return folder


@pytest.fixture(scope="module")
def source():
    """A network that has seen 7 classes in colour."""
    torch.manual_seed(5)
    return timm.create_model(NAME, num_classes=7)


def test_without_weights_it_is_timms_and_chance_is_left_alone():
    torch.manual_seed(3)
    net, after = pretrained(NAME, 4, in_channels=1, weights="none", drop_rate=0.5), torch.rand(1)
    torch.manual_seed(3)
    truth = timm.create_model(NAME, num_classes=4, in_chans=1, drop_rate=0.5)
    torch.manual_seed(3)
    assert torch.rand(1).equal(after)
    same(net.state_dict(), truth.state_dict())
    assert str(net) == str(truth)


@pytest.mark.parametrize("kind", ["plain", "wrapped", "safetensors", "checkpoint"])
def test_weights_in_any_file_fit_another_head_and_other_channels(tmp_path, source, photos, kind):
    weights, path = source.state_dict(), tmp_path / "weights.pth"
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        pytest.importorskip("safetensors.torch").save_file(weights, path)
    elif kind == "checkpoint":
        config = experiments.compose(*MODEL, "model.net.weights=none", *QUIET, "data=image_folder",
                                     f"data.root={photos}", "data.image_size=40", f"run_dir={tmp_path}/run",
                                     "callbacks=default", "callbacks.report=null")  # fmt: skip
        train(config)
        path = tmp_path / "run" / "checkpoints" / "best.ckpt"
        weights = experiments.load(path).state_dict()
    else:
        torch.save(
            {f"module.{name}": value for name, value in weights.items()} if kind == "wrapped" else weights, path
        )
    typed = ("data=image_folder", f"data.root={photos}", "data.mode=L", f"run_dir={tmp_path}/next", *QUIET)
    experiment = build(experiments.compose(*MODEL, f"model.net.weights={path}", *typed))
    ours = experiment.classifier.net.state_dict()
    for name, value in weights.items():
        if name == "conv1.0.weight":
            torch.testing.assert_close(ours[name], value.sum(1, keepdim=True))  # a grey image, thrice
        elif not name.startswith("fc."):
            assert ours[name].equal(value), name
    assert ours["fc.weight"].shape[0] == 2
    data = experiment.data
    if kind == "checkpoint":
        card = torch.load(path, weights_only=True)["hyper_parameters"]["card"]
        assert data.image_shape == (1, 40, 40)
        assert data.mean == pytest.approx([sum(card["mean"]) / 3])
    else:
        assert data.image_shape == (1, 32, 32)
        assert data.mean == pytest.approx([sum(timm.get_pretrained_cfg(NAME).mean) / 3])


def test_weights_for_grey_images_fit_colours(tmp_path, photos):
    torch.manual_seed(2)
    grey = timm.create_model(NAME, num_classes=7, in_chans=1)
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    typed = ("data=image_folder", f"data.root={photos}", f"run_dir={tmp_path}/run", *QUIET, "data.mean=[0.5]")
    experiment = build(experiments.compose(*MODEL, f"model.net.weights={tmp_path}/grey.pth", *typed))
    ours = experiment.classifier.net.state_dict()
    assert ours["conv1.0.weight"].shape[1] == 3
    assert ours["layer2.0.conv1.weight"].equal(grey.state_dict()["layer2.0.conv1.weight"])
    same_image = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(same_image.expand(-1, 3, -1, -1), ours["conv1.0.weight"]),
        torch.nn.functional.conv2d(same_image, grey.state_dict()["conv1.0.weight"]),
    )
    assert experiment.data.mean == [0.5] * 3
    with pytest.raises(ValueError, match="must be default, none or a state_dict"):
        pretrained(NAME, 3, weights="grey.pth")


def test_what_is_typed_wins_over_what_the_weights_say(tmp_path, source, photos, caplog):
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    typed = ("data=image_folder", f"data.root={photos}", "data.image_size=36", "data.mean=[0.1,0.2,0.3]")
    config = experiments.compose(*MODEL, f"model.net.weights={tmp_path}/weights.pth", *typed, *QUIET,
                                 f"run_dir={tmp_path}/run")  # fmt: skip
    with caplog.at_level("INFO"):
        data = build(config).data
    assert (data.image_shape, data.mean) == ((3, 36, 36), [0.1, 0.2, 0.3])
    assert data.std == list(timm.get_pretrained_cfg(NAME).std)
    assert "as the weights of test_resnet were trained: data.std=[" in caplog.text
    with pytest.raises(UserError, match=r"data.mean|\[0.1, 0.2\] must be a list of 3"):
        build(experiments.compose(*MODEL, "model.net.weights=none", *typed, *QUIET, "data.mean=[0.1,0.2]",
                                  f"run_dir={tmp_path}/run"))  # fmt: skip


def test_a_run_killed_before_its_first_checkpoint_needs_the_file_no_more(tmp_path, source, monkeypatch):
    """The truth is the run that nothing has stopped."""
    typed = (*MODEL, f"model.net.weights={tmp_path}/weights.pth", "data.limit=64", *QUIET, "callbacks=checkpoints")
    summaries = {}
    for name in ("truth", "killed"):
        torch.save(source.state_dict(), tmp_path / "weights.pth")
        typed = (
            *MODEL,
            f"model.net.weights={tmp_path}/weights.pth",
            "data.limit=64",
            *QUIET,
            "callbacks=checkpoints",
        )
        where = f"run_dir={tmp_path / name}"
        if name == "killed":
            from lightning import Trainer

            with monkeypatch.context() as patch:
                patch.setattr(Trainer, "fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
                with pytest.raises(KeyboardInterrupt):
                    train(experiments.compose(*typed, where), typed)
            (tmp_path / "weights.pth").unlink()
            where = f"{where} resume={tmp_path / name}"
        config = experiments.compose(*typed, *where.split())
        summaries[name] = train(config, typed)
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True) for name in summaries
    )
    same(first["state_dict"], second["state_dict"])
    assert not list(tmp_path.glob("*/checkpoints/initial_weights.pt"))
    assert json.loads((tmp_path / "killed" / "summary.json").read_text())["status"] == "finished"
    # resumed once more, evaluated, loaded and exported without the file
    assert train(experiments.compose(f"run_dir={tmp_path / 'killed'}", f"resume={tmp_path / 'killed'}"))["steps"] == 2
    assert 0 <= evaluate(tmp_path / "killed")["test/accuracy"] <= 1
    net = experiments.load(tmp_path / "killed" / "checkpoints" / "best.ckpt")
    same(net.state_dict(), {name.removeprefix("net."): value for name, value in first["state_dict"].items()
                            if name.startswith("net.")})  # fmt: skip


def test_init_from_survives_a_kill_before_the_first_checkpoint_too(tmp_path, monkeypatch):
    from lightning import Trainer

    config = experiments.compose(f"run_dir={tmp_path}/first", *QUIET, "seed=3")
    weights = build(config).classifier.net.state_dict()
    torch.save(weights, tmp_path / "model.pth")
    typed = (f"init_from={tmp_path}/model.pth", *QUIET, f"run_dir={tmp_path}/run", "data.limit=64")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(experiments.compose(*typed), typed)
    (tmp_path / "model.pth").unlink()
    started = []
    monkeypatch.setattr(
        Trainer, "fit", lambda trainer, module, **_: started.append(module.net.state_dict()) or _stop()
    )
    with pytest.raises(KeyboardInterrupt):
        train(experiments.compose(*typed, f"resume={tmp_path}/run"), typed)
    same(started[0], weights)


def _stop():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("model.net.name=test_resnett", "model.net.name=test_resnett: it is no network of timm. Did you mean"),
        ("model.net.weights=nowhere.pth", "model.net.weights=nowhere.pth: it is no file: name a state_dict"),
        ("+model.net.checkpoint_path=x", "checkpoint_path cannot be set"),
        ("+model.net.no_such=1", "test_resnet does not take its options"),
        ("model.net.name=convnext_atto", "convnext_atto does not take images of 1 × 28 × 28"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_a_step(tmp_path, typed, words):
    with pytest.raises(UserError, match=words.replace("+", r"\+")):
        build(experiments.compose(*MODEL, "model.net.weights=none", *typed.split(), *QUIET, f"run_dir={tmp_path}"))


def test_weights_of_another_network_are_refused(tmp_path, source):
    torch.save(timm.create_model("test_efficientnet", num_classes=7).state_dict(), tmp_path / "other.pth")
    partly = {name: value for name, value in source.state_dict().items() if not name.startswith("layer2")}
    torch.save(partly, tmp_path / "partly.pth")
    for name in ("other", "partly"):
        with pytest.raises(UserError, match=r"model.net.weights do not fit test_resnet"):
            build(experiments.compose(*MODEL, f"model.net.weights={tmp_path / name}.pth", *QUIET,
                                      f"run_dir={tmp_path}/run"))  # fmt: skip


@pytest.mark.parametrize("hub", ["refuses", "is silent"])
def test_a_hub_that_does_not_answer_ends_with_what_to_type(tmp_path, monkeypatch, hub):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if hub == "is silent":
            listening.listen()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(timm_networks, "MAX_WAIT", 0.2)
        start = time.monotonic()
        with pytest.raises(UserError, match=r"does not answer. Connect to it, or type model.net.weights=<file>"):
            pretrained(NAME, 3)
        with pytest.raises(UserError, match="does not answer"):  # check=true says so, too
            dry_run(validated(experiments.compose(*MODEL, f"run_dir={tmp_path}/run")))
        assert time.monotonic() - start < 10


def test_weights_that_were_fetched_once_are_taken_without_a_connection(tmp_path, monkeypatch):
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(7)
    theirs = timm.create_model(NAME)
    folder = tmp_path / f"models--{theirs.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(theirs.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    ours = pretrained(NAME, 3).state_dict()
    for name, value in theirs.state_dict().items():
        assert name.startswith("fc.") or ours[name].equal(value), name
    shutil.rmtree(folder)


@pytest.mark.parametrize("net", [{}, {"weights": "default"}, {"weights": "other.pth"}])
def test_a_checkpoint_cannot_make_its_reader_fetch_or_read_anything(tmp_path, monkeypatch, net):
    config = experiments.compose(*MODEL, "model.net.weights=none", *QUIET, "callbacks=checkpoints", "data.limit=64",
                                 f"run_dir={tmp_path}/run")  # fmt: skip
    train(config)
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    stored = content["hyper_parameters"]["card"]["net"]
    assert stored.pop("weights") is None
    stored |= net
    torch.save(content, path)
    monkeypatch.setattr(timm_networks, "_require_hub", lambda *_: pytest.fail("it was fetched"))
    monkeypatch.setattr(timm_networks, "_cached_file", lambda *_: pytest.fail("it was read"))
    assert experiments.load(path)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_a_vision_transformer_is_built_for_the_images_at_hand_and_its_layers_are_known(tmp_path, photos):
    images = ("data=image_folder", f"data.root={photos}", "data.image_size=48")
    typed = ("model=pretrained", "model.net.name=test_vit", "model.net.weights=none", "param_groups=layer_decay")
    experiment = build(experiments.compose(*typed, *images, *QUIET, f"run_dir={tmp_path}", "optimizer=adamw"))
    net = experiment.classifier.net
    assert net.patch_embed.grid_size == (3, 3)
    assert net(torch.zeros(2, 3, 48, 48)).shape == (2, 2)
    from timm.optim import param_groups_layer_decay

    from experiments.learning.param_groups import ParamGroup, parameter_groups

    theirs = {id(one): group["lr_scale"] for group in param_groups_layer_decay(net, layer_decay=0.75)
              for one in group["params"]}  # fmt: skip
    ours = {id(one): group["lr_factor"] for group in parameter_groups(net, {"x": ParamGroup(layer_decay=0.75)}, 2)
            for one in group["params"]}  # fmt: skip
    assert len(set(ours.values())) > 2
    assert ours == pytest.approx(theirs)
