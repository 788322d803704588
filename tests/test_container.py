"""The Dockerfile and the development container, as far as they can be checked without Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of this name, its continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def copied() -> list[str]:
    return [path for line in instructions("COPY") for path in line.split()[:-1]]


def test_what_it_copies_is_there_and_let_in():
    assert {"conf", "scripts", "src", "pyproject.toml"} <= set(copied())
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(let_in) == sorted(copied())
    assert all((ROOT / path).exists() for path in copied())


def test_it_runs_as_no_root_and_its_folders_are_mounted():
    assert instructions("USER") == ["trainer"]
    assert json.loads(instructions("VOLUME")[0]) == ["/app/data", "/app/runs"]


@pytest.mark.slow
def test_what_it_copies_is_enough_to_train(tmp_path):
    for path in copied():
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, tmp_path / path)
    command = [sys.executable, *json.loads(instructions("ENTRYPOINT")[0])[1:], "trainer.limit_train_batches=1"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [*command, "trainer.max_epochs=1"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/*/summary.json"))) == 1


def test_the_development_container_installs_what_tests_need():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert shlex.split(container["postCreateCommand"]) == ["pip", "install", "--editable", ".[dev]"]
    assert [container["remoteUser"]] == instructions("USER")
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
