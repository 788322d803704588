import json
import shutil

import pytest

from experiments.config.installation import command
from experiments.sweeps.multirun import SomeFailed
from tests.sweeps.conftest import SMALL, numbers, statuses


def test_a_failing_job_is_named_the_others_go_on_and_the_table_has_every_run_the_best_first(
    multirun, capsys, tmp_path
):
    with pytest.raises(SomeFailed) as ending:
        multirun("grid", "optimizer=nadam", "+optimizer.momentum_decay=-1,0.01", "seed=0,1", *SMALL)
    assert "2 of 4 runs failed" in str(ending.value)
    assert "grid/1: optimizer: it is refused by torch.optim.NAdam: Invalid momentum_decay" in str(ending.value)
    folder = tmp_path / "grid"
    assert numbers(folder) == [0, 1, 2, 3]
    assert statuses(folder) == ["failed", "failed", "finished", "finished"]
    assert "Traceback" in (folder / "0" / "error.txt").read_text()
    assert "Invalid momentum_decay value: -1" in (folder / "0" / "error.txt").read_text()
    results = {n: json.loads((folder / n / "summary.json").read_text()) for n in "23"}
    best = max(results, key=lambda name: results[name]["val/accuracy"])
    assert "test/accuracy" in results[best]  # grids test, sweeps do not
    lines = capsys.readouterr().out.splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("run  status"))
    assert lines[header].split()[:4] == ["run", "status", "val/accuracy", "test/accuracy"]
    assert lines[header].split()[-2:] == ["optimizer.momentum_decay", "seed"]
    assert lines[header + 1].split()[:2] == [best, "finished"]
    assert [line.split()[:2] for line in lines[header + 3 : header + 5]] == [["0", "failed"], ["1", "failed"]]
    assert f"look at it again: {command('summarize')} runs=grid" in lines


def test_a_grid_that_goes_well_ends_well(multirun):
    folder = multirun("grid", "model.net.activation=ReLU,Tanh", *SMALL, "trainer.max_epochs=1")
    assert statuses(folder) == ["finished", "finished"]


def test_the_same_command_leaves_out_what_is_done_and_goes_on_with_what_was_killed(multirun):
    command = ("grid", "seed=0,1,2", *SMALL)
    folder = multirun(*command)
    before = [json.loads((folder / name / "summary.json").read_text()) for name in "012"]
    written = [(folder / name / "summary.json").stat().st_mtime_ns for name in "01"]
    (folder / "1" / "summary.json").unlink()  # killed there, before the last one had begun
    shutil.rmtree(folder / "2")
    multirun(*command)
    after = [json.loads((folder / name / "summary.json").read_text()) for name in "012"]
    assert after[0] == before[0]  # its seconds, too: it was not trained again
    assert [one["test/accuracy"] for one in after] == [one["test/accuracy"] for one in before]
    again = [(folder / name / "summary.json").stat().st_mtime_ns for name in "01"]
    assert again[0] == written[0]
    assert again[1] > written[1]  # it went on
    with pytest.raises(SomeFailed, match="3 of 3 runs failed"):
        multirun("grid", "seed=3,4,5", *SMALL)
    assert statuses(folder) == ["finished"] * 3
    assert not list(folder.glob("*/error.txt"))


def test_a_run_of_several_processes_is_refused_inside_a_multirun(multirun):
    with pytest.raises(SomeFailed, match="a run of 2 processes cannot be a job of a multirun"):
        multirun("ddp", "trainer=ddp", "trainer.devices=2", "seed=0", *SMALL)
