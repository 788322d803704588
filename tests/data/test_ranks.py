"""Two real processes on the CPU: what each of them saw, and what they measured together."""

import json

import pytest

from tests.small_data import write_idx_files

SPY = '''
import hashlib, json, os
from lightning import Callback


class Spy(Callback):
    """Notes which images a rank saw in each epoch and in the test."""

    def __init__(self, folder):
        self.folder, self.seen = folder, {}

    def note(self, name, batch):
        self.seen.setdefault(name, []).extend(hashlib.md5(image.numpy().tobytes()).hexdigest() for image in batch[0])

    def on_train_batch_start(self, trainer, module, batch, index):
        self.note(f"epoch {trainer.current_epoch}", batch)

    def on_test_batch_start(self, trainer, module, batch, index, loader=0):
        self.note("test", batch)

    def on_test_end(self, trainer, module):
        with open(f"{self.folder}/rank-{trainer.global_rank}-of-{trainer.world_size}.json", "w") as file:
            json.dump(self.seen, file)
'''


@pytest.mark.slow
def test_two_processes_share_an_odd_number_of_images_and_measure_what_one_measures(script, script_here, tmp_path):
    write_idx_files(tmp_path / "files" / "MNIST" / "raw", train=61, test=21)
    (tmp_path / "spy.py").write_text(SPY)
    process = script(
        "train", "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=4", "data=mnist",
        f"data.root={tmp_path}/files", "data.val_size=20", "data.batch_size=8", "data.eval_batch_size=4",
        "+callbacks.spy._target_=spy.Spy", f"+callbacks.spy.folder={tmp_path}", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    ranks = [json.loads((tmp_path / f"rank-{rank}-of-2.json").read_text()) for rank in range(2)]
    everything = set()
    for epoch in range(4):
        first, second = (rank[f"epoch {epoch}"] for rank in ranks)
        assert len(first) == len(second) == 20  # of 41
        assert len(set(first) | set(second)) == 40
        everything |= set(first) | set(second)
    assert len(everything) == 41  # the one that is left out changes
    first, second = (rank["test"] for rank in ranks)
    assert sorted((len(first), len(second))) == [10, 11]
    assert len(set(first) | set(second)) == 21
    (summary,) = tmp_path.glob("runs/*/*/summary.json")
    measured = json.loads(summary.read_text())
    code, output, errors = script_here("evaluate", f"run={summary.parent}", "accelerator=cpu")
    assert code == 0, errors
    results = dict(line.split() for line in output.splitlines())
    for name, value in results.items():
        assert float(value) == pytest.approx(measured[name], rel=1e-4), name
