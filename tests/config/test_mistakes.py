"""What users type wrong: each ends with one message that holds the value and the mend, and no traceback.

In this process, through the same ``main`` as on the command line; a handful in processes of their own.
"""

import contextlib
import json
import os
import sys

import pytest
from hydra.errors import HydraException

import experiments
from experiments.config.checks.check import config_mistakes
from experiments.config.checks.classes import class_mistakes
from experiments.config.checks.sources import origin_of
from experiments.config.conf_files import choices
from experiments.config.installation import CONF, OWN_CONF
from experiments.config.overrides import explain
from experiments.errors import UserError
from tests.packing import packed

FAST = ("trainer.accelerator=cpu", "logger=none")

# what was typed, the exit code, words of the message: the value, and the mend
VALUES = [
    ("optimizer.lr=-1", 2, "optimizer.lr=-1: it must be a number more than 0"),
    ("optimizer.lr=0", 2, "optimizer.lr=0: it must be"),
    ("optimizer.lr=abc", 2, "optimizer.lr=abc: it must be a number"),
    ("optimizer.lr=nan", 2, "optimizer.lr=nan: it must be"),
    ("optimizer.lr=inf", 2, "optimizer.lr=inf: it must be"),
    ("optimizer.lr=[0.1]", 2, "optimizer.lr=[0.1]: it must be a number"),
    ("optimizer.betas=0.9", 2, "optimizer.betas=0.9: it must be a list"),
    ("optimizer.betas=[0.9,1.5]", 2, "less than 1"),
    ("optimizer.weight_decay=-0.1", 2, "at least 0"),
    ("optimizer.fused=maybe", 2, "true or false"),
    ("seed=-1", 2, "seed=-1: it must be a whole number from 0"),
    ("seed=abc", 2, "seed=abc: it must be a whole number"),
    ("seed=1.5", 2, "seed=1.5: it must be a whole number"),
    ("seed=99999999999", 2, "4294967295"),
    ("name=../elsewhere", 2, "must be a name"),
    ("test=maybe", 2, "test=maybe: it must be true or false"),
    ("data.batch_size=0", 2, "data.batch_size=0: it must be a whole number of at least 1"),
    ("data.batch_size=1.5", 2, "whole number"),
    ("data.batch_size=many", 2, "data.batch_size=many: it must be a number, such as 32"),
    ("data.batch_size=true", 2, "data.batch_size=true: it must be a number"),
    ("data.eval_batch_size=-5", 2, "at least 1"),
    ("data.limit=-3", 2, "a fraction between 0 and 1"),
    ("data.limit=1.5", 2, "a fraction between 0 and 1"),
    ("data.val_size=0", 2, "data.val_size=0: it must be"),
    ("data.fold=1", 2, "data.fold=1: it needs the other one too, such as data.num_folds=5"),
    ("data.num_folds=5 data.fold=5", 2, "data.fold=5: it must be from 0 to 4"),
    ("data.fold=0 data.num_folds=1", 2, "data.num_folds=1: it must be a whole number of at least 2"),
    ("data.balanced=3", 2, "true or false"),
    ("trainer.max_epochs=abc", 2, "trainer.max_epochs=abc: it must be"),
    ("trainer.max_epochs=0", 2, "at least 1"),
    ("trainer.max_epochs=2.5", 2, "whole number"),
    ("trainer.min_epochs=30 trainer.max_epochs=3", 2, "trainer.min_epochs=30: it exceeds"),
    ("trainer.devices=0", 2, "a count of at least 1"),
    ("trainer.gradient_clip_val=-1", 2, "at least 0"),
    ("trainer.gradient_clip_algorithm=nrom", 2, "Did you mean norm?"),
    ("trainer.accumulate_grad_batches=0", 2, "at least 1"),
    ("trainer.limit_train_batches=1.5", 2, "a fraction from 0.0 to 1.0"),
    ("trainer.val_check_interval=2.5", 2, "up to 1.0"),
    ("trainer.check_val_every_n_epoch=0", 2, "at least 1"),
    ("trainer.log_every_n_steps=-1", 2, "at least 0"),
    ("trainer.profiler=fast", 2, "simple, advanced, pytorch"),
    ("model.net.dropout=1.5", 2, "less than 1"),
    ("model.net.hidden_features=512", 2, "such as [512]"),
    ("model.net.hidden_features=[512,-1]", 2, "whole numbers of at least 1"),
    ("model=cnn model.net.kernel_size=0", 2, "at least 1"),
    ("scheduler.pct_start=3", 2, "from 0 to 1"),
    ("scheduler=step scheduler.step_size=0", 2, "at least 1"),
    ("loss.label_smoothing=2", 2, "from 0 to 1"),
    ("loss=focal loss.gamma=-1", 2, "at least 0"),
    ("loss=margin loss.p=3", 2, "one of 1, 2"),
    ("augment=crop augment.crop.margin=-1", 2, "from 0 to 1000"),
    ("augment=affine augment.affine.padding=zreos", 2, "Did you mean zeros?"),
    ("callbacks.rolling_checkpoint.keep=0", 2, "at least 1"),
    ("callbacks=[default,early_stopping] callbacks.early_stopping.patience=-1", 2, "at least 0"),
]
KEYS = [
    ("data.batchsize=3", 2, "Did you mean data.batch_size"),
    ("optimzer.lr=1", 2, "Did you mean optimizer.lr"),
    ("lr=0.1", 2, "Did you mean optimizer.lr"),
    ("epochs=3", 2, "epochs"),
    ("model=mpl", 2, "Did you mean model=mlp?"),
    ("optimizer=Adam", 2, "Type optimizer=adam"),
    (
        "experiment=digits_ml",
        2,
        "Did you mean experiment=digits_mlp",
    ),
]
ADDED = [  # keys that no file has
    ("+sed=3", 2, "sed=3: it is a key that nothing reads. Did you mean seed=3"),
    ("+steps=3", 2, "steps=3: it is a key that nothing reads"),
    ("+trainer.overfit_batches=2", 2, "debug=overfit"),
]
ARGUMENTS = [
    ("+data.root=files", 2, "Type data="),
    ("+trainer.gpus=1", 2, "Type trainer.devices=1"),
    ("+trainer.max_epoch=3", 2, "Type trainer.max_epochs=3"),
    ("+optimizer.learning_rate=0.1", 2, "Type optimizer.lr=0.1"),
    ("+model.net.width=8", 2, "model.net.width=8: it is no argument of experiments.nets.MLP"),
    ("optimizer=sgd +optimizer.betas=[0.9,0.99]", 2, "is no argument of torch.optim.SGD"),
    ("+optimizer.amsgrad=yes", 2, "optimizer.amsgrad=yes: it must be true or false"),
]
CLASSES = [
    ("model.net._target_=nowhere.Net", 2, "there is no module nowhere"),
    ("model.net._target_=experiments.nets.MPL", 2, "Did you mean MLP"),
    ("optimizer._target_=torch.optim.Adamm", 2, "Did you mean Adam"),
    ("model.net._target_=torch.nn", 2, "is a module, not a class"),
    ("model.net._target_=3", 2, "is no import path"),
    ("model.net._target_=broken_module.Net", 2, "broken_module.py:1"),
    ("model.net._target_=wrong_import.Net", 2, "No module named 'nothing_like_it' (wrong_import.py:1)"),
    ("+callbacks.mine._target_=lightning.pytorch.callbacks.EarlyStopping", 2, "lacks monitor"),
]


