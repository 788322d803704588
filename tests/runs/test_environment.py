"""What a run records of its code and machine: enough to have both again, and no secret."""

import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from experiments.runs import environment
from experiments.runs.environment import code_change_warning, describe_environment, git_state, installed_packages
from experiments.runs.run_record import record_resume, record_start

CODE = "def forward(self, x):\n    cls_token = x.mean(1)\n    token: int = tokens[self.key_size]\n"


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with a commit, a change, and new files of all kinds."""
    folder = tmp_path / "repository"
    (folder / "src" / "own").mkdir(parents=True)
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "src" / "own" / "net.py").write_text("a = 1\n")
    (folder / "picture.bin").write_bytes(bytes(range(256)))
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    (folder / "src" / "own" / "net.py").write_text(CODE)
    (folder / "picture.bin").write_bytes(bytes(range(255, -1, -1)))
    (folder / "src" / "own" / "new net.py").write_text("b = 2\n")
    (folder / "conf" / "model" / "own.yaml").write_text("net: {cls_token: learned}\n")
    (folder / ".env").write_text("WANDB=verysecretvalue1\n")
    (folder / "src" / "notes.ipynb").write_text("{}")
    (folder / "scratch.py").write_text("c = 3\n")
    return folder


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_and_the_diff_give_the_code_that_ran(repository, tmp_path):
    (repository / "src" / "own" / "größe.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    state, diff = git_state(repository / "src")
    git(tmp_path, "clone", str(repository), "again")
    (tmp_path / "code.diff").write_bytes(diff.encode())
    git(tmp_path / "again", "apply", str(tmp_path / "code.diff"))
    for name in ("src/own/net.py", "src/own/new net.py", "src/own/größe.py", "conf/model/own.yaml", "picture.bin"):
        assert (tmp_path / "again" / name).read_bytes() == (repository / name).read_bytes(), name
    for name in (".env", "src/notes.ipynb", "scratch.py"):  # named, and no more
        assert f"?? {name}" in state["changed"]
        assert not (tmp_path / "again" / name).exists()
    assert "verysecretvalue1" not in diff
    assert state["left_out_of_diff"] == []


def test_what_makes_the_diff_too_long_is_left_out_and_named(repository, monkeypatch):
    monkeypatch.setattr(environment, "MAX_DIFF", 5000)
    (repository / "conf" / "long.yaml").write_text("a: 1\n" * 2000)
    state, diff = git_state(repository)
    assert state["left_out_of_diff"] == ["conf/long.yaml"]
    assert "cls_token" in diff


def test_secrets_in_code_are_taken_out_and_nothing_else(repository):
    secrets = 'api_key = "abcd1234"\nheaders = {"token": "abcd1234"}\nhub = "hf_aaaaaaaaaaaaaaaaaaaaaaaa"\n'
    (repository / "src" / "own" / "net.py").write_text(CODE + secrets)
    (repository / "conf" / "model" / "own.yaml").write_text("password: abcd1234\ncls_token: learned\n")
    _, diff = git_state(repository)
    assert "abcd1234" not in diff
    assert "hf_a" not in diff
    for line in ("cls_token = x.mean(1)", "tokens[self.key_size]", "cls_token: learned", 'api_key = "<removed>"'):
        assert line in diff


def test_every_package_is_named_and_a_checkout_by_its_folder():
    found = installed_packages()
    for name in ("torch", "lightning", "hydra-core", "pytest"):
        assert found[name] == metadata.version(name)
    assert len(found) > 30
    for direct in filter(
        None, (one.read_text("direct_url.json") for one in metadata.distributions(name="experiments"))
    ):
        assert found["experiments".replace("_", "-")].endswith(f"({json.loads(direct)['url']})")


def test_a_run_that_goes_on_with_other_code_says_so_and_keeps_both(repository, tmp_path):
    run = tmp_path / "run"
    record_start(run, {"seed": 0}, [], repository)
    assert code_change_warning(run, repository) is None
    (repository / "src" / "own" / "net.py").write_text("a = 4\n")
    assert "in what is not committed" in code_change_warning(run, repository)
    record_resume(run, {"seed": 0}, repository)
    assert code_change_warning(run, repository) is None
    assert "a = 4" in (run / "git.1.diff").read_text()
    assert "cls_token" in (run / "git.diff").read_text()
    known = json.loads((run / "environment.json").read_text())
    assert known["resumed"][0]["git"]["commit"] == known["git"]["commit"]


def test_the_machine_is_described(repository):
    known, _ = describe_environment({}, repository)
    assert known["processor"]
    assert known["threads"]["torch"] >= 1
    assert known["gpus"] == [] or known["gpu_driver"]


def test_a_run_whose_changes_were_committed_or_undone_keeps_no_older_diff(repository, tmp_path):
    run = tmp_path / "run"
    record_start(run, {"seed": 0}, [], repository)
    (run / "summary.json").write_text('{"status": "failed"}')
    git(repository, "stash", "--include-untracked")
    record_resume(run, {"seed": 0}, repository)  # the same commit, without the changes
    assert code_change_warning(run, repository) is None
    record_start(run, {"seed": 0}, [], repository)  # what failed may start over in its folder
    assert not (run / "git.diff").exists()
    assert code_change_warning(run, repository) is None


def test_a_file_of_ones_own_that_changed_or_is_gone_is_named(repository, tmp_path, monkeypatch):
    (tmp_path / "net_of_mine.py").write_text("class Net: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    record_start(run, {"model": {"net": {"_target_": "net_of_mine.Net"}}, "trust": []}, [], repository)
    assert code_change_warning(run, repository) is None
    (tmp_path / "net_of_mine.py").write_text("class Net: pass\n")
    assert code_change_warning(run, repository).endswith(f"may too: {tmp_path / 'net_of_mine.py'}")
    (tmp_path / "net_of_mine.py").unlink()
    assert code_change_warning(run, repository).endswith(f"{tmp_path / 'net_of_mine.py'} (missing)")
