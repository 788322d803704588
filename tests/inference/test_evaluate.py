import json
import shutil

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import experiments
from experiments.data import MNIST, Digits, normalize
from experiments.errors import UserError
from experiments.inference.evaluate import evaluate
from experiments.training.run import train

SHORT = ("model.net.hidden_features=[16]", "trainer.max_epochs=2", "trainer.limit_train_batches=20",
         "trainer.accelerator=cpu", "callbacks=minimal", "logger=none")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the digits: its folder and its summary."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(experiments.compose(*SHORT, f"run_dir={folder}"))


def measured(net, images, labels, data):
    """Accuracy and loss by hand, normalised as ``data`` are."""
    with torch.no_grad():
        logits = net(normalize(images, data.mean, data.std))
    return {
        "test/accuracy": (logits.argmax(1) == labels).float().mean().item(),
        "test/loss": F.cross_entropy(logits, labels).item(),
    }


def test_a_run_is_measured_again_from_its_directory(run):
    folder, summary = run
    results = evaluate(folder, accelerator="cpu")
    assert results == pytest.approx({name: summary[name] for name in ("test/accuracy", "test/loss")})


def test_it_computes_in_the_runs_precision(tmp_path):
    summary = train(experiments.compose(*SHORT, "trainer.precision=bf16-mixed", f"run_dir={tmp_path}"))
    assert evaluate(tmp_path, accelerator="cpu")["test/loss"] == summary["test/loss"]
    assert evaluate([tmp_path], accelerator="cpu")["test/loss"] == summary["test/loss"]


def test_a_named_checkpoint_is_measured(run):
    folder, _ = run
    path = min((folder / "checkpoints").glob("rolling-*"))
    truth = measured(experiments.load(path), *Digits().read("test"), Digits)
    assert evaluate(folder, path, accelerator="cpu") == pytest.approx(truth, rel=1e-5)


def test_other_data_are_normalised_as_the_network_was_trained(run, small_mnist):
    folder, _ = run
    net = experiments.load(folder / "checkpoints" / "best.ckpt")
    truth = measured(net, *MNIST(root=str(small_mnist)).read("test"), Digits)
    results = evaluate(folder, data="mnist", data_keys=[f"data.root={small_mnist}"], accelerator="cpu")
    assert results == pytest.approx(truth, rel=1e-5)


def test_a_data_set_whose_files_have_moved_is_found_again(small_mnist, tmp_path):
    where = [f"data.root={small_mnist}", "data.val_size=20"]
    summary = train(experiments.compose(*SHORT, "data=mnist", *where, f"run_dir={tmp_path}/run"))
    small_mnist.rename(tmp_path / "moved")
    for options in ({}, {"data": "mnist"}):
        results = evaluate(tmp_path / "run", data_keys=[f"data.root={tmp_path}/moved"], accelerator="cpu", **options)
        assert results["test/accuracy"] == pytest.approx(summary["test/accuracy"])


def test_the_runs_own_data_set_by_its_name_lies_where_the_runs_did(small_mnist, tmp_path):
    where = [f"data.root={small_mnist}", "data.val_size=20"]
    summary = train(experiments.compose(*SHORT, "data=mnist", *where, f"run_dir={tmp_path}/run"))
    results = evaluate(tmp_path / "run", data="mnist", accelerator="cpu")
    assert results["test/accuracy"] == pytest.approx(summary["test/accuracy"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "nothing"}, "(?s)nothing.*digits.*mnist"),
        ({"data": "digits", "data_keys": ["data.rot=x"]}, "data.rot"),
        ({"data_keys": ["data.batchsize=3"]}, "has no such key. Did you mean batch_size"),
        ({"data_keys": ["data.seed=[1"]}, "an override is key=value in one piece"),
        ({"data_keys": ["data.limit=0.1"]}, "data.limit: it changes nothing of the test split"),
        ({"data_keys": ["data.num_folds=3", "data.fold=1"]}, "data.num_folds: it changes nothing of the test split"),
        ({"data_keys": ["data.eval_batch_size=abc"]}, "data.eval_batch_size=abc: it must be a number"),
        ({"data_keys": ["data.eval_batch_size=0"]}, "it must be a whole number of at least 1"),
        ({"data": "digits", "data_keys": ["data.eval_batch_size=0"]}, "it must be a whole number of at least 1"),
        ({"run": __file__}, "is a file: name the run's directory"),
        ({"checkpoint": "nowhere.ckpt"}, "there is no checkpoint at nowhere.ckpt"),
        ({"accelerator": "tpux"}, "tpux"),
    ],
)
def test_mistakes_name_the_value_and_the_choices(run, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(**{"run": run[0], "accelerator": "cpu", **options})


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        (
            "image_shape",
            [3, 32, 32],
            "has images of 1 × 28 × 28 in 10 classes; .* images of 3 × 32 × 32 in 10 classes",
        ),
        ("class_names", ["a", "b"], "28 in 10 classes; .* built for images of 1 × 28 × 28 in 2 classes"),
    ],
)
def test_data_that_do_not_fit_the_network_are_refused(run, tmp_path, fact, value, message):
    content = torch.load(run[0] / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["card"][fact] = value
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=message):
        evaluate(run[0], tmp_path / "other.ckpt", data="digits", accelerator="cpu")


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    """A run of another network and seed on the same data."""
    folder = tmp_path_factory.mktemp("other")
    train(experiments.compose("model=mlp", "seed=1", *SHORT[1:], f"run_dir={folder}"))
    return folder