def chosen_from(group):
    return f"{group} is chosen by a name: {', '.join(choices(group))}"


ALONE = [  # each ends a command by itself
    ("model.net.activation=relo", 2, "ReLU"),
    ("model.net.norm=bach", 2, "none, batch, layer"),
    ("~optimizer.nothing", 2, "optimizer.nothing"),
    ("trainer.precision=12", 2, "bf16-mixed"),
    ("trainer.strategy=dpd", 2, "dpd"),
    ("trainer.max_time=soon", 2, "soon"),
    ("trainer.accelerator=tpux", 2, "trainer: You selected an invalid accelerator name"),
    ("scheduler=plateau scheduler.mode=mni", 2, "one of min, max"),
    ("trainer=3", 2, chosen_from("trainer")),
    ("sweep=mlp", 2, "Type -m before it"),
    ("--optimizer.lr=0.1", 2, "options take no dashes here. Type optimizer.lr=0.1"),
    ("--seed=3", 2, "options take no dashes here. Type seed=3"),
    ("--experimental-rerun=job.pickle", 2, "a pickle is code"),
    ("resume=nowhere", 2, "no such run directory"),
    ("-m resume=nowhere", 2, "Leave out -m"),
    ("model=custom", 2, "model.net._target_ must be given"),
    ("data=custom", 2, "data._target_ must be given"),
    ("optimizer.lr", 2, "key=value in one piece"),
    ("model.net.hidden_features=[1,", 2, "key=value in one piece"),
    ("optimizer.lr =0.1", 2, "an override is one piece. Type optimizer.lr=0.1"),
    ("metrics=null", 2, chosen_from("metrics")),
    ("model=null", 2, chosen_from("model")),
    ("optimizer=null", 2, chosen_from("optimizer")),
    ("callbacks.progress=off", 2, "must be null, which turns it off"),
    ("loss=margin augment=mixup", 2, "use loss=cross_entropy"),
    ("callbacks=[default,early_stopping] callbacks.early_stopping.monitor=val/los", 2, "Did you mean val/loss"),
    ("callbacks=[default,early_stopping] callbacks.early_stopping.monitor=val_loss", 2, "There are train/loss"),
    ("callbacks=[default,early_stopping] callbacks.early_stopping.mode=min", 2, "it must be max"),
    ("callbacks.best_checkpoint.monitor=val/f1", 2, "is not logged"),
    ("trainer.limit_val_batches=0", 2, "callbacks.best_checkpoint=null"),
    ("trainer.max_epochs=-1", 2, "scheduler=constant"),
    ("trainer.val_check_interval=1000", 2, "exceeds the 40 batches"),
    ("data.batch_size=5000", 2, "exceeds the 1,257 images"),
    ("data.limit=5000", 2, "exceeds the 1,257 images"),
    ("data.val_size=2000", 2, "leaves none of the 1,437"),
    ("model=cnn model.net.in_channels=3", 2, "null takes it from the data"),
    ("model.net.in_features=100", 2, "null takes it from the data"),
    ("model.net.num_classes=3", 2, "null takes it from the data"),
    ("optimizer=sgd optimizer.momentum=0", 2, "optimizer.momentum=0.9"),
    ("model=attention model.net.embed_dim=65", 2, "multiple of num_heads"),
    ("init_from=nowhere.pth", 2, "is no file"),
    ("data=image_folder data.root=nowhere", 2, "data.root=nowhere: it is not there: name a folder"),
    ("data=image_folder data.root=a_file", 2, "is a file"),
    ("data=image_folder", 2, "data.root must be given"),
    ("hydra.run.dir=a_file/run", 2, "a_file is a file"),
    ("logger.tensorboard.save_dir=x +logger.tensorboard.api_key=abc123", 2, "holds a secret"),
    ("check=true resume=auto", 2, "leave out resume"),
    ("~model", 2, "model: it is missing"),
    ("~trainer.accelerator", 2, "trainer.accelerator: it is missing"),
    ("augment=[[[1]]]", 2, chosen_from("augment")),
    ("experiment=[1,2]", 2, "experiment is chosen by a name: digits_"),
    ("~model=[]", 2, "model is chosen by a name: "),
    ("scheduler=plateau trainer.val_check_interval=5 trainer.check_val_every_n_epoch=null", 2, "set it to 1"),
    ("hydra/launcher=[null]", 2, "chosen by a name: hydra/launcher=<name>"),
    ("hydra/sweeper/pruner=[1]", 2, chosen_from("hydra/sweeper/pruner")),
    ("~hydra/sweeper", 2, "a multirun needs one"),
    ("hydra/launcher=[]", 2, "a multirun needs one"),
    ("trainer.strategy=ddp_spawn", 2, "use trainer.strategy=ddp"),
    ("model=cnn optimizer=muon", 2, "optimizer: it does not go with experiments.nets.CNN: Muon is for hidden"),
    ("+callbacks.x._target_=lightning.pytorch.callbacks.BatchSizeFinder", 2, "check=true tells the memory"),
    ("+callbacks.x._target_=lightning.pytorch.callbacks.BackboneFinetuning", 2, "callbacks=[default,freeze]"),
    ("trainer.accumulate_grad_batches=100", 2, "exceeds the 40 batches of an epoch"),
    ("compile=3", 2, "compile=3: it must be true or false"),
    ("matmul_precision=hihg", 2, "must be one of highest, high, medium. Did you mean high?"),
]
STAGES = (VALUES, KEYS, ADDED, ARGUMENTS, CLASSES)  # what each finds comes at once
TABLE = [row for rows in (*STAGES, ALONE) for row in rows]
COMMANDS = [group for rows in (*STAGES, *([row] for row in ALONE)) for group in packed(rows)]


