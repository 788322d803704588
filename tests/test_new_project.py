"""A project of one's own, written by the script: whole, cut, and two of them in one environment."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.append(str(ROOT / "scripts"))
from project.cut import Names, cut_markdown, cut_python

NAMES = Names({"cnn", "CNN", "mnist"}, {"fashion_mnist"})
# what of the short round a project runs here; EXPERIMENTS_PROJECTS=all runs the whole of it
PART = ["tests/nets", "tests/test_architecture.py", "tests/config/test_conf_files.py", "tests/training/test_build.py",
        "tests/config/test_conf.py::test_every_choice_composes_and_holds_no_mistake"]  # fmt: skip
STAYS = re.compile(  # the format, what names something else, and English
    r"MNIST\w*|FashionMNIST|fashion_mnist|small_mnist|mnist_root|mnist\.py|data\.mnist|test_resnet|search_experiments|"
    "Experiments with"
)
GONE = r"(cnn|resnet|resblock|attention_?block|visiontransformer|mnist|cifar10|experiments)"


def test_a_name_is_found_in_others_but_not_in_a_longer_one_that_stays():
    assert NAMES.found_in('experiment="mnist_cnn"') == {"mnist", "cnn"}
    assert NAMES.found_in("data=fashion_mnist SimpleCNN cnns") == set()


def test_imports_elements_and_functions_go_and_what_needs_them():
    source = '''"""About CNNs, and cnn."""

from nets import CNN, MLP
from other import helper

ALL = ["mlp", "cnn", ("cnn", 1)]
SIZES = {"mlp": 1, "cnn": 2}  # of all
FIRST = CNN  # fmt: skip


@fixture
def trained(folder):
    return MLP, "cnn"


@parametrize("net", ["mlp", "cnn"])
def test_mlp(net):
    assert net in ALL


def test_first():
    assert FIRST


def test_trained(trained):
    assert trained


@pytest.mark.parametrize("net", ["cnn"])
def test_nothing_left(net):
    pass


@pytest.mark.parametrize(("net", "size"), [("mlp", 1), ("cnn", 2)])
def test_sizes(net, size):
    assert SIZES[net] == size
'''
    cut, lost = cut_python(source, NAMES)
    assert lost == {"CNN", "FIRST", "trained", "test_mlp", "test_first", "test_trained", "test_nothing_left"}
    assert "from nets import MLP\n" in cut
    assert 'ALL = ["mlp", ]' in cut
    assert 'SIZES = {"mlp": 1, }  # of all' in cut
    assert '[("mlp", 1), ])\ndef test_sizes' in cut
    assert "fmt" not in cut
    space = {"pytest": pytest, "nets": None}
    exec(compile(re.sub(r"^from .*$", "", cut, flags=re.MULTILINE), "cut", "exec"), space)
    space["test_sizes"]("mlp", 1)


def test_pages_lose_sentences_items_rows_commands_and_sections():
    page = """# Page

The MLP is small ([Nets](cnn.md)). The CNN (`model=cnn`) is better. Both [learn](mnist.md).

- one
- mnist, two

## Convolutions

The cnn.

## Use

It is simple. A convolution goes like this:

```python
CNN()
```

Afterwards:

```bash
train model=mlp
train model=cnn
```