@pytest.mark.parametrize("split", ["test", "val"])
def test_an_ensemble_averages_its_networks_probabilities(run, other_run, split):
    folders = [run[0], other_run]
    data = Digits()
    data.setup("fit" if split == "val" else "test")
    images, labels = data.splits[split].tensors
    with torch.no_grad():
        inputs = normalize(images, data.mean, data.std)
        nets = [experiments.load(folder / "checkpoints" / "best.ckpt") for folder in folders]
        mean = sum(net(inputs).softmax(1) for net in nets) / 2
    results = evaluate(folders, accelerator="cpu", split=split)
    assert results[f"{split}/accuracy"] == pytest.approx((mean.argmax(1) == labels).float().mean().item())
    assert results[f"{split}/loss"] == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-4)


def test_matrices_are_multiplied_as_the_run_says(run, tmp_path):
    train(experiments.compose(*SHORT, "matmul_precision=high", f"run_dir={tmp_path}"))
    assert torch.get_float32_matmul_precision() == "high"
    evaluate(run[0], accelerator="cpu")
    assert torch.get_float32_matmul_precision() == "highest"
    evaluate(tmp_path, accelerator="cpu")
    assert torch.get_float32_matmul_precision() == "high"
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("matmul_precision: high", "matmul_precision: low"))
    with pytest.raises(UserError, match="is damaged: matmul_precision=low is not one of highest, high, medium"):
        evaluate(tmp_path, accelerator="cpu")
    torch.set_float32_matmul_precision("highest")


def test_an_ensemble_of_one_is_that_one(run):
    assert evaluate([run[0]], accelerator="cpu") == evaluate(run[0], accelerator="cpu")


def test_the_script_takes_several_runs(run, other_run, script_here):
    code, printed, _ = script_here("evaluate", f"run=[{run[0]}, {other_run}]", "split=val", "accelerator=cpu")
    value = evaluate([run[0], other_run], accelerator="cpu", split="val")["val/accuracy"]
    assert code == 0
    assert f"val/accuracy {value:.6g}" in printed.splitlines()


def test_validation_images_that_trained_another_member_are_refused(run, tmp_path):
    train(experiments.compose(*SHORT, "data.num_folds=5", "data.fold=1", f"run_dir={tmp_path}"))
    with pytest.raises(UserError, match="data.num_folds=5, .* with None: one's validation images trained the other"):
        evaluate([run[0], tmp_path], accelerator="cpu", split="val")
    assert "test/accuracy" in evaluate([run[0], tmp_path], accelerator="cpu")
    with pytest.raises(UserError, match="data.fold=2 with split=val would measure images that the network was tr"):
        evaluate(tmp_path, data_keys=["data.fold=2"], accelerator="cpu", split="val")