def test_the_table_is_long_and_names_every_mistake_once():
    assert len(TABLE) >= 80
    assert len({typed for typed, *_ in TABLE}) == len(TABLE)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder but for what some mistakes need."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    (tmp_path / "a_file").write_text("")
    (tmp_path / "broken_module.py").write_text("class Net(:\n")
    (tmp_path / "wrong_import.py").write_text("import nothing_like_it\n")
    return tmp_path


@pytest.mark.parametrize("rows", COMMANDS, ids=lambda rows: f"{rows[0][0]} and {len(rows) - 1} more")
def test_every_mistake_of_a_command_is_told_with_its_value_and_its_mend_and_no_traceback(here, script_here, rows):
    typed = [override for row in rows for override in row[0].split()]
    found, output, errors = script_here("train", *(() if "logger" in typed[0] else FAST), *typed)
    assert "Traceback" not in errors + output
    assert "Error executing job" not in errors
    assert "HYDRA_FULL_ERROR" not in errors
    assert errors.startswith("error: ")
    for typed, code, words in rows:
        assert found == code, errors
        assert words in errors, (typed, errors)
        key, _, value = typed.split()[-1].lstrip("+-~").partition("=")
        assert value in errors or key.removesuffix("._target_") in errors, (typed, errors)


@pytest.mark.parametrize(("typed", "code", "words"), [VALUES[0], KEYS[0]], ids=["value", "key"])
def test_the_same_in_a_process_of_its_own(forked, typed, code, words):
    process = forked("train", *typed.split(), *FAST)
    assert process.returncode == code
    assert words in process.stderr
    assert "Traceback" not in process.stderr


