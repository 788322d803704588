"""Write a project of one's own: this one, renamed and cut to the networks and data sets that were chosen."""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from experiments.config.installation import CHECKOUT, DISTRIBUTION
from experiments.errors import UserError
from project.choices import ALWAYS, Choice, choices, left_out, words_for
from project.cut import Names, cut_lines, cut_markdown, cut_python, tests_in

TEMPLATES = Path(__file__).parent / "templates"
#: What goes into a project, and what of it belongs to this one alone.
COPIED = (
    ".ci",
    ".devcontainer",
    ".dockerignore",
    "Dockerfile",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CONTRIBUTING.md",
    "LICENSE",
    "SECURITY.md",
    "conf",
    "docs",
    "pyproject.toml",
    "scripts",
    "src",
    "tests",
)
NOT_COPIED = (
    "conf/local",
    "docs/coming-from.md",
    "docs/results.md",
    "docs/speed.md",
    "docs/own-project.md",
    "docs/*.png",
    "scripts/new_project.py",
    "scripts/project",
    "tests/test_new_project.py",
    "tests/test_results.py",
    "tests/test_notebook.py",
    "tests/test_examples.py",
    "tests/screenshots.py",
)
#: Words that lead to what belongs to this one alone, wherever they stand in a page.
ONLY_HERE = (
    "benchmarks",
    "notebooks",
    "examples",
    "coming-from",
    "results.md",
    "speed.md",
    "report.png",
    "tensorboard.png",
    "demo.png",
    "new_project",
    "own-project",
)
TEXT = (".json", ".py", ".yaml", ".yml", ".md", ".toml", ".jinja", "")


def write_project(name: str, path: Path, nets: Sequence[str], data: Sequence[str], author: str) -> list[str]:
    """Write the project into a new folder, whole or not at all.

    Returns:
        The tests that were left out, each as ``<file>: <test>``.

    Raises:
        UserError: if a network or data set is not there.
    """
    assert CHECKOUT
    gone = [*left_out("model", nets, "nets"), *left_out("data", data, "data")]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise UserError(f"path={path} cannot be written: {error.strerror}") from error
    with beside as temporary:
        project = Path(temporary) / path.name
        _copy(CHECKOUT, project)
        removed_tests = _cut(project, gone)
        _rename(project, name)
        _write_own_pages(project, name, nets, data, author)
        _ruff(project)  # which takes out imports of what is gone
        _cut_unused_classes(project / "tests")
        _ruff(project)
        _write_configuration(project)
        project.rename(path)
    return removed_tests


def _copy(checkout: Path, project: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
    project.mkdir()
    for name in COPIED:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=unwanted)
        else:
            shutil.copy(source, project / name)
    for pattern in NOT_COPIED:
        for path in project.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _texts(project: Path) -> Iterator[Path]:
    """The files to rename in: all but the licence, which names those who wrote this."""
    files = (path for path in sorted(project.rglob("*")) if path.is_file() and path.name != "LICENSE")
    return (path for path in files if path.suffix in TEXT)


