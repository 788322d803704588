import csv

import pytest
import torch
from PIL import Image

import experiments
from experiments.data import MNIST, Digits, normalize
from experiments.data.images.files import has_other_background
from experiments.errors import UserError
from experiments.inference.predict import BATCH_SIZE
from experiments.training.run import train

SHORT = ("model.net.hidden_features=[16]", "trainer.max_epochs=1", "trainer.limit_train_batches=40",
         "trainer.accelerator=cpu", "callbacks=minimal", "logger=none", "test=false")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the digits."""
    folder = tmp_path_factory.mktemp("run")
    train(experiments.compose(*SHORT, f"run_dir={folder}"))
    return folder


@pytest.fixture(scope="module")
def net(run):
    return experiments.load(run / "checkpoints" / "best.ckpt")


def write_images(images, folder):
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{number:05}.png")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def truth_of(net, images, data):
    with torch.no_grad():
        return torch.softmax(net(normalize(images, data.mean, data.std)), dim=1)


def test_200_files_of_the_real_test_set_are_classified_as_their_tensors(script_here, tmp_path, mnist_root):
    config = experiments.compose(*SHORT, "data=mnist", f"data.root={mnist_root}", f"run_dir={tmp_path}/run")
    train(config)
    images, labels = (values[:200] for values in MNIST(root=mnist_root).read("test"))
    write_images(images, tmp_path / "images")
    output = tmp_path / "answers.csv"
    code, printed, errors = script_here(
        "predict", f"run={tmp_path}/run", f"images={tmp_path}/images", f"output={output}", "accelerator=cpu"
    )
    assert (code, errors) == (0, "")
    assert "200 images" in printed
    rows = rows_of(output)
    names = [f"probability/{name}" for name in MNIST.class_names]
    assert list(rows[0]) == ["file", "predicted", "probability", *names, "error", "inverted"]
    net = experiments.load(tmp_path / "run" / "checkpoints" / "best.ckpt")
    truth = truth_of(net, images, MNIST)
    assert (truth.argmax(1) == labels).float().mean() > 0.6  # it has learned something
    for number, row in enumerate(rows):
        assert row["file"] == f"{tmp_path}/images/{number:05}.png"
        assert row["predicted"] == str(truth[number].argmax().item())
        assert [float(row[name]) for name in names] == pytest.approx(truth[number].tolist(), abs=1e-5)
        assert float(row["probability"]) == max(float(row[name]) for name in names)
        assert row["error"] == ""


def test_unreadable_files_are_reported_and_the_rest_is_done(script_here, run, tmp_path):
    images, _ = Digits().read("test")
    write_images(images[:4], tmp_path / "images")
    (tmp_path / "images" / "00001.png").write_bytes(b"no image")
    (tmp_path / "images" / "00003.png").write_bytes((tmp_path / "images" / "00002.png").read_bytes()[:-30])
    arguments = (f"run={run}", f"images={tmp_path}/images/*.png", f"output={tmp_path}/answers.csv")
    code, printed, errors = script_here("predict", *arguments, "accelerator=cpu")
    assert code == 3
    assert printed.startswith("2 images predicted")
    assert errors.startswith("2 could not be read")
    rows = rows_of(tmp_path / "answers.csv")
    assert [bool(row["error"]) for row in rows] == [False, True, False, True]
    assert rows[1]["error"] == "not an image of a known format"
    assert rows[1]["predicted"] == rows[1]["probability/0"] == ""


def test_dark_digits_on_light_ground_are_inverted(script_here, net, run, tmp_path):
    images, _ = Digits().read("test")
    write_images(255 - images[:10], tmp_path / "images")
    path = run / "checkpoints" / "best.ckpt"
    arguments = (f"checkpoint={path}", f"images={tmp_path}/images", f"output={tmp_path}/answers.csv", "invert=true")
    assert script_here("predict", *arguments)[0] == 0
    truth = truth_of(net, images[:10], Digits).argmax(1).tolist()
    assert [int(row["predicted"]) for row in rows_of(tmp_path / "answers.csv")] == truth


def test_the_ground_is_noticed_and_what_was_turned_is_said(script_here, net, run, tmp_path):
    images, _ = Digits().read("test")
    truth = truth_of(net, images[:10], Digits).argmax(1).tolist()
    write_images(torch.cat([255 - images[:5], images[5:10]]), tmp_path / "images")
    arguments = (f"run={run}", f"images={tmp_path}/images", "accelerator=cpu")
    code, printed, errors = script_here("predict", *arguments, f"output={tmp_path}/answers.csv")
    assert (code, errors) == (0, "")
    assert "5 inverted" in printed
    rows = rows_of(tmp_path / "answers.csv")
    assert [int(row["predicted"]) for row in rows] == truth
    assert [row["inverted"] for row in rows] == ["true"] * 5 + ["false"] * 5
    as_they_are = experiments.predict(net, images[:10], invert=False)
    assert experiments.predict(net, images[:10]) == as_they_are
    assert [one.inverted for one in experiments.predict(net, 255 - images[:10])] == [True] * 10
    assert [one.inverted for one in experiments.predict(net, 255 - images[:10], invert=False)] == [False] * 10
    code, printed, _ = script_here("predict", *arguments)  # on the screen
    assert [line.split()[1] for line in printed.splitlines()[:10]] == list(map(str, truth))
    code, _, errors = script_here("predict", *arguments, "invert=maybe")
    assert (code, errors) == (2, "error: invert=maybe must be one of auto, true, false\n")


def test_photographs_are_left_as_they_are():
    light, dark = torch.full((3, 8, 8), 250, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert not has_other_background(light, [0.2, 0.2, 0.2])  # in colour
    assert not has_other_background(light[:1], [0.5])  # neither light nor dark
    assert has_other_background(light[:1], [0.2])
    assert has_other_background(dark, [0.8])
    assert not has_other_background(dark, [0.2])


def test_a_notebook_predicts_tensors_pictures_and_files_alike(net, tmp_path):
    images, _ = Digits().read("test")
    write_images(images, tmp_path / "images")
    assert len(images) > BATCH_SIZE  # more than one batch
    truth = truth_of(net, images, Digits)
    net.train()  # what a notebook may have left it in
    from_tensors = experiments.predict(net, images)
    assert not net.training
    assert [int(found.predicted) for found in from_tensors] == truth.argmax(1).tolist()
    for found, row in zip(from_tensors, truth.tolist(), strict=True):
        assert list(found.probabilities) == list(Digits.class_names)
        assert list(found.probabilities.values()) == pytest.approx(row, abs=1e-6)
        assert found.probability == max(found.probabilities.values())
    assert experiments.predict(net, tmp_path / "images") == from_tensors
    assert experiments.predict(net, [Image.fromarray(image[0].numpy()) for image in images]) == from_tensors
    alone = experiments.predict(net, images[0])
    assert len(alone) == 1
    assert list(alone[0].probabilities.values()) == pytest.approx(truth[0].tolist(), abs=1e-6)
    assert experiments.predict(net, Image.fromarray(images[0][0].numpy())) == alone


def test_mistakes_name_the_rule(net, script_here, run, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="image 0 cannot be read: not an image"):
        experiments.predict(net, tmp_path / "text.png")
    with pytest.raises(UserError, match="names no image"):
        experiments.predict(net, str(tmp_path / "none.png"))
    with pytest.raises(UserError, match=r"experiments\.load"):
        experiments.predict(torch.nn.Flatten(), [tmp_path / "text.png"])
    for arguments, words in [
        ([f"images={tmp_path}", "output=x.csv"], "name either run="),
        ([f"run={run}", "checkpoint=x", f"images={tmp_path}", "output=x.csv"], "name either run="),
        ([f"run={run}", f"images={tmp_path}/none", "output=x.csv"], "names no image"),
        ([f"run={run}", f"images={tmp_path}", f"output={tmp_path}/text.png/x.csv"], "cannot be written"),
        ([f"run={run}", f"images={tmp_path}", "output=x.csv", "accelerator=tpux"], "tpux"),
    ]:
        code, _, errors = script_here("predict", *arguments)
        assert code == 2
        assert words in errors
