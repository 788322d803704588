"""What a run on a GPU leaves is used on the CPU, and the other way; killed runs go on; sweeps share the GPU."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import experiments
from experiments.inference.evaluate import evaluate
from experiments.training.run import train
from tests.conftest import ROOT
from tests.fork_server import wait_until
from tests.gpu.test_training import EVERYTHING, assert_equal

RUN = (
    "trainer.accelerator=gpu", "trainer.max_epochs=20", "deterministic=true", "model=cnn", "model.net.norm=batch",
    *EVERYTHING, "callbacks.rolling_checkpoint.every_n_steps=7", "callbacks.rolling_checkpoint.keep=1", "logger=csv",
)  # fmt: skip


def newest(folder):
    return max((folder / "checkpoints").glob("rolling-*.ckpt"), default=None)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, script):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "train.py", *RUN, f"run_dir={killed}"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: process.poll() or (newest(killed) and newest(killed).stem > "rolling-0000060"), 120)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "summary.json").exists()
    resumed = script("train", f"resume={killed}", "trainer.accelerator=gpu")
    assert resumed.returncode == 0, resumed.stderr
    started = script("train", *RUN, f"run_dir={whole}")
    assert started.returncode == 0, started.stderr
    for name in ("best.ckpt", newest(whole).name):
        one, other = (
            torch.load(folder / "checkpoints" / name, map_location="cpu", weights_only=True)
            for folder in (whole, killed)
        )
        assert_equal(one["state_dict"], other["state_dict"])
        assert one["global_step"] == other["global_step"]
    ours, truth = (json.loads((folder / "summary.json").read_text()) for folder in (killed, whole))
    assert {key: ours[key] for key in ours if "/" in key} == {key: truth[key] for key in truth if "/" in key}


def test_from_the_gpu_to_the_cpu_and_back(run):
    folder, summary = run("model=mlp", "trainer.max_epochs=2", "scheduler=constant")
    checkpoint = torch.load(newest(folder), weights_only=True, map_location="cpu")
    assert checkpoint["epoch"] == 1
    for accelerator in ("gpu", "cpu"):
        measured = evaluate(folder, accelerator=accelerator)
        assert measured["test/accuracy"] == pytest.approx(summary["test/accuracy"], abs=0.01)
        assert measured["test/loss"] == pytest.approx(summary["test/loss"], abs=0.01)
    assert next(experiments.load(folder / "checkpoints" / "best.ckpt").parameters()).device.type == "cpu"
    # the run goes on on the CPU, and from there on the GPU again
    for epochs, accelerator in ((3, "cpu"), (4, "gpu")):
        ended = train(
            experiments.compose(f"trainer.accelerator={accelerator}", f"trainer.max_epochs={epochs}",
                                f"resume={folder}", f"run_dir={folder}"),
            [f"trainer.accelerator={accelerator}", f"trainer.max_epochs={epochs}"],
        )  # fmt: skip
        assert ended["epochs"] == epochs
    assert ended["test/accuracy"] > 0.8


def test_evaluate_predict_and_export(run, script_here, tmp_path):
    folder, summary = run("model=cnn")
    for accelerator in ("auto", "gpu", "cpu"):
        code, output, errors = script_here("evaluate", f"run={folder}", f"accelerator={accelerator}")
        assert code == 0, errors
        assert float(output.split("test/accuracy ")[1].split()[0]) == pytest.approx(
            summary["test/accuracy"], abs=0.01
        )
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(load_digits().images[:5]):
        Image.fromarray((image * 15).astype("uint8")).save(images / f"{number}.png")
    answers = []
    for accelerator in ("gpu", "cpu"):
        table = tmp_path / f"{accelerator}.csv"
        code, _, errors = script_here(
            "predict", f"run={folder}", f"images={images}", f"output={table}", f"accelerator={accelerator}"
        )
        assert code == 0, errors
        answers.append([row["predicted"] for row in csv.DictReader(table.open())])
    assert answers[0] == answers[1]
    code, _, errors = script_here("export", f"run={folder}", "format=state_dict", f"output={tmp_path / 'model.pth'}")
    assert code == 0, errors
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    assert {value.device.type for value in state.values()} == {"cpu"}


def test_a_sweep_of_two_workers_shares_one_gpu(script, tmp_path):
    pytest.importorskip("optuna")
    ended = script(
        "train", "-m", "sweep=mlp", "hydra.sweeper.n_trials=4", "hydra.sweeper.workers=2", "trainer.max_epochs=2",
        "trainer.accelerator=gpu", "hydra.sweep.dir=sweep", CUDA_VISIBLE_DEVICES="0",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/summary.json")]
    assert len(found) == 4
    assert {one["status"] for one in found} <= {"finished", "pruned"}
