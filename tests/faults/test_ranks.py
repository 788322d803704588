"""Two ranks on the CPU, as real processes: one run directory, one set of weights, exact resume."""

import itertools
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from tests.faults.conftest import BASE
from tests.faults.test_resume import assert_equal_runs, newest_step
from tests.fork_server import wait_until

pytestmark = pytest.mark.slow
RANKS = ("trainer.strategy=ddp", "trainer.devices=2", "data.limit=1001", "trainer.max_epochs=4")


@pytest.fixture
def start(processes):
    def begin(folder, *overrides):
        return processes.start(folder, folder / "out", "scripts/train.py", *BASE, *RANKS, *overrides)

    return begin


@pytest.fixture
def finish(start):
    def run(folder, *overrides):
        process = start(folder, *overrides)
        assert process.wait() == 0, process.printed()
        (run,) = (folder / "runs").glob("*/*")
        return run, json.loads((run / "summary.json").read_text())

    return run


def test_two_ranks_share_one_run_and_resume_exactly(start, finish, tmp_path):
    truth_folder, folder = tmp_path / "truth", tmp_path / "killed"
    truth_folder.mkdir()
    folder.mkdir()
    truth, truth_summary = finish(truth_folder)
    assert truth_summary["epochs"] == 4
    assert truth_summary["steps"] == 4 * 8  # 500 images a rank, in batches of 64
    assert len(list((truth_folder / "runs").glob("*/*"))) == 1
    images = 2 * 500 / 8 * truth_summary["steps_per_second"]  # of both ranks
    assert truth_summary["images_per_second"] == pytest.approx(images, rel=1e-3)

    process = start(folder)  # kill one
    wait_until(lambda: any(newest_step(run) >= 7 for run in folder.glob("runs/*/*")), 120)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (second_rank,) = [pid for pid in children if b"fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(second_rank), signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    (run,) = folder.glob("runs/*/*")
    process = start(folder, f"resume={run}")  # kill both
    step = newest_step(run)
    wait_until(lambda: newest_step(run) > step, 120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process = start(folder, f"resume={run}")  # stop the first, who stops the other
    step = newest_step(run)
    wait_until(lambda: newest_step(run) > step, 120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    time.sleep(0.5)
    run, summary = finish(folder, f"resume={run}")
    assert_equal_runs(run, truth, summary, truth_summary)
    exact = torch.load(max((run / "checkpoints").glob("rolling*")), weights_only=True)["exact"]
    assert len(exact["ranks"]) == 2


def test_two_ranks_count_every_image_once_and_show_it_once(finish, tmp_path):
    run, summary = finish(tmp_path, "logger=tensorboard", "trainer.max_epochs=1", "data.eval_batch_size=50")
    events = EventAccumulator(str(run), {"images": 0, "tensors": 0}).Reload()
    for stage, images in (("val", 180), ("test", 360)):
        (event,) = events.Tensors(f"pr_{stage}/all")
        true, false, right, missed, *_ = make_ndarray(event.tensor_proto)
        assert true[0] + missed[0] == images
        assert true[0] + false[0] + right[0] + missed[0] == 10 * images
        assert len(events.Images(f"confusion_{stage}/counts")) == len(events.Images(f"mistakes/{stage}")) == 1
    assert events.Scalars("hp/test/accuracy")[-1].value == pytest.approx(summary["test/accuracy"])
    page = (run / "report.html").read_text()
    counted = [
        int(number) for number in re.findall(r'<td(?: class="strong")? style="[^"]*" title="[^"]*">(\d+)', page)
    ]
    assert sum(counted) == 360


SAVE = """
import torch
from lightning.pytorch.callbacks import Callback

class SaveWeights(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        torch.save(pl_module.net.state_dict(), f"epoch{trainer.current_epoch}-rank{trainer.global_rank}.pt")
"""


def test_ranks_stay_alike_while_parameters_are_frozen_and_behind_it(finish, tmp_path):
    (tmp_path / "own.py").write_text(SAVE)
    _, summary = finish(
        tmp_path, "callbacks=[default,freeze]", "callbacks.freeze.until=2", "+callbacks.save._target_=own.SaveWeights"
    )
    assert summary["epochs"] == 4
    weights = [
        [torch.load(tmp_path / f"epoch{epoch}-rank{rank}.pt", weights_only=True) for rank in (0, 1)]
        for epoch in range(4)
    ]
    trained = [name for name, value in weights[0][0].items() if value.is_floating_point() and "running" not in name]
    for first, second in weights:
        assert all(first[name].equal(second[name]) for name in trained)
    moved = [
        {name for name in trained if not before[0][name].equal(after[0][name])}
        for before, after in itertools.pairwise(weights)
    ]
    assert moved == [{"linear_relu_stack.8.weight", "linear_relu_stack.8.bias"}, {*trained}, {*trained}]
