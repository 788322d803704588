"""Runs are killed, stopped and moved; what they end with equals an uninterrupted run's, bit for bit."""

import itertools
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

import experiments
from experiments.config.installation import command
from experiments.errors import UserError
from experiments.inference.evaluate import evaluate
from experiments.training.run import train
from tests.fork_server import wait_until

KILLS = int(os.environ.get("EXPERIMENTS_KILLS", "2"))  # 20 and 200 for a thorough look
CHANGING = ("train_seconds", "images_per_second", "steps_per_second", "data_share")


def same(first, second, path=""):
    """Every tensor and value equal; names the first that is not."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            same(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), path
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            same(one, other, f"{path}/{index}")
    elif torch.is_tensor(first):
        assert first.dtype == second.dtype, path
        assert first.equal(second), path
    else:
        assert first == second or first != first, path


def assert_equal_runs(ours: Path, truth: Path, ours_summary, truth_summary):
    assert {k: v for k, v in ours_summary.items() if k not in CHANGING} == {
        k: v for k, v in truth_summary.items() if k not in CHANGING
    }
    names = sorted(path.name for path in (truth / "checkpoints").iterdir())
    assert sorted(path.name for path in (ours / "checkpoints").iterdir()) == names
    for name in names:
        one, other = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (ours, truth))
        assert one.keys() == other.keys()
        for part in one.keys() - {"callbacks", "loops", "hparams_name"}:
            same(one[part], other[part], f"{name}/{part}")
        best = "ModelCheckpoint"
        for key in one["callbacks"]:
            if best in key:
                same(one["callbacks"][key]["best_model_score"], other["callbacks"][key]["best_model_score"], key)
            if "EarlyStopping" in key:
                same(one["callbacks"][key], other["callbacks"][key], key)


def newest_step(run):
    return max((int(path.stem[-7:]) for path in (run / "checkpoints").glob("rolling-*.ckpt")), default=0)


SETTINGS = {
    "dropout and batch norm": (),
    "validation inside the epoch": ("trainer.val_check_interval=5",),
    "accumulation": ("trainer.accumulate_grad_batches=3",),
    "early stopping": ("callbacks=[default,early_stopping]", "callbacks.model_summary=null",
                       "callbacks.early_stopping.patience=1", "callbacks.rolling_checkpoint.every_n_steps=7"),
    "averaged weights and augmentation": ("callbacks=[default,ema]", "callbacks.model_summary=null",
                                          "optimizer=adamw", "augment=[affine,mixup]",
                                          "callbacks.rolling_checkpoint.every_n_steps=7"),
    "freezing and groups": ("callbacks=[default,freeze,ema]", "callbacks.freeze.until=2",
                            "param_groups=[slow_backbone,no_decay]"),
    "step by step": ("steps_per_execution=1",),
    "plateau": ("scheduler=plateau", "scheduler.patience=0", "+scheduler.threshold=0.5"),
    "step schedule and sgd": ("scheduler=step", "scheduler.step_size=2", "optimizer=sgd", "optimizer.lr=0.02"),
}  # fmt: skip


@pytest.fixture(scope="module")
def truths(fork_server, tmp_path_factory):
    """The uninterrupted run of every setting, made when first asked for."""
    folder, done = tmp_path_factory.mktemp("truths"), {}

    def truth(setting):
        if setting not in done:
            run = folder / setting.replace(" ", "-")
            done[setting] = (run, fork_server.finish(run, *SETTINGS[setting]))
        return done[setting]

    return truth


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_killed_at_a_rolling_checkpoint_and_resumed_equals_uninterrupted(fork_server, truths, tmp_path, setting):
    run = tmp_path / "run"
    truth, truth_summary = truths(setting)
    for minimum in (1, 60):
        pid = fork_server.start(run, *SETTINGS[setting])
        wait_until(lambda least=minimum: newest_step(run) >= least or (run / "summary.json").exists())
        os.kill(pid, signal.SIGKILL)
        fork_server.wait(pid)
    assert_equal_runs(run, truth, fork_server.finish(run, *SETTINGS[setting]), truth_summary)


@pytest.mark.slow
def test_killed_between_a_save_and_the_removal_of_what_it_replaces(fork_server, truths, tmp_path):
    truth, truth_summary = truths("step by step")
    run = tmp_path / "run"
    fork_server.finish(run, *SETTINGS["step by step"])
    (run / "summary.json").unlink()
    newest, *_ = sorted((run / "checkpoints").glob("rolling-*.ckpt"), reverse=True)
    shutil.copy(newest, newest.with_name("rolling-0001-0000008.ckpt"))
    assert_equal_runs(run, truth, fork_server.finish(run, *SETTINGS["step by step"]), truth_summary)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_random_moments_until_done(fork_server, truths, tmp_path, seed):
    setting = list(SETTINGS)[seed % len(SETTINGS)]
    truth, truth_summary = truths(setting)
    chance, run = random.Random(seed), tmp_path / "run"
    for _ in range(6):
        pid = fork_server.start(run, *SETTINGS[setting])
        time.sleep(chance.uniform(0.05, 1.5))
        os.kill(pid, signal.SIGKILL)
        fork_server.wait(pid)
    assert_equal_runs(run, truth, fork_server.finish(run, *SETTINGS[setting]), truth_summary)
    assert not list((run / "checkpoints").glob(".*"))


def at(moment, number, run):
    """Overrides that let the run in this folder signal itself in a moment."""
    return (
        "steps_per_execution=1", "+callbacks.signal._target_=tests.faults.moments.SignalAt",
        f"+callbacks.signal.moment={moment}", f"+callbacks.signal.number={int(number)}",
        f"+callbacks.signal.marker={run / 'fired'}",
    )  # fmt: skip


SIGNALS, MOMENTS = ("SIGTERM", "SIGINT", "SIGUSR1"), ("step", "validation", "write")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "moment"),
    [*zip(SIGNALS, MOMENTS, strict=True)] if KILLS < 20 else [*itertools.product(SIGNALS, MOMENTS)],
)
def test_a_signal_saves_stops_with_its_code_and_resumes_exactly(fork_server, truths, tmp_path, name, moment):
    truth, truth_summary = truths("step by step")
    run, number = tmp_path / "run", getattr(signal, name)
    assert fork_server.wait(fork_server.start(run, *at(moment, number, run))) == 128 + number
    printed = fork_server.output(run).read_text()
    assert f"{name}: saving a checkpoint after this step" in printed
    assert f"{command('train')} resume={run}" in printed
    assert not (run / "summary.json").exists()
    assert_equal_runs(run, truth, fork_server.finish(run, "trust=[tests]"), truth_summary)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_a_moment_and_resumed_equals_uninterrupted(fork_server, truths, tmp_path, moment):
    truth, truth_summary = truths("step by step")
    run = tmp_path / "run"
    assert fork_server.wait(fork_server.start(run, *at(moment, signal.SIGKILL, run))) == -signal.SIGKILL
    # a write in the background may be cut off in any moment
    assert moment != "write" or list((run / "checkpoints").glob(".*.tmp"))
    assert_equal_runs(run, truth, fork_server.finish(run, "trust=[tests]"), truth_summary)
    assert not list((run / "checkpoints").glob(".*.tmp"))


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(fork_server, tmp_path):
    run = tmp_path / "run"
    slow = ("trainer.val_check_interval=1", "trainer.max_epochs=500", "scheduler=constant")  # no save is possible
    pid = fork_server.start(run, *slow)
    wait_until(lambda: "epoch 1/" in fork_server.output(run).read_text())
    os.kill(pid, signal.SIGINT)
    wait_until(lambda: "Ctrl-C again stops at once" in fork_server.output(run).read_text())
    os.kill(pid, signal.SIGINT)
    assert fork_server.wait(pid) == 130
    assert not list((run / "checkpoints").glob("rolling*"))


@pytest.mark.slow
def test_a_config_of_a_run_directory_builds_only_what_is_trusted(fork_server, tmp_path):
    run = tmp_path / "run"
    assert fork_server.wait(fork_server.start(run, *at("step", signal.SIGTERM, run))) == 143
    assert fork_server.wait(fork_server.start(run)) == 2
    said = fork_server.output(run).read_text()
    assert "_target_='tests.faults...ents.SignalAt' is not allowed" in said
    assert "trust=[tests]" in said


@pytest.mark.slow
def test_a_run_that_was_moved_goes_on_in_its_new_place(fork_server, truths, tmp_path):
    truth, truth_summary = truths("dropout and batch norm")
    pid = fork_server.start(tmp_path / "before")
    wait_until(lambda: len(list((tmp_path / "before" / "checkpoints").glob("*.ckpt"))) == 3)
    os.kill(pid, signal.SIGTERM)
    fork_server.wait(pid)
    shutil.move(tmp_path / "before", tmp_path / "after")
    assert_equal_runs(tmp_path / "after", truth, fork_server.finish(tmp_path / "after"), truth_summary)
    assert not (tmp_path / "before").exists()


@pytest.mark.slow
def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_named(fork_server, truths, tmp_path):
    truth, truth_summary = truths("dropout and batch norm")
    run = tmp_path / "run"
    pid = fork_server.start(run)
    wait_until(lambda: len(list((run / "checkpoints").glob("rolling*.ckpt"))) == 2)
    os.kill(pid, signal.SIGTERM)
    fork_server.wait(pid)
    newest = max((run / "checkpoints").glob("rolling*.ckpt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    (run / "checkpoints" / ".rolling-0009-0000999.ckpt.1.tmp").write_bytes(b"unfinished")
    assert_equal_runs(run, truth, fork_server.finish(run), truth_summary)
    assert f"passed over: the checkpoint {newest} is damaged" in fork_server.output(run).read_text()


@pytest.mark.slow
def test_what_would_change_what_is_learned_is_refused_and_shown(fork_server, tmp_path):
    run = tmp_path / "run"
    pid = fork_server.start(run)
    wait_until(lambda: list((run / "checkpoints").glob("rolling*.ckpt")))
    os.kill(pid, signal.SIGTERM)
    fork_server.wait(pid)
    assert fork_server.wait(fork_server.start(run, "optimizer.lr=0.5", "model.net.dropout=0.3")) == 2
    printed = fork_server.output(run).read_text()
    assert "optimizer.lr: 0.002 -> 0.5" in printed
    assert "model.net.dropout: 0.2 -> 0.3" in printed
    assert fork_server.wait(fork_server.start(run, "trainer.max_epochs=9")) == 2
    assert "was planned for 6 epochs" in fork_server.output(run).read_text()


def test_a_length_in_steps_that_a_schedule_was_planned_for_is_named(tmp_path):
    typed = ("trainer.max_epochs=-1", "trainer.max_steps=3", "scheduler=cosine", "trainer.accelerator=cpu")
    quick = ("model.net.hidden_features=[16]", "callbacks=minimal", "logger=none", "test=false")
    train(experiments.compose(*typed, *quick, f"run_dir={tmp_path}"))
    longer = ("trainer.max_steps=5", f"resume={tmp_path}")
    with pytest.raises(UserError, match="was planned for 3 steps"):
        train(experiments.compose(*longer, f"run_dir={tmp_path}"), longer)


@pytest.mark.slow
def test_a_run_without_a_planned_schedule_can_become_longer_even_when_finished(fork_server, tmp_path):
    constant = ("scheduler=constant", "trainer.max_epochs=4")
    truth = fork_server.finish(tmp_path / "truth", "scheduler=constant", "trainer.max_epochs=6")
    assert fork_server.finish(tmp_path / "run", *constant)["epochs"] == 4
    assert fork_server.finish(tmp_path / "run", *constant)["epochs"] == 4
    assert "is finished: nothing to resume" in fork_server.output(tmp_path / "run").read_text()
    summary = fork_server.finish(tmp_path / "run", "scheduler=constant", "trainer.max_epochs=6")
    assert {k: v for k, v in summary.items() if k not in CHANGING} == {
        k: v for k, v in truth.items() if k not in CHANGING
    }


@pytest.mark.slow
def test_where_a_validation_does_not_come_again_the_best_checkpoint_and_what_is_said_of_it_agree(
    fork_server, tmp_path
):
    run = tmp_path / "run"
    short = ("scheduler=constant", "optimizer.lr=0.003", "callbacks.rolling_checkpoint.every_n_steps=null")
    ended = fork_server.finish(run, *short, "trainer.max_steps=30")  # inside the second epoch
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == ended["steps"] == 30
    summary = fork_server.finish(run, *short, "trainer.max_steps=31")  # from the first epoch's end
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    measured = evaluate(run, split="val", accelerator="cpu")
    assert summary["steps"] == 31
    assert summary["val/accuracy"] == pytest.approx(measured["val/accuracy"])
    assert summary["val/loss"] == pytest.approx(measured["val/loss"], rel=1e-5)
    assert summary["val/accuracy"] >= ended["val/accuracy"]


@pytest.mark.slow
def test_another_trainer_leaves_the_length_and_data_root_leads_to_data_that_have_moved(small_mnist, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    begun = (
        "data=mnist",
        "data.val_size=20",
        f"data_root={small_mnist}",
        "scheduler=constant",
        "trainer.max_epochs=2",
    )
    train(experiments.compose(*begun, "trainer.accelerator=cpu", "callbacks=minimal", f"run_dir={run}"))
    (run / "summary.json").unlink()
    small_mnist.rename(moved)
    typed = ["trainer=default", f"data_root={moved}", f"resume={run}"]
    summary = train(experiments.compose(*typed, f"run_dir={run}"), typed)
    assert (summary["status"], summary["epochs"]) == ("finished", 2)


@pytest.mark.slow
def test_another_length_lasts_and_a_shorter_one_is_refused_before_anything_changes(tmp_path):
    run = tmp_path / "run"
    short = ("scheduler=constant", "trainer.accelerator=cpu", "callbacks=minimal", "logger=none")
    train(experiments.compose(*short, "trainer.max_epochs=3", f"run_dir={run}"))
    before = (run / "summary.json").read_bytes()

    def go_on(*typed):
        typed = (*typed, f"resume={run}")
        return train(experiments.compose(*typed, f"run_dir={run}"), typed)

    for shorter in ("trainer.max_epochs=1", "trainer.max_epochs=2", "trainer.max_steps=10"):
        with pytest.raises(UserError, match="the run has taken .* already; name more"):
            go_on(shorter)
    assert (run / "summary.json").read_bytes() == before
    assert go_on("trainer.max_epochs=5")["epochs"] == 5
    (run / "summary.json").unlink()  # as if it had been killed
    assert go_on()["epochs"] == 5


@pytest.mark.slow
def test_what_fails_before_it_goes_on_leaves_a_run_as_it_was(fork_server, tmp_path):
    run = tmp_path / "run"
    short = ("scheduler=constant", "trainer.max_epochs=1")
    fork_server.finish(run, *short, "test=false")
    before = (run / "summary.json").read_bytes()
    absent = "gpu" if not torch.cuda.is_available() else "mps"
    longer = ("scheduler=constant", "trainer.max_epochs=2", f"trainer.accelerator={absent}")
    assert fork_server.wait(fork_server.start(run, *longer)) == 2
    assert (run / "summary.json").read_bytes() == before
    fork_server.finish(run, *short, "test=true")
    assert f"to measure it on the test split: {command('evaluate')} run=" in fork_server.output(run).read_text()


@pytest.mark.slow
def test_a_planned_schedule_does_not_go_on_with_more_processes(fork_server, tmp_path):
    run = tmp_path / "run"
    fork_server.finish(run)
    (run / "summary.json").unlink()
    assert fork_server.wait(fork_server.start(run, "trainer.devices=2")) == 2
    assert "was planned for the steps of 1 devices, and 2 take another number" in fork_server.output(run).read_text()
    assert not (run / "summary.json").exists()  # resume=auto still finds it


@pytest.mark.slow
def test_a_run_that_took_lists_goes_on_step_by_step_where_something_watches_steps(fork_server, truths, tmp_path):
    truth, truth_summary = truths("dropout and batch norm")
    run = tmp_path / "run"
    pid = fork_server.start(run)
    wait_until(lambda: newest_step(run) >= 7)
    os.kill(pid, signal.SIGKILL)
    fork_server.wait(pid)
    summary = fork_server.finish(run, "trainer.profiler=simple")
    assert {k: summary[k] for k in ("val/accuracy", "val/loss", "steps", "epochs", "test/loss")} == {
        k: truth_summary[k] for k in ("val/accuracy", "val/loss", "steps", "epochs", "test/loss")
    }
    best = [torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True) for folder in (run, truth)]
    same(best[0]["state_dict"], best[1]["state_dict"])


@pytest.mark.slow
def test_another_logger_may_be_typed_and_a_recipe_that_differs_is_refused(fork_server, truths, tmp_path):
    truth, truth_summary = truths("dropout and batch norm")
    run = tmp_path / "run"
    pid = fork_server.start(run)
    wait_until(lambda: list((run / "checkpoints").glob("rolling*.ckpt")))
    os.kill(pid, signal.SIGTERM)
    fork_server.wait(pid)
    assert fork_server.wait(fork_server.start(run, "debug=fast")) == 2
    assert "trainer.limit_train_batches: 1.0 -> 2" in fork_server.output(run).read_text()
    assert_equal_runs(run, truth, fork_server.finish(run, "logger=[tensorboard]"), truth_summary)
    assert list(run.glob("events.*"))


@pytest.mark.slow
def test_auto_starts_a_run_and_then_goes_on_with_it_wherever_it_lies(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    said = "there is no unfinished run of this name and config, so a new one begins"
    folder = (
        tmp_path / "a long folder with spaces in its name" / "and a second one, so that lines get folded somewhere"
    )
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    short = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=4", "resume=auto")
    first = experiments.compose(*short)
    train(first, short)
    assert said in caplog.text
    caplog.clear()
    run = Path(first["run_dir"])
    (run / "summary.json").unlink()  # as if it had been killed before its last moment
    again = experiments.compose(*short)
    assert again["run_dir"] == first["run_dir"]
    train(again, short)
    assert said not in caplog.text
    assert (run / "summary.json").exists()
    assert experiments.compose(*short)["run_dir"] != first["run_dir"]
    assert experiments.compose(*short, "seed=7")["run_dir"] != first["run_dir"]


@pytest.mark.slow
def test_two_processes_never_work_in_one_run_directory(fork_server, tmp_path):
    run, long = tmp_path / "run", "trainer.max_epochs=1000"
    pid = fork_server.start(run, long)
    wait_until(lambda: (run / "config.yaml").exists())
    assert fork_server.wait(fork_server.start(run, long)) == 2
    assert "another process works in" in fork_server.output(run).read_text()
    os.kill(pid, signal.SIGKILL)
    fork_server.wait(pid)


@pytest.mark.slow
def test_a_network_that_the_last_step_before_a_validation_has_lost_is_not_kept(fork_server, tmp_path):
    run = tmp_path / "run"
    lost = ("optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant", "data.batch_size=1257")
    assert fork_server.wait(fork_server.start(run, *lost)) == 2
    assert "the validation loss became nan in epoch 1, after step 0" in fork_server.output(run).read_text()
    assert not list((run / "checkpoints").glob("*.ckpt"))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_poisons_no_checkpoint(fork_server, tmp_path):
    run = tmp_path / "run"
    assert fork_server.wait(fork_server.start(run, "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant")) == 2
    printed = fork_server.output(run).read_text()
    assert "the training loss became" in printed
    assert "in epoch 1, step" in printed
    assert "learning rate is 1e+30 now" in printed
    for path in (run / "checkpoints").glob("*.ckpt"):
        for value in torch.load(path, weights_only=True)["state_dict"].values():
            assert value.isfinite().all()


@pytest.mark.slow
def test_same_seed_same_weights_seed_zero_included(fork_server, truths, tmp_path):
    truth, truth_summary = truths("dropout and batch norm")
    assert_equal_runs(tmp_path / "run", truth, fork_server.finish(tmp_path / "run", "seed=0"), truth_summary)
    other = fork_server.finish(tmp_path / "other", "seed=1")
    assert other["test/loss"] != truth_summary["test/loss"]


@pytest.mark.slow
def test_a_finished_run_of_one_epoch_goes_on_from_its_last_moment(tmp_path):
    def trained(name, *more):
        options = ("model.net.norm=batch", "model.net.dropout=0.2", "scheduler=constant", "data.limit=193")
        where = ("trainer.accelerator=cpu", "logger=none", "callbacks=minimal", f"run_dir={tmp_path / name}")
        return train(experiments.compose(*options, *where, *more), more)

    whole = trained("whole", "trainer.max_epochs=3")
    trained("parts", "trainer.max_epochs=1", "test=false")
    (saved,) = (tmp_path / "parts" / "checkpoints").glob("rolling*")
    assert saved.name == "rolling-0000-0000005.ckpt"  # of six steps
    parts = trained("parts", f"resume={tmp_path / 'parts'}", "trainer.max_epochs=3", "test=true")
    assert [parts[key] for key in ("val/loss", "test/loss", "steps")] == [
        whole[key] for key in ("val/loss", "test/loss", "steps")
    ]
    states = [torch.load(tmp_path / name / "checkpoints" / "best.ckpt")["state_dict"] for name in ("whole", "parts")]
    assert all(value.equal(states[1][name]) for name, value in states[0].items())