def test_networks_that_see_other_images_are_not_averaged(run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    content = torch.load(run[0] / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["card"]["mean"] = [0.5]
    torch.save(content, tmp_path / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match="cannot be averaged with .*mean=\\[0.5\\] instead of"):
        evaluate([run[0], tmp_path], accelerator="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "train"}, "split=train is not one of test, val"), ({"checkpoint": "x.ckpt"}, "leave it out")],
)
def test_mistakes_about_ensembles_are_told(run, options, message):
    with pytest.raises(UserError, match=message):
        evaluate([run[0], run[0]], accelerator="cpu", **options)


def test_images_that_may_have_trained_the_run_are_refused(tmp_path):
    train(experiments.compose(*SHORT, "data.num_folds=5", "data.fold=0", f"run_dir={tmp_path}"))
    without = ["data.num_folds=null", "data.fold=null"]
    with pytest.raises(UserError, match=r"num_folds=None with split=val would .*: its run has data.num_folds=5"):
        evaluate(tmp_path, data="digits", data_keys=without, accelerator="cpu", split="val")
    same = evaluate(tmp_path, accelerator="cpu", split="val")
    assert evaluate(tmp_path, data="digits", accelerator="cpu", split="val") == same  # with the run's own folds


def paint(folder, name):
    """Ninety images in ten classes."""
    for index in range(90):
        path = folder / "train" / str(index % 10) / f"{name}{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), index * 2).save(path)


def test_a_folder_of_images_is_not_split_anew_but_another_one_is(tmp_path):
    for name in ("pics", "others"):
        paint(tmp_path / name, name)
    run, folder = tmp_path / "run", [f"data.root={tmp_path / 'pics'}", "data.image_size=28"]
    train(experiments.compose("data=image_folder", *folder, "data.test_size=20", *SHORT, f"run_dir={run}"))
    message = r"data\.test_size=0\.1 with split=test would measure images .*: its run has data.test_size=20"
    with pytest.raises(UserError, match=message):
        evaluate(run, data="image_folder", data_keys=[*folder, "data.test_size=0.1"], accelerator="cpu")
    with pytest.raises(UserError, match=r"data\.test_size=0\.5 with split=test would measure images"):
        evaluate(run, data_keys=["data.test_size=0.5"], accelerator="cpu")
    other = [f"data.root={tmp_path / 'others'}", "data.image_size=28", "data.test_size=0.5"]
    assert "test/accuracy" in evaluate(run, data="image_folder", data_keys=other, accelerator="cpu")
    # without a word of the data set, too; and the same files are the same images wherever they lie
    keys = [other[0], "data.test_size=0.5"]
    assert "test/accuracy" in evaluate(run, data_keys=keys, accelerator="cpu")
    (tmp_path / "pics").rename(tmp_path / "moved")
    moved = f"data.root={tmp_path / 'moved'}"
    assert "test/accuracy" in evaluate(run, data_keys=[moved], accelerator="cpu")
    with pytest.raises(UserError, match=r"data\.test_size=0\.5 with split=test would measure images"):
        evaluate(run, data_keys=[moved, "data.test_size=0.5"], accelerator="cpu")


def test_a_folder_that_has_changed_is_neither_measured_nor_trained_on_further(tmp_path):
    pics, run = tmp_path / "pics", tmp_path / "run"
    paint(pics, "a")
    short = [*SHORT, "data=image_folder", f"data.root={pics}", "data.image_size=28", "scheduler=constant"]
    train(experiments.compose(*short, f"run_dir={run}"))
    Image.new("L", (28, 28), 7).save(pics / "train" / "0" / "new.png")
    for split in ("test", "val"):
        with pytest.raises(UserError, match=f"split={split} would be drawn anew and hold images that trained it"):
            evaluate(run, accelerator="cpu", split=split)
    resume_plan = ["trainer.max_epochs=3", f"resume={run}"]
    with pytest.raises(UserError, match="are not those that the run began with"):
        train(experiments.compose(*short, *resume_plan, f"run_dir={run}"), resume_plan)
    assert (run / "checkpoints" / "best.ckpt").exists()
    (pics / "train" / "0" / "new.png").rename(tmp_path / "new.png")
    assert train(experiments.compose(*short, *resume_plan, f"run_dir={run}"), resume_plan)["epochs"] == 3
    paint(tmp_path / "more", "test")
    (tmp_path / "more" / "train").rename(pics / "test")
    assert "test/accuracy" in evaluate(run, accelerator="cpu")


def test_code_that_has_changed_since_is_said(run, script_here, tmp_path):
    code, _, errors = script_here("evaluate", f"run={run[0]}", "accelerator=cpu")
    assert (code, errors) == (0, "")
    shutil.copytree(run[0], tmp_path / "run")
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    if environment["git"] is None:
        pytest.skip("no git here")
    environment["git"]["commit"] = "0123456789abcdef"
    (tmp_path / "run" / "environment.json").write_text(json.dumps(environment))
    code, output, errors = script_here("evaluate", f"run={tmp_path / 'run'}", "accelerator=cpu")
    assert code == 0
    assert output.startswith("test/")
    assert errors.endswith("and results may too: this project since commit 0123456789\n")
