"""Folders and tables as people have them, and what is wrong with others."""

import csv

import pytest
import torch

import experiments
from experiments.config.checks.check import config_mistakes
from experiments.data import ImageFolder, ImageTable
from experiments.errors import UserError
from experiments.training.run import train
from tests.small_data import write_image_folder


@pytest.fixture
def flat(tmp_path):
    """``<root>/<class>/*``, with what else lies in folders."""
    write_image_folder(tmp_path / "made")
    root = tmp_path / "photos"
    (tmp_path / "made" / "train").rename(root)
    (root / ".hidden").mkdir()
    (root / "notes.txt").write_text("x")
    return root


def test_a_folder_of_classes_is_split_as_one_with_train_is(flat, tmp_path):
    ours = ImageFolder(str(flat))
    write_image_folder(tmp_path / "again")
    theirs = ImageFolder(str(tmp_path / "again"))
    assert ours.class_names == theirs.class_names == ("cat", "dog")
    for split in ("train", "test"):
        names = [[path.relative_to(base).as_posix() for path, _ in data.files[split]]
                 for data, base in ((ours, flat), (theirs, tmp_path / "again" / "train"))]  # fmt: skip
        assert names[0] == names[1]
    assert ours.note == "48 images in 2 classes of photos; val and test drawn from photos; 1 other file passed over"
    for data in (ours, theirs):
        data.prepare_data()
        data.setup("fit")
    assert ours.splits["train"].tensors[0].equal(theirs.splits["train"].tensors[0])


def test_a_folder_test_beside_the_classes_is_the_test_split(flat):
    write_image_folder(flat, ("test",), per_class=3)
    data = ImageFolder(str(flat))
    assert (data.class_names, len(data.files["test"]), data.drawn) == (("cat", "dog"), 6, {"val"})


def test_a_folder_that_holds_the_folder_is_named(flat):
    write_image_folder(flat.parent / "above" / "inner")
    with pytest.raises(UserError, match=f"at least 2. Type data.root={flat.parent}/above/inner"):
        ImageFolder(str(flat.parent / "above"))


def test_splits_without_one_to_train_on_are_said(tmp_path):
    write_image_folder(tmp_path, ("val", "test"))
    with pytest.raises(UserError, match="holds no images to train on: they belong in"):
        ImageFolder(str(tmp_path))


def test_splits_by_other_names_are_no_classes(tmp_path):
    write_image_folder(tmp_path, ("training_images", "test_images"))
    with pytest.raises(UserError, match="test_images, training_images in .* are no classes: each holds folders cat"):
        ImageFolder(str(tmp_path))
    (tmp_path / "test_images").rename(tmp_path / "trian")
    (tmp_path / "training_images").rename(tmp_path / "test")
    with pytest.raises(UserError, match="holds one class, trian; there must be at least 2. Did you mean train"):
        ImageFolder(str(tmp_path))


def test_classes_of_the_same_kinds_of_images_are_classes(tmp_path, caplog):
    for thing in ("cats", "trains"):
        write_image_folder(tmp_path, (thing,), classes=("indoor", "outdoor"))
    data = ImageFolder(str(tmp_path))
    assert data.class_names == ("cats", "trains")
    assert "cats, trains in" in caplog.text


def write_table(path, rows, delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.fixture
def rows(flat):
    """Of every image its file from the table's folder, and its class."""
    return [
        [f"{folder}/{path.name}", folder] for folder in ("cat", "dog") for path in sorted((flat / folder).iterdir())
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_gives_what_its_folder_gives(flat, rows, delimiter):
    listed = [["file", "note", "label"], *([name, "", label] for name, label in rows)]
    table = write_table(flat / "labels.csv", listed, delimiter)
    ours, theirs = ImageTable(str(table)), ImageFolder(str(flat))
    assert (ours.class_names, ours.files) == (theirs.class_names, theirs.files)
    assert ours.note == "48 images in 2 classes of labels.csv; val and test drawn from labels.csv"


def test_a_table_says_which_images_are_of_which_split(flat, rows, tmp_path):
    split = {0: "test", 1: "Validation", 2: "test"}
    listed = [[label, split.get(number % 8, "train"), name] for number, (name, label) in enumerate(rows)]
    table = write_table(tmp_path / "labels.csv", [["kind", "part", "image"], *listed])
    config = experiments.compose(
        "data=image_table", f"data.table={table}", f"data.root={flat}", "data.file_column=image",
        "data.label_column=kind", "data.split_column=part", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "callbacks=minimal", "logger=none", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert train(config)["steps"] == 1
    data = ImageTable(str(table), str(flat), "image", "kind", "part")
    counts = {name: sum(part == name for _, part, _ in listed) for name in ("train", "Validation", "test")}
    assert (data.num_train, len(data.files["test"]), data.drawn) == (counts["train"], counts["test"], set())
    data.prepare_data()
    data.setup("fit")
    assert len(data.splits["val"]) == counts["Validation"]
    assert torch.bincount(data.splits["val"].tensors[1]).tolist() == [3, 3]


def test_labels_that_are_numbers_are_classes_in_their_order(flat, rows):
    numbers = [[name, str(number % 12)] for number, (name, _) in enumerate(rows)]
    table = write_table(flat / "labels.csv", [["file", "label"], *numbers])
    assert ImageTable(str(table)).class_names == tuple(map(str, range(12)))


HEAD = ["file", "label"]
OTHERS = {
    "another header": (lambda rows: [["name", "label"], *rows], "has no column file.*It has name, label: set"),
    "another case": (lambda rows: [["file", "Label"], *rows], "has no column label. Did you mean Label?"),
    "no such file": (lambda rows: [HEAD, *rows, ["cat/no.png", "cat"]], "line 50: there is no file .*cat/no.png"),
    "a file twice": (lambda rows: [HEAD, *rows, [rows[0][0], "dog"]], "line 50: cat/000.png stands in line 2"),
    "no label": (lambda rows: [HEAD, *rows, ["dog/000.png", ""]], "line 50: its label is empty"),
    "a typo": (lambda rows: [[*HEAD, "split"], *([*row, "trian"] for row in rows)], "line 2: split=trian is not"),
    "one class": (lambda rows: [[*HEAD, "split"], *([*row, "test" if row[1] == "dog" else "train"] for row in rows)],
                  "of 1 classes; there must be at least 2"),
    "a header alone": (lambda rows: [HEAD], "of 0 classes"),
    "another folder": (lambda rows: [HEAD, *([f"x/{name}", label] for name, label in rows)],
                       "none of its files is in .*photos. Set data.root=<the folder"),
    "no split column": (lambda rows: [[*HEAD, "part"], *([*row, "test"] for row in rows)], "no column Part. Did"),
    "nothing": (lambda rows: [[]], "has no column file"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), OTHERS.values(), ids=OTHERS)
def test_what_is_wrong_with_a_table_is_said(flat, rows, change, words):
    table = write_table(flat / "labels.csv", change(rows))
    column = {"split_column": "Part"} if "no column Part" in words else {}
    with pytest.raises(UserError, match=words):
        ImageTable(str(table), **column)


def test_a_table_that_is_not_there_is_a_mistake_of_the_config(tmp_path):
    config = experiments.compose("data=image_table", f"data.table={tmp_path}/labels.csv")
    (mistake,) = config_mistakes(config)
    assert mistake.startswith("data.table=")
    assert "it is no file: name a CSV file with the columns file and label" in mistake
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="it is not text in UTF-8"):
        ImageTable(str(tmp_path / "labels.csv"))
