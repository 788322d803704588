"""The scripts as users run them: real processes, real files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.config.installation import SCRIPTS
from experiments.monitoring.loggers.log import RESULTS

QUICK = ("debug=fast", "logger=none", "model.net.hidden_features=[16]")
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.accelerator=cpu")


def only_run(folder: Path) -> Path:
    (summary,) = folder.glob("runs/*/*/summary.json")
    return summary.parent


LEAST = {"mlp": (20, 0.96), "cnn": (20, 0.97), "resnet": (10, 0.85), "rnn": (10, 0.9), "attention": (10, 0.9)}


@pytest.mark.parametrize(
    ("model", "epochs", "least"),
    [pytest.param(name, *row, marks=[] if name == "mlp" else [pytest.mark.slow]) for name, row in LEAST.items()],
)
def test_the_default_recipe_reaches_its_accuracy_and_evaluate_repeats_it(
    forked, script_here, tmp_path, model, epochs, least
):  # fmt: skip
    length = [] if epochs == 20 else [f"trainer.max_epochs={epochs}"]
    process = forked("train", f"model={model}", "trainer.accelerator=cpu", *length)
    assert process.returncode == 0, process.stderr
    run = only_run(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["test/accuracy"] >= least
    assert summary["epochs"] == epochs
    assert summary["steps"] == 40 * epochs
    assert summary["seed"] == 0
    assert summary["device"] == "cpu"
    assert summary["train_seconds"] > 0
    assert (run / summary["best_checkpoint"]).is_file()
    # what the screen says
    lines = process.stdout.splitlines()
    assert lines[0] == "data=digits (embedded, 1,797 images; data=<name> chooses another)"
    assert len([line for line in lines if line.startswith("epoch ")]) == epochs
    assert f"test/accuracy {summary['test/accuracy']:.4f}" in lines[-5]
    assert lines[-3] == f"run directory: {run.relative_to(tmp_path)}"
    where = run.relative_to(tmp_path)
    assert lines[-2] == f"report: {where}/report.html"
    assert lines[-1] == f"TensorBoard: tensorboard --logdir {where}"
    # what the directory holds
    for name in ("config.yaml", "overrides.yaml", "environment.json", "train.log", "checkpoints/best.ckpt"):
        assert (run / name).is_file(), name
    assert len(list((run / "checkpoints").iterdir())) == 3
    # what TensorBoard reads
    events = EventAccumulator(str(run)).Reload()
    tags = events.Tags()
    names = {f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")}
    assert names | {f"hp/{name}" for name in RESULTS} <= set(tags["scalars"])
    assert events.Scalars("hp/test/accuracy")[-1].value == pytest.approx(summary["test/accuracy"])
    assert len(events.Scalars("val/accuracy")) == epochs
    assert max(point.value for point in events.Scalars("val/accuracy")) == pytest.approx(summary["val/accuracy"])
    assert {"config/text_summary", "network/text_summary"} <= set(tags["tensors"])
    assert any("hparams" in tag for tag in events.summary_metadata)
    # the same number again, from the directory alone, wherever it lies
    moved = tmp_path / "moved"
    run.rename(moved)
    code, output, errors = script_here("evaluate", f"run={moved}", "accelerator=cpu")
    assert code == 0, errors
    results = dict(line.split() for line in output.splitlines())
    assert float(results["test/accuracy"]) == pytest.approx(summary["test/accuracy"], abs=1e-6)
    assert float(results["test/loss"]) == pytest.approx(summary["test/loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "epochs", "least"), [("mlp", 3, 0.97), ("cnn", 1, 0.975)])
def test_mnist_reaches_its_accuracy(forked, tmp_path, mnist_root, model, epochs, least):
    where = f"data.root={Path(mnist_root).absolute()}"
    process = forked("train", "data=mnist", where, f"model={model}", f"trainer.max_epochs={epochs}")
    assert process.returncode == 0, process.stderr
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["test/accuracy"] >= least


def test_a_multirun_leaves_a_directory_a_job(script_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = script_here("train", SHORT[0], "-m", "model.net.hidden_features=[8],[16],[32]", *SHORT[1:],
                               "callbacks=minimal")  # fmt: skip
    assert code == 0, errors
    summaries = sorted(tmp_path.glob("runs/multirun/*/*/summary.json"))
    assert [path.parent.name for path in summaries] == ["0", "1", "2"]
    counts = [json.loads(path.read_text())["parameters"] for path in summaries]
    assert counts == [6_370, 12_730, 25_450]


def test_the_test_split_is_left_alone_where_asked(script_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = script_here("train", "test=false", "callbacks=minimal", *SHORT)
    assert code == 0, errors
    assert "test/accuracy" not in json.loads((only_run(tmp_path) / "summary.json").read_text())


def test_a_mistake_that_building_finds_ends_a_process_alike(forked, monkeypatch):
    for name in ("http_proxy", "https_proxy"):  # no proxy and no name service: nothing can be downloaded
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    process = forked("train", "data=mnist", "data.root=nowhere")
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    for word in ("nowhere/MNIST/raw", "train-images-idx3-ubyte.gz", "data=digits"):
        assert word in process.stderr


def test_an_accelerator_that_is_absent_ends_the_run_at_once(script_here, tmp_path, monkeypatch):
    import torch

    absent = "mps" if torch.cuda.is_available() else "gpu"
    if absent == "gpu" and torch.backends.mps.is_available():
        absent = "cuda"
    monkeypatch.chdir(tmp_path)
    code, _, errors = script_here("train", f"trainer.accelerator={absent}")
    assert code == 2
    assert f"trainer.accelerator={absent} is not available" in errors
    assert "present: cpu" in errors
    if absent == "gpu":  # which of the two it is
        assert ("is a build for CPUs" in errors) != ("Found no NVIDIA driver" in errors)
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("summary.json"))  # there was no run


def test_a_fault_of_the_program_keeps_its_traceback_and_is_recorded(forked, tmp_path):
    (tmp_path / "faulty.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self): super().__init__(1, 1)\n"
    )
    process = forked("train", "model=custom", "model.net._target_=faulty.Net")
    assert process.returncode == 1
    assert "Traceback" in process.stderr
    run = only_run(tmp_path)
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    assert "Traceback" in (run / "error.txt").read_text()


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["model=nothing"]])
def test_help_and_config_never_wait_for_torch(arguments):
    from tests.conftest import ROOT

    code = (
        f"import runpy, sys; sys.argv = ['train.py', *{arguments!r}]\n"
        f"try: runpy.run_path({str(ROOT / 'scripts' / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'lightning', 'sklearn', 'torchvision'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "heavy: []"


def test_a_run_behind_a_link_is_evaluated_and_goes_on(tmp_path, script_here, monkeypatch):
    (tmp_path / "disk" / "far" / "away").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "runs").symlink_to(tmp_path / "disk" / "far" / "away")
    monkeypatch.chdir(tmp_path / "here")
    short = ("data.limit=100", "scheduler=constant", "trainer.accelerator=cpu", "logger=none", "callbacks=minimal",
             "model.net.hidden_features=[16]")  # fmt: skip
    assert script_here("train", *short, "trainer.max_epochs=1", "hydra.run.dir=runs/a")[0] == 0
    assert json.loads(Path("runs/a/summary.json").read_text())["best_checkpoint"] == "checkpoints/best.ckpt"
    assert script_here("evaluate", "run=runs/a", "accelerator=cpu")[0] == 0
    assert script_here("train", "resume=runs/a", "trainer.max_epochs=2")[0] == 0
    assert script_here("export", "run=runs/a", "format=state_dict", "output=x.pth")[0] == 0
    assert script_here("evaluate", f"run={tmp_path}/disk/far/away/a", "accelerator=cpu")[0] == 0


def test_it_runs_where_output_and_errors_are_closed(processes, tmp_path):
    program = tmp_path / "closed.py"
    program.write_text(
        "import os, runpy, sys\nos.close(1)\nos.close(2)\nsys.stdout = sys.stderr = None  # as Python begins then\n"
        f"runpy.run_path({str(SCRIPTS / 'train.py')!r}, run_name='__main__')\n"
    )
    arguments = (*QUICK, "hydra.run.dir=closed")
    assert processes.start(tmp_path, tmp_path / "output.txt", program, *arguments).wait() == 0
    assert json.loads((tmp_path / "closed" / "summary.json").read_text())["status"] == "finished"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("arguments", [["--help"], [*QUICK, "hydra.run.dir=unread"]])
def test_it_stops_quietly_where_a_reader_does(processes, tmp_path, arguments):
    pipe, errors = tmp_path / "pipe", tmp_path / "errors.txt"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    process = processes.start(tmp_path, pipe, "scripts/train.py", *arguments, errors=errors)
    os.close(reader)
    assert process.wait() == 0
    assert errors.read_bytes() == b""
    if arguments != ["--help"]:
        assert json.loads((tmp_path / "unread" / "summary.json").read_text())["status"] == "finished"