def test_all_mistakes_come_at_once_each_with_its_place(here, script_here):
    code, _, errors = script_here("train", "optimizer.lr=-1", "data.batch_size=x", "+sed=1", "experiment=digits_mlp")
    assert code == 2
    assert errors.startswith("error: 3 mistakes:\n")
    assert errors.count("(command line)") == 3
    assert not (here / "runs").exists()


def test_a_mistake_in_a_file_is_shown_with_its_line():
    recipe = (CONF / "experiment" / "digits_mlp.yaml").read_text().splitlines()
    line = recipe.index("  max_epochs: 60") + 1
    assert origin_of("trainer.max_epochs", 60, ["experiment=digits_mlp"]) == f"conf/experiment/digits_mlp.yaml:{line}"
    assert origin_of("optimizer.momentum", 0.9, ["optimizer=sgd"]) == "conf/optimizer/sgd.yaml:4"
    assert origin_of("optimizer.momentum", 0.9, ["optimizer.momentum=0.9"]) == "command line"


@pytest.mark.parametrize(
    ("typed", "key", "value", "file"),
    [
        (["callbacks=[default,ema]"], "callbacks.ema.decay", 0.99, "callbacks/ema.yaml"),
        (["callbacks=[default,ema]"], "callbacks.finite_loss.every_n_steps", 50, "callbacks/checkpoints.yaml"),
        (["experiment=mnist_attention"], "optimizer.momentum", 0.95, "optimizer/muon.yaml"),
        (["experiment=mnist_attention"], "augment.affine.translate", 0.04, "experiment/mnist_attention.yaml"),
        (["sweep=mlp"], "hydra.sweeper.n_trials", 20, "hydra/sweeper/optuna.yaml"),
        ([], "optimizer.lr", 0.002, ""),  # an interpolation: the number itself stands in files that were not chosen
        ([], "optimizer.momentum", 0.9, ""),
    ],
    ids=str,
)
def test_a_value_is_found_in_the_files_that_were_chosen(typed, key, value, file):
    assert origin_of(key, value, typed).removeprefix("conf/").partition(":")[0] == file