def _cut(project: Path, gone: Sequence[Choice]) -> list[str]:
    """Cut what was left out; returns the tests that went with it."""
    package = project / "src" / DISTRIBUTION
    words = words_for(gone, package)
    everything = [*choices("model"), *choices("data")]
    names = Names(
        words,
        words_for(everything, package) | {name for group in ALWAYS.values() for name in group} | {"test_resnet"},
    )
    for path in project.glob("conf/*/*.yaml"):
        if names.found_in(path.stem) or names.found_in(_code_of(path)):
            path.unlink()
    _cut_synonyms(package / "config" / "synonyms.yaml", project / "conf" / "model", names)
    _cut_classes(package, names)
    page_names = Names({*words, *ONLY_HERE})
    for path in [*project.glob("docs/*.md"), *project.glob("*.md")]:
        path.write_text(cut_markdown(path.read_text(encoding="utf-8"), page_names), encoding="utf-8")
    run = project / ".ci" / "run"
    text = re.sub(r"^if \[ -d \.\./.*?^fi\n", "", run.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    run.write_text(text, encoding="utf-8", newline="\n")
    pyproject = project / "pyproject.toml"
    pyproject.write_text(_without_ours(pyproject.read_text(encoding="utf-8")), encoding="utf-8")
    return _cut_tests(project / "tests", names)


def _cut_synonyms(path: Path, models: Path, names: Names) -> None:
    """Cut what other tools call something that was left out, or an option that no network has any more."""
    options = {
        word for model in models.glob("*.yaml") for word in re.findall(r"^ +(\w+):", _code_of(model), re.MULTILINE)
    }
    lines = cut_lines(path.read_text(encoding="utf-8"), names).splitlines(keepends=True)
    kept = [line for line in lines if {*re.findall(r": model\.net\.(\w+)", line)} <= options]
    path.write_text("".join(kept), encoding="utf-8")


def _code_of(path: Path) -> str:
    """A YAML file without its comments."""
    return re.sub(r"#.*", "", path.read_text(encoding="utf-8"))


def _without_ours(text: str) -> str:
    """The project's pyproject.toml without what only this one has."""
    for ours in (",notebook", ', "scripts/new_project.py", "scripts/project"', ', "scripts/project"', ":scripts"):
        text = text.replace(ours, "")
    text = re.sub(r"^description = .*$", 'description = ""', text, flags=re.MULTILINE)
    return re.sub(r"^(notebook|extend-exclude) = .*\n", "", text, flags=re.MULTILINE)


def _cut_classes(package: Path, names: Names) -> None:
    """Cut the classes that were left out, the modules that only they needed, and their names elsewhere."""
    folders = [package / "nets", package / "data"]
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if path.name == "__init__.py":
            continue
        needed = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        doomed = [
            node
            for node in ast.parse(source).body
            if isinstance(node, ast.ClassDef) and names.found_in(node.name) and node.name not in needed
        ]
        lines = source.splitlines(keepends=True)
        for node in reversed(doomed):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
        path.write_text("".join(lines), encoding="utf-8")
    for folder in folders:
        init = folder / "__init__.py"
        init.write_text(cut_python(init.read_text(encoding="utf-8"), names)[0], encoding="utf-8")
    while unused := _unused_modules(package, folders):
        for path in unused:
            path.unlink()


def _unused_modules(package: Path, folders: Sequence[Path]) -> list[Path]:
    """The modules of some folders that nothing imports."""
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = []
    for path in (path for folder in folders for path in folder.rglob("*.py") if path.name != "__init__.py"):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        if not any(re.search(rf"\b{re.escape(module)}\b", text) for other, text in sources.items() if other != path):
            found.append(path)
    return found


def _cut_tests(tests: Path, names: Names) -> list[str]:
    lost: dict[Path, set[str]] = {}
    before = {path: tests_in(path.read_text(encoding="utf-8")) for path in tests.rglob("*.py")}
    helpers = {path for path, found in before.items() if not found}

    def cut(path: Path) -> tuple[str, set[str]]:
        """A module without what was left out, and without what its helpers have lost."""
        gone = {name for other, names_lost in lost.items() if other.parent in path.parents for name in names_lost}
        return cut_python(path.read_text(encoding="utf-8"), names, gone)

    for path in sorted(helpers, key=lambda path: len(path.parts)):  # what others use first
        source, lost[path] = cut(path)
        path.write_text(source, encoding="utf-8")
    removed = []
    for path in sorted(set(before) - helpers):
        source, _ = cut(path)
        remaining = set(tests_in(source))
        removed += [f"{path.relative_to(tests.parent)}: {test}" for test in before[path] if test not in remaining]
        if remaining:
            path.write_text(source, encoding="utf-8")
        else:
            path.unlink()
    return removed


def _cut_unused_classes(tests: Path) -> None:
    """Cut the classes of modules without tests that no test asks for any more, such as the tutorial's networks."""
    for path in (path for path in tests.rglob("*.py") if not tests_in(path.read_text(encoding="utf-8"))):
        source = path.read_text(encoding="utf-8")
        others = "".join(other.read_text(encoding="utf-8") for other in tests.rglob("*.py") if other != path)
        found = {node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
        used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        unused = {name for name in found if not re.search(rf"\b{name}\b", others) and name not in used}
        if unused:
            path.write_text(cut_python(source, Names(unused))[0], encoding="utf-8")


def _write_own_pages(project: Path, name: str, nets: Sequence[str], data: Sequence[str], author: str) -> None:
    """The pages of a project of one's own: README, change log, licence; and an experiment to begin with."""
    net = next((one for one in nets if one != "custom"), "mlp")  # which names no class
    data_set = next((one for one in data if one != "custom"), "digits")
    where = {"image_folder": " data.root=photos", "image_table": " data.table=photos/labels.csv"}.get(data_set, "")
    words = {"name": name, "net": net, "data": data_set, "where": where}
    for template in TEMPLATES.iterdir():
        text = template.read_text(encoding="utf-8")
        for key, word in words.items():
            text = text.replace(f"<<{key}>>", word)
        target = project / ("conf/experiment" if template.suffix == ".yaml" else "")
        target.mkdir(exist_ok=True)
        (target / (f"{name}.yaml" if template.suffix == ".yaml" else template.name)).write_text(
            text, encoding="utf-8"
        )
    licence = project / "LICENSE"
    before, ours, after = licence.read_text(encoding="utf-8").partition("Copyright (c)")  # which has to stay
    text = f"{before}Copyright (c) {date.today().year} {author}\n{ours}{after}"
    licence.write_text(text, encoding="utf-8")


def _rename(project: Path, name: str) -> None:
    """Give the package, its command, its plugins and its environment variables the project's name."""
    (project / "src" / DISTRIBUTION).rename(project / "src" / name)
    for path in (project / "src" / "hydra_plugins").glob(f"{DISTRIBUTION}_*.py"):
        path.rename(path.with_name(path.name.replace(DISTRIBUTION, name, 1)))
    for path in _texts(project):
        text = path.read_text(encoding="utf-8")
        text = re.sub(rf"(?<![A-Za-z0-9_]){DISTRIBUTION}(?![A-Za-z0-9])", name, text)
        text = text.replace(f"{DISTRIBUTION.upper()}_", f"{name.upper()}_")
        path.write_text(text, encoding="utf-8")


def _ruff(project: Path) -> None:
    """Sort and remove imports and lay out the code, as the project's checks want it."""
    for command in (["check", "--quiet", "--fix", "."], ["format", "--quiet", "."]):
        _run([sys.executable, "-m", "ruff", *command], project)


def _write_configuration(project: Path) -> None:
    """Write the page of all options anew, from what is left in ``conf``."""
    code = (
        "import sys, runpy; sys.path.insert(0, 'src'); runpy.run_path('docs/configuration.py', run_name='__main__')"
    )
    _run([sys.executable, "-c", code], project)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command[1:4])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def commit(path: Path, name: str) -> str | None:
    """Make the first commit; returns why there is none."""
    steps = (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", f"Begin {name}"])
    try:
        for step in steps:
            done = subprocess.run(["git", *step], cwd=path, capture_output=True, text=True)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()
                return said[-1] if said else f"git {step[0]} ended with {done.returncode}"
    except FileNotFoundError:
        return "git is not installed"
    return None