```python
net = CNN()
```
"""
    kept = "# Page\n\nThe MLP is small. Both learn.\n\n- one\n\n## Use\n\nIt is simple.\n\nAfterwards:\n\n```bash\ntrain model=mlp\n```\n"
    assert cut_markdown(page, NAMES) == kept


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("name=leaf-diseases", "has small letters, digits and _: try name=leaf_diseases"),
        ("name=Leaf", "try name=leaf"),
        ("name=class", "is no name for a package"),
        ("name=2d", "is no name for a package"),
        ("name=json", "it would be hidden"),
        ("name=torch", "it would be hidden"),
        ("name=wandb", "it would be hidden"),
        ("name=tests", "is taken: the project has"),
        ("name=leaves nets=[cnm]", "nets: there is no cnm. Did you mean cnn? There are attention, cnn"),
        ("name=leaves data=[minst]", "data: there is no minst. Did you mean mnist or "),
        ("path=there name=leaves", "path=there is there already"),
        ("path=there/../there name=leaves", "is there already"),
        ("path=dangling name=leaves", "path=dangling is there already"),
        (f"path={ROOT}/docs/leaves name=leaves", "lies in this project: name a folder beside it, such as ../leaves"),
        ("path=a_file/leaves name=leaves", "cannot be written: "),
        ("name=train", "is taken: the project has"),
        ("name=module", "is taken: the project has"),
        ("name=dist", "is taken: the project has"),
        ("name=mnist_cnn", "is taken: the project has"),
        ("name=input", "it would be hidden"),
        ("name=leaves net=[mlp]", "'net' is not an option. Did you mean nets"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(script_here, tmp_path, monkeypatch, typed, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "a_file").touch()
    where = [] if "path=" in typed else ["path=new/leaves"]
    code, _, errors = script_here("new_project", "author=Ada", *typed.split(), *where)
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a_file"]


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Two projects: one with everything, one with a network and a data set; and what was said of the second."""
    folder = tmp_path_factory.mktemp("projects")
    commands = {"leaf_diseases": [], "tiny": ["nets=[rnn]", "data=[fashion_mnist]"]}
    said = {}
    for name, chosen in commands.items():
        command = [sys.executable, str(ROOT / "scripts" / "new_project.py"), f"name={name}", f"path={folder / name}"]
        done = subprocess.run([*command, *chosen, "author=Ada Lovelace"], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    if (known := ROOT / ".mypy_cache").is_dir():  # of torch and others, which it would read for half a minute
        shutil.copytree(known, folder / "mypy")
    return folder, said


def run_in(project: Path, *arguments: str, also: tuple[Path, ...] = ()) -> subprocess.CompletedProcess:
    """A Python command in a project, as if it alone, or ``also`` others, were installed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("EXPERIMENTS_", "PYTEST"))}
    clean["MYPY_CACHE_DIR"] = str(project.parent / "mypy")
    clean["PYTHONPATH"] = os.pathsep.join(str(one / "src") for one in (project, *also))
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=clean, capture_output=True, text=True, timeout=1800
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["leaf_diseases", "tiny"])
def test_its_own_checks_are_green_at_once(projects, name):
    project = projects[0] / name
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        done = run_in(project, "-m", *command)
        assert done.returncode == 0, done.stdout
    tests = ["tests"] if os.environ.get("EXPERIMENTS_PROJECTS") == "all" else PART
    done = run_in(
        project,
        "-m",
        "pytest",
        "-m",
        "not slow",
        "-n",
        "2",
        *[one for one in tests if (project / one.partition("::")[0]).exists()],
    )
    assert done.returncode == 0, done.stdout[-6000:]
    state = subprocess.run(["git", "status", "--short"], cwd=project, capture_output=True, text=True)
    assert state.stdout == ""


@pytest.mark.slow
def test_no_trace_is_left_of_what_was_left_out(projects):
    folder, said = projects
    traces = []
    listed = subprocess.run(["git", "ls-files"], cwd=folder / "tiny", capture_output=True, text=True).stdout
    for path in (folder / "tiny" / name for name in listed.splitlines()):
        if path.name != "LICENSE":
            text = path.read_text(encoding="utf-8")
            traces += [
                f"{path.name}: {line.strip()}"
                for line in (path.name, *text.splitlines())
                if re.search(rf"(?<![a-z0-9]){GONE}(?![a-z0-9])", STAYS.sub("", line).lower())
            ]
    assert traces == []
    left_out = re.findall(r"removed, since its network or data set was left out: (\S+): (\w+)", said["tiny"])
    assert ("tests/data/test_cifar.py", "test_a_pickle_runs_nothing") in left_out
    assert not re.search("removed", said["leaf_diseases"])
    names = {path.name for path in (folder / "tiny" / "conf").rglob("*.yaml")}
    assert {"rnn.yaml", "mlp.yaml", "fashion_mnist.yaml", "digits.yaml", "tiny.yaml"} <= names
    licence = (folder / "tiny" / "LICENSE").read_text()
    assert "Ada Lovelace" in licence
    assert "the experiments authors" in licence  # its licence asks for that


BOTH = """
import leaf_diseases, tiny
for package in (leaf_diseases, tiny):
    config = package.compose("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu",
                             "callbacks=minimal", "logger=none")
    assert package.train(config)["steps"] == 1
    net = package.load(config["run_dir"] + "/checkpoints/best.ckpt")
    assert type(net).__module__ == f"{package.__name__}.nets.mlp", type(net)
"""


@pytest.mark.slow
def test_two_in_one_environment_never_meet(projects, tmp_path):
    first, second = (projects[0] / name for name in ("leaf_diseases", "tiny"))
    done = run_in(first, "-c", BOTH, also=(second,))
    assert done.returncode == 0, done.stderr
    for project, other in ((first, second), (second, first)):
        short = [
            "trainer.limit_train_batches=1",
            "trainer.max_epochs=1",
            "callbacks=minimal",
            "trainer.accelerator=cpu",
        ]
        where = f"hydra.sweep.dir={tmp_path / project.name}"
        done = run_in(project, "scripts/train.py", "-m", "seed=0,1", where, *short, also=(other,))
        assert done.returncode == 0, done.stderr
        config = (tmp_path / project.name / "1" / "config.yaml").read_text()
        assert f"{project.name}.nets.MLP" in config
        assert other.name not in config