def test_the_whole_way_is_shown_where_it_is_asked_for(here, script_here, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, _, errors = script_here("train", "optimizer.lr=-1")
    assert code == 2
    assert "Traceback" in errors


def test_what_is_right_is_no_mistake(tmp_path):
    for typed in (
        "trainer.devices=auto", "trainer.devices=[0]", "trainer.precision=16-mixed", "trainer.precision=32",
        "trainer.max_time={hours:1}", "trainer.max_epochs=null", "trainer.limit_train_batches=3",
        "trainer.limit_train_batches=0.5", "trainer.val_check_interval=10", "data.limit=0.1", "data.limit=64",
        "data.val_size=0.2",  "optimizer.lr=1", "callbacks.progress=null", "+optimizer.amsgrad=true",
        "+trainer.fast_dev_run=true", "logger.tensorboard.version=3", "name=paper/baseline", "seed=0",
        "model.net.num_classes=12", "trainer.strategy=ddp", "callbacks.rolling_checkpoint.every_minutes=0.5",
    ):  # fmt: skip
        config = experiments.compose(typed)
        assert config_mistakes(config, [typed]) + class_mistakes(config, [typed]) == [], typed


def test_rules_of_ours_are_not_put_on_a_users_own_class(here, monkeypatch):
    (here / "own_rules.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self, num_classes, dropout, depth=0.5): ...\n"
    )
    monkeypatch.syspath_prepend(here)
    target = "model.net._target_=own_rules.Net"
    config = experiments.compose("model=custom", target, "+model.net.dropout=7", "+model.net.depth=0.5")
    assert config_mistakes(config) + class_mistakes(config) == []


def test_a_variable_that_a_config_refers_to_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv(OWN_CONF, str(tmp_path))
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "default.yaml").write_text(
        "# @package _global_\nwidth: 8\nmodel: {net: {hidden_features: ['${width}']}}"
    )
    assert config_mistakes({**experiments.compose(), "width": 8}) == []
    assert config_mistakes({**experiments.compose(), "height": 8}) != []


def test_run_train_checks_what_a_notebook_gives_it(tmp_path):
    from experiments.training.run import train

    config = experiments.compose(f"run_dir={tmp_path / 'run'}")
    config["data"]["batch_size"] = 0
    with pytest.raises(UserError, match="data.batch_size=0: it must be"):
        train(config)
    assert not (tmp_path / "run").exists()


# ---- multiruns


def test_every_point_of_a_grid_is_looked_at_before_the_first_starts(here, script_here):
    code, output, errors = script_here("train", "-m", "seed=0,1,-1", "data.batch_size=32,0", *FAST)
    assert code == 2
    assert errors.startswith("error: 2 mistakes:\n")
    assert "seed=-1: it must be" in errors
    assert "(at seed=0 data.batch_size=0" in errors
    assert "Launching" not in output
    assert not (here / "runs").exists()


def test_each_job_of_a_multirun_says_why_it_failed(here, script_here):
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", *FAST)
    code, _, errors = script_here("train", "-m", "data.limit=5,100,7", *short)
    assert code == 2
    assert "error in job 0 (" in errors
    assert "error in job 2 (" in errors
    assert "data.limit=7 leaves 7 images for 10 classes" in errors
    assert "2 of 3 runs failed" in errors
    assert "Traceback" not in errors
    assert "HYDRA_FULL_ERROR" not in errors
    states = [json.loads(path.read_text())["status"] for path in sorted(here.glob("runs/multirun/*/*/summary.json"))]
    assert states == ["failed", "finished", "failed"]


