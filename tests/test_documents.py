"""Every command and code block of the README and of docs is run, with small data, as it is typed."""

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import experiments
from experiments.config.command_line import command_line_mistake
from experiments.config.conf_files import take_config_dir
from experiments.config.installation import CONF
from experiments.config.resolvers import forget_run_id
from experiments.nets import MLP
from tests.conftest import ROOT
from tests.small_data import SMALL_DATA

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
# programs of others
ELSEWHERE = ("pip", "pytest", "tensorboard", "optuna-dashboard", "uv", "pre-commit", "docker", "mkdir")
# the checks themselves; hours; what has a test of its own
NOT_RUN = ("scripts/check.py", "benchmarks/results.py", "scripts/new_project.py")
RUN = re.compile(r"runs/([a-z]+)-digits/<id>")
DOWNLOADED = [name for name in SMALL_DATA if not name.startswith("image_")]
SMALL = ["trainer.max_epochs=1", "callbacks.report=null", "callbacks.graph=null"]


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """A page's code: its language, the file it is to be saved as, its text."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[str]:
    return [line for language, _, text in blocks(page) if language == "bash" for line in text.splitlines() if line]


def newest(name: str) -> str:
    """A name in which the newest directory stands in place of each ``<id>``."""
    while "<id>" in name:
        before, _, after = name.partition("<id>")
        folder = re.search(r"[\w./-]*$", before)[0]
        found = sorted(Path(folder).iterdir(), key=lambda path: path.stat().st_mtime)
        name = f"{before}{found[-1].name}{after}"
    return name


def data_set(arguments: list[str]) -> str:
    """The data set that a command chooses, itself or by its recipe."""
    typed = dict(one.split("=", 1) for one in arguments if "=" in one)
    recipe = CONF / "experiment" / f"{typed.get('experiment')}.yaml"
    chosen = re.search(r"override /data: (\w+)", recipe.read_text()) if recipe.is_file() else None
    return typed.get("data") or (chosen[1] if chosen else "digits")


def small(arguments: list[str]) -> list[str]:
    """A command for train.py, with what makes it short, and without what this machine may not have."""
    replaced = {"trainer.accelerator=gpu": "trainer.accelerator=cpu", "data.root=/my/data": "data.root=files"}
    arguments = [replaced.get(one, one) for one in arguments]
    given = {one.partition("=")[0] for one in arguments}
    more = [one for one in SMALL if not {one.partition("=")[0], "resume"} & given]
    if any(one.startswith(("debug=", "check=")) for one in arguments):
        more = []
    if "resume=auto" in arguments:  # which finds nothing to go on with here
        more = [*SMALL, "data.limit=64"]
    if "callbacks" in " ".join(given):
        more = [one for one in more if one.startswith("trainer")]
    if "resume" not in given:
        more.append("data_root=files")
    chosen = data_set(arguments)
    if chosen in DOWNLOADED:
        more.append("data.val_size=0.5")
    elif chosen == "digits" and not given & {"resume", "data.limit", "debug", "check"}:
        more.append("data.limit=64")
    shorter = {
        r"trainer.max_epochs=\d+": "trainer.max_epochs=1",
        r"hydra.sweeper.n_trials=\d+": "hydra.sweeper.n_trials=2",
        r"hydra.sweeper.workers=\d": "",
        r"^(seed|data.fold)=(\d),(\d),[\d,]+": r"\1=\2,\3",
    }
    for pattern, with_what in shorter.items():
        arguments = [re.sub(pattern, with_what, one) for one in arguments]
    if "model=pretrained" in arguments:  # timm's smallest, since nothing is fetched here
        more += ["model.net.name=test_resnet", "model.net.weights=none", "data.image_size=32"]
    if "hydra/sweeper=optuna" in arguments:
        more.append("hydra.sweeper.n_trials=2")
    return [one for one in arguments if one] + ([] if "--cfg" in arguments else more)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with what a reader of the pages has by then: data, pictures, weights, and two runs."""
    folder = tmp_path_factory.mktemp("reader")
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.chdir(folder)
        for name in DOWNLOADED:
            SMALL_DATA[name](Path("files"), patch)
        SMALL_DATA["image_table"](Path("photos"), patch)
        if (ROOT / "examples").is_dir():
            shutil.copytree(ROOT / "examples", "examples")
        (Path("photos/seven.png")).write_bytes(b"")
        Image.fromarray(np.zeros((28, 28), np.uint8)).save("photos/seven.png")
        Image.fromarray(np.zeros((28, 28), np.uint8)).save("seven.png")
        torch.save(MLP().state_dict(), "model.pth")
        for model in sorted({found for page in PAGES for found in RUN.findall(page.read_text(encoding="utf-8"))}):
            run = Path("runs", f"{model}-digits", "first").absolute()
            short = ("data.limit=64", "trainer.max_epochs=1", "callbacks=minimal", "trainer.accelerator=cpu")
            config = experiments.compose(f"model={model}", f"run_dir={run}", *short)
            experiments.train(config)
        shutil.copytree("runs/mlp-digits/first", "runs/multirun/first/0")
        Path("runs/multirun/first/multirun.yaml").touch()
    yield folder
    patch.undo()


