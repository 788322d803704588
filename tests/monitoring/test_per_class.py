"""Tables of classes and images, against scikit-learn and the run's own accuracy."""

import csv

import numpy as np
import pytest
from sklearn import metrics

import experiments
from experiments.data import Digits
from experiments.errors import UserError
from experiments.inference.evaluate import evaluate
from experiments.monitoring.per_class import per_class
from experiments.training.run import train
from tests.small_data import write_image_folder

SHORT = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none", "model.net.hidden_features=[16]")


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rates_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 4, 200), generator.integers(0, 3, 200)  # class 3 is never predicted
    found = per_class(metrics.confusion_matrix(true, predicted), list("abcd"))
    values = metrics.precision_recall_fscore_support(true, predicted, zero_division=np.nan)
    for index, row in enumerate(found):
        for key, truth in zip(("precision", "recall", "f1", "support"), values, strict=True):
            assert row[key] == (None if np.isnan(truth[index]) else pytest.approx(truth[index])), key
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(true == index, predicted == index))
    assert [row["class"] for row in found] == list("abcd")


@pytest.fixture(scope="module")
def multirun(tmp_path_factory):
    """Two finished runs of different seeds, as a multirun leaves them, and one that failed."""
    folder = tmp_path_factory.mktemp("multirun")
    for seed in (0, 1):
        train(experiments.compose(*SHORT, f"seed={seed}", f"run_dir={folder / str(seed)}"))
    with pytest.raises(UserError):
        train(experiments.compose(*SHORT, "data.limit=3", f"run_dir={folder / '2'}"))
    (folder / "multirun.yaml").touch()  # as Hydra leaves it
    return folder


def test_a_run_leaves_tables_and_its_report_shows_them(multirun):
    rows = table(multirun / "0" / "per_class_test.csv")
    matrix = np.array(
        [[int(row[name]) for name in "0123456789"] for row in table(multirun / "0" / "confusion_test.csv")]
    )
    labels = Digits().read("test")[1].numpy()
    assert [int(row["support"]) for row in rows] == np.bincount(labels).tolist() == matrix.sum(1).tolist()
    assert float(rows[3]["recall"]) == pytest.approx(matrix[3, 3] / matrix[3].sum())
    page = (multirun / "0" / "report.html").read_text()
    assert f"<td>{float(rows[3]['f1']):.3f}</td>" in page
    assert (multirun / "0" / "per_class_val.csv").exists()


def test_evaluate_writes_a_row_an_image(multirun, tmp_path, script_here):
    code, printed, errors = script_here("evaluate", f"run={multirun / '0'}", f"output={tmp_path}", "accelerator=cpu")
    assert code == 0, errors
    rows = table(tmp_path / "predictions_test.csv")
    labels = Digits().read("test")[1].tolist()
    assert [(int(row["index"]), row["label"]) for row in rows] == [(i, str(label)) for i, label in enumerate(labels)]
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert f"test/accuracy {right:.6g}" in printed
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    before, after = (folder / "per_class_test.csv" for folder in (multirun / "0", tmp_path))
    assert before.read_text() == after.read_text()


def test_images_of_a_folder_are_named_by_their_files(tmp_path):
    write_image_folder(tmp_path / "images", ("train", "test"), per_class=12)
    config = experiments.compose("data=image_folder", f"data.root={tmp_path / 'images'}", "data.val_size=4", *SHORT,
                                 "data.image_size=16", f"run_dir={tmp_path / 'run'}")  # fmt: skip
    train(config)
    evaluate(tmp_path / "run", accelerator="cpu", output=tmp_path / "out")
    rows = table(tmp_path / "out" / "predictions_test.csv")
    assert len(rows) == 24
    assert all(f"/test/{row['label']}/" in row["file"] for row in rows)


def test_a_multiruns_directory_is_the_ensemble_of_its_finished_runs(multirun, tmp_path, script_here):
    alone = evaluate([multirun / "0", multirun / "1"], accelerator="cpu")
    assert evaluate(multirun, accelerator="cpu") == alone
    assert alone != evaluate(multirun / "0", accelerator="cpu")
    with pytest.raises(UserError, match="is no run directory"):  # of runs/<name>, whose runs are no ensemble
        evaluate(multirun.parent, accelerator="cpu")
    write_image_folder(tmp_path, ("new",), per_class=3)
    code, printed, errors = script_here("predict", f"run={multirun}", f"images={tmp_path / 'new'}", "accelerator=cpu")
    assert code == 0, errors
    one, two, both = (
        experiments.predict(experiments.load(multirun / name / "checkpoints" / "best.ckpt"), tmp_path / "new")
        for name in ("0", "1", "0")
    )
    mean = {name: (one[0].probabilities[name] + two[0].probabilities[name]) / 2 for name in one[0].probabilities}
    best = max(mean, key=mean.get)
    assert f"{best}  {mean[best]:.4f}" in printed
    assert both[0] == one[0]