def test_a_fault_of_the_program_outweighs_mistakes_and_keeps_its_traceback(here, script_here):
    (here / "faulty_here.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self): super().__init__(1, 1)\n"
    )
    targets = "model.net._target_=experiments.nets.MLPP,faulty_here.Net"
    code, _, errors = script_here("train", "-m", "model=custom", targets, *FAST)
    assert code == 1
    assert "Did you mean MLP" in errors
    assert "Traceback" in errors
    (report,) = here.glob("runs/multirun/*/1/error.txt")
    assert "Traceback" in report.read_text()


# ---- check=true


def everything_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("typed", [(), ("optimizer=sgd", "augment=mixup", "metrics=[f1]", "callbacks=[default,ema]")])
def test_check_takes_a_batch_through_every_stage_and_writes_nothing(here, script_here, typed):
    before = everything_in(here)
    code, output, errors = script_here("train", "check=true", "trainer.accelerator=cpu", *typed)
    assert code == 0, errors
    assert "parameters: 669,706" in output
    assert all(f"{stage}/loss" in output for stage in ("train", "val", "test"))
    assert everything_in(here) == before


def test_check_of_ones_own_images_leaves_no_cache(here, script_here, small_data):
    where = small_data("image_folder")
    before = everything_in(here)
    code, output, errors = script_here("train", "check=true", "data=image_folder", *where, *FAST)
    assert code == 0, errors
    assert "no mistake found" in output
    assert everything_in(here) == before


def test_check_downloads_nothing(here, script_here):
    code, _, errors = script_here("train", "check=true", "data=mnist", *FAST)
    assert code == 2
    assert "check=true writes nothing, so it is not downloaded" in errors
    assert not (here / "data").exists()


def test_a_file_that_is_no_yaml_is_named_with_the_place(monkeypatch, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("optimizer:\n  betas: [0.9\n")
    monkeypatch.setenv(OWN_CONF, str(tmp_path))
    with pytest.raises(UserError, match=f'{tmp_path / "experiment" / "mine.yaml"}", line 2'):
        experiments.compose("optimizer=sgd", "experiment=mine")


def test_a_file_that_sets_keys_of_the_whole_experiment_must_say_so():
    config = {**experiments.compose(*FAST), "experiment": {"trainer": {"max_epochs": 1}}}
    (found,) = config_mistakes(config)
    assert "Does a file of conf/experiment/ lack the line  # @package _global_  ?" in found
    error = HydraException("In 'experiment/mine': Could not override 'model@experiment.model'.")
    (found,) = explain(error, ["experiment=digits_mlp"])
    assert "conf/experiment/ a file without the line" in found


def test_check_of_a_grid_starts_none_of_it(here, script_here):
    before = everything_in(here)
    code, output, errors = script_here(
        "train", "-m", "check=true", "optimizer=adam,sgd", "model.net.norm=none,bad", *FAST
    )
    assert code == 2
    assert output.count("no mistake found") == 2
    assert errors.count("model.net.norm=bad: it is not one of") == 4  # each where it happens, and at the end
    assert everything_in(here) == before
    code, output, errors = script_here("train", "-m", "check=true", "optimizer=adam,sgd", *FAST)
    assert (code, output.count("no mistake found"), errors) == (0, 2, "")
    assert everything_in(here) == before


# ---- what is left alone


def test_the_first_pass_imports_nothing_heavy():
    assert not {"torch", "lightning", "numpy"} & _modules_after(
        "import experiments.config.checks.check, experiments.config.command_line"
    )


def _modules_after(code):
    import subprocess

    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout.split())


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "Expected more than 1 value per channel when training, got input size torch.Size([1, 512])",
            "data.batch_size",
        ),
        (
            "`val_check_interval` (50) must be less than or equal to the number of the training batches (40).",
            "val_check",
        ),
    ],
)
def test_what_shows_only_while_running_is_a_users_mistake_too(message, words):
    from experiments.training.run import as_user_error

    error = as_user_error(ValueError(message), experiments.compose())
    assert isinstance(error, UserError)
    assert words in str(error)
    with contextlib.suppress(ValueError):
        raise as_user_error(ValueError("anything else"), experiments.compose())
