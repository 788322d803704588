"""Who may import whom: read from the source, so that the house keeps its shape."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "experiments"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(source: str) -> set[str]:
    """Every module that a source imports, wherever in the file it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def tops(source: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(source)}


def own(source: str) -> set[str]:
    return {name for name in imports(source) if name.startswith("experiments.")}


def strangers_in_a_network(source: str) -> set[str]:
    """What a network imports beyond torch, the standard library's plain parts, its neighbours and its ranges."""
    foreign = tops(source) - {"torch", "collections", "experiments", "inspect", "itertools", "math"}
    allowed = ("experiments.nets.", "experiments.errors")
    return foreign | {name for name in own(source) if not name.startswith(allowed)}


def test_there_are_files_to_look_at():
    assert len(FILES) > 15
    assert len(list((PACKAGE / "nets").glob("*.py"))) > 4


@pytest.mark.parametrize("path", sorted((PACKAGE / "nets").glob("*.py")), ids=lambda path: path.name)
def test_networks_import_torch_alone(path):
    lazily = {"timm", "huggingface_hub", "timm.models", "huggingface_hub.constants"}
    own = {"threading", "typing", "urllib"} if path.name == "timm_networks.py" else set()
    assert strangers_in_a_network(path.read_text()) - own - (lazily if own else set()) == set()
    top = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert not any("timm" in line or "hub" in line for line in top if "experiments" not in line)


@pytest.mark.parametrize(
    "line", ["import lightning", "from hydra.utils import instantiate", "import experiments.data"]
)
def test_a_network_that_imports_more_is_found(line):
    source = (PACKAGE / "nets" / "mlp.py").read_text()
    assert strangers_in_a_network(f"{line}\n{source}")


#: From the lowest package to the highest. Packages in one row do not import one another, except as ``ALSO`` says.
ORDER = (
    ("errors",),
    ("runs",),
    ("config",),
    ("nets", "data", "learning"),
    ("callbacks",),
    ("monitoring",),
    ("training",),
    ("sweeps", "inference"),
)
FLOOR = {package: number for number, row in enumerate(ORDER) for package in row}
ALSO = {("learning", "experiments.data.batches")}  # a list of batches, which is no data set


def package_of(module: str) -> str:
    return module.split(".")[1]


def climbing_imports(source: str, package: str) -> list[str]:
    """The imports of a module in a package that lead to another package beside it, or above."""
    found = []
    for module in sorted(name for name in own(source) if package_of(name) in FLOOR):
        other = package_of(module)
        allowed = any(package == who and module.startswith(what) for who, what in ALSO)
        if other != package and FLOOR[other] >= FLOOR[package] and not allowed:
            found.append(module)
    return found


def test_every_package_has_its_place_in_the_order():
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert packages | {"errors"} == set(FLOOR), "name new packages in ORDER, above all that they import"
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "errors.py", "py.typed"}, "modules belong in a package"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down_only(path):
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if package in ("__init__", "__main__"):  # they hand on what others have
        return
    found = climbing_imports(path.read_text(), package)
    assert not found, (
        f"{path.relative_to(PACKAGE)} imports {found[0]}, beside or above {package}: move what both need to "
        "a lower package, or pass it as an argument"
    )


def test_an_import_that_climbs_is_found():
    assert climbing_imports("from experiments.training.build import build", "callbacks")
    assert climbing_imports("def f():\n    from experiments.nets import MLP", "learning")
    assert climbing_imports("from experiments.data.batches import BatchList", "learning") == []
    assert climbing_imports("from experiments.data.module import normalize", "learning")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_import_is_relative_or_dynamic(path):
    tree = ast.parse(path.read_text())
    relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, f"{path.name}:{relative[0].lineno}: import by the full name, experiments.<package>.<module>"
    dynamic = {"import_module", "__import__"} & {
        node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in ast.walk(tree)
    }
    # the package's own lazy names, and a class that a user's config names
    allowed = path in (PACKAGE / "__init__.py", PACKAGE / "config" / "checks" / "signatures.py")
    assert allowed or not dynamic, f"{path.name}: a dynamic import hides what depends on what"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_is_too_long_to_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 250, "split it by subject"