@pytest.fixture
def reader(prepared, monkeypatch, script_here, processes):
    """Type a command as a reader of the pages does."""
    monkeypatch.chdir(prepared)
    for path in prepared.glob("my_*.py"):
        sys.modules.pop(path.stem, None)

    def type_it(line: str) -> None:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
            words = words[1:]
        program, *arguments = words
        if program == "python" and arguments[0] == "-m":
            return
        if program in ELSEWHERE:
            for extra in re.findall(r"\.\[(\w+)\]", line):
                assert extra in EXTRAS, line
            return
        assert program == "python", f"this test does not know {program}: {line}"
        script, *arguments = arguments
        assert (ROOT / script).is_file(), line
        if script in NOT_RUN:
            return
        forget_run_id()  # of a process before
        arguments = [newest(one) for one in arguments]
        name = Path(script).stem
        if "trainer.devices=2" in arguments:  # started as processes by tests/faults/test_ranks.py
            experiments.compose(*arguments)
            return
        if script == "scripts/train.py":
            monkeypatch.setenv("EXPERIMENTS_CONF", "")  # of a command before
            take_config_dir(arguments)
            assert command_line_mistake(arguments) is None, line
            arguments = small(arguments)
        if name == "describe":
            if "model=pretrained" in arguments:
                arguments.append("model.net.name=test_resnet")
            arguments = [one for one in arguments if one != "data.root=/my/data"]
        if name == "find_lr":
            arguments = [*arguments, "data_root=files", "data.val_size=20", "steps=20", "trainer.accelerator=cpu"]
        if name == "evaluate":
            arguments += [
                "accelerator=cpu",
                *("data.root=files" for name in DOWNLOADED if f"data={name}" in arguments),
            ]
        if name == "predict":
            arguments += ["accelerator=cpu"]
        if name == "demo":  # which would serve its page until it is ended: its last check ends it, all else is right
            process = processes.start(prepared, prepared / "demo.log", script, *arguments, "port=0")
            assert process.wait() == 2
            assert "port=0 must be from 1" in process.printed()
            return
        code, output, errors = script_here(name, *arguments)
        assert code in (0, None), f"{line}\n{arguments}\n{output}\n{errors}"

    return type_it


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_does_what_it_says(page, reader, tmp_path, monkeypatch):
    for language, file, text in blocks(page):
        if language == "bash":
            for line in text.splitlines():
                for part in line.split(" && "):
                    if part and not part.startswith(". "):
                        reader(part)
        elif file:
            Path(file).write_text(text, encoding="utf-8")
        elif language == "python":
            images = torch.rand(2, 1, 28, 28)
            exec(compile(newest(text), f"{page.name}", "exec"), {"images": images})
        else:
            assert language == "yaml", f"{page.name} has a block of {language}"
            conf = tmp_path / "conf"
            (conf / "local").mkdir(parents=True, exist_ok=True)
            (conf / "local" / "default.yaml").write_text(text, encoding="utf-8")
            monkeypatch.setenv("EXPERIMENTS_CONF", str(conf))
            assert experiments.compose()["data_root"] == yaml.safe_load(text)["data_root"]
            monkeypatch.delenv("EXPERIMENTS_CONF")


def test_a_wrong_command_is_found(reader):
    with pytest.raises(AssertionError, match="there is no such choice"):
        reader("python scripts/train.py model=mlpp")
    with pytest.raises(AssertionError, match="scripts/traim"):
        reader("python scripts/traim.py")


def test_there_are_many_commands():
    assert len([line for page in PAGES for line in commands(page) if line.startswith("python scripts/")]) > 20


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_file_that_is_named_is_there():
    named = {
        name
        for page in PAGES
        if page.stem != "coming-from"  # which names other projects' files
        for name in re.findall(r"`((?:src|conf|tests|scripts|benchmarks|docs)/[\w/.-]+)`", page.read_text("utf-8"))
    }
    assert len(named) > 10
    assert [name for name in sorted(named - {"conf/local/default.yaml"}) if not (ROOT / name).exists()] == []


def sections(page: str) -> list[str]:
    return re.split(r"^(?=##)", page, flags=re.MULTILINE)


def test_the_page_of_the_configuration_is_what_conf_says():
    page = runpy.run_path(str(ROOT / "docs" / "configuration.py"))
    written = sections(page["write"]())
    stale = [part for part in sections(page["PAGE"].read_text(encoding="utf-8")) if part not in written]
    assert stale == [], "run python docs/configuration.py"  # which a commit does for choices that were added, too
    groups = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    assert groups - {".", "local", "hydra/job_logging"} == set(page["GROUPS"])


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