def test_no_package_is_too_wide_to_know():
    wide = {
        path.parent.relative_to(PACKAGE): count
        for path in PACKAGE.rglob("__init__.py")
        if (count := len(list(path.parent.glob("*.py")))) > 12
    }
    assert not wide, "at most a dozen files in a package"


def test_learning_and_training_know_no_hydra():
    everything = {path: path.read_text() for path in FILES}
    knowing = {path for path, source in everything.items() if {"hydra", "omegaconf"} & tops(source)}
    packages = {path.relative_to(PACKAGE).parts[0] for path in knowing}
    assert not {"learning", "callbacks", "data", "nets"} & packages
    assert {path.name for path in knowing if path.parent.name == "training"} == {"build.py"}  # which instantiates


def test_only_build_instantiates_and_only_train_is_a_hydra_main():
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    assert scripts
    everything = {path: path.read_text() for path in [*FILES, *scripts]}
    calls = "experiments.config.hydra_internals.instantiate"
    assert [path.name for path, source in everything.items() if calls in imports(source)] == ["build.py"]
    assert [path.name for path, source in everything.items() if "hydra.utils.instantiate" in source] == [
        "hydra_internals.py"
    ]
    assert [path.name for path, source in everything.items() if "@hydra.main" in source] == ["train.py"]


def test_each_librarys_private_parts_are_reached_in_one_module():
    homes = {
        "hydra._internal": "hydra_internals.py",
        "lightning": "lightning_internals.py",
        "optuna": "optuna_internals.py",
    }
    for path in FILES:
        for module in imports(path.read_text()):
            library = next((name for name in homes if module.startswith(name)), None)
            if library and any(part.startswith("_") for part in module.split(".")):
                assert path.name == homes[library], f"{path.name} imports {module}"


def test_nothing_imports_scripts_and_no_script_shadows_a_standard_module():
    import sys

    assert not [path for path in FILES if "scripts" in tops(path.read_text())]
    assert not [p.stem for p in (ROOT / "scripts").glob("*.py") if p.stem in sys.stdlib_module_names]


LIGHT = [
    PACKAGE / "__init__.py",
    PACKAGE / "__main__.py",
    PACKAGE / "errors.py",
    *(PACKAGE / "config").rglob("*.py"),
    *(PACKAGE / "sweeps").rglob("*.py"),
    *(PACKAGE / "runs" / f"{name}.py" for name in ("files", "run_directory", "run_record", "redaction")),
]
PLUGINS = PACKAGE.parent / "hydra_plugins"


@pytest.mark.parametrize(
    "path", [*LIGHT, *PLUGINS.glob("*.py"), *sorted((ROOT / "scripts").glob("*.py"))], ids=lambda path: path.name
)
def test_light_modules_do_not_wait_for_torch(path):
    top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    heads = tops("\n".join(ast.unparse(node) for node in top_level))
    assert not {"torch", "lightning", "torchvision", "torchmetrics", "sklearn", "numpy", "gradio"} & heads


def test_hydras_plugins_stay_a_namespace_and_their_stub_imports_nothing_heavy_when_it_is_scanned():
    stubs = list(PLUGINS.glob("*.py"))
    assert [path.name for path in stubs] == ["experiments_sweepers.py"]  # an __init__.py would hide all other plugins
    top_level = [
        node for node in ast.parse(stubs[0].read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    text = "\n".join(ast.unparse(node) for node in top_level)
    assert tops(text) == {"typing", "hydra", "omegaconf", "experiments"}
    assert {package_of(name) for name in own(text)} == {"config"}


def test_only_the_sweeps_that_need_it_know_optuna():
    light = {PACKAGE / "sweeps" / f"{name}.py" for name in ("__init__", "multirun", "requirements", "workers")}
    knowing = {path for path in FILES if "optuna" in tops(path.read_text())}
    assert not knowing & light
    assert {path.relative_to(PACKAGE).parts[0] for path in knowing} == {"sweeps"}


def test_only_the_demo_waits_for_gradio():
    knowing = [path.relative_to(PACKAGE).as_posix() for path in FILES if "gradio" in tops(path.read_text())]
    assert knowing == ["inference/demo.py"]
    assert [path for path in FILES if "experiments.inference.demo" in imports(path.read_text())] == []
