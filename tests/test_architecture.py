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
    """What a network imports beyond torch, the standard library's plain parts and its neighbours."""
    foreign = tops(source) - {"torch", "collections", "experiments", "inspect", "itertools", "math"}
    return foreign | {name for name in own(source) if not name.startswith("experiments.nets.")}


def test_there_are_files_to_look_at():
    assert len(FILES) > 15
    assert len(list((PACKAGE / "nets").glob("*.py"))) > 4


@pytest.mark.parametrize("path", sorted((PACKAGE / "nets").glob("*.py")), ids=lambda path: path.name)
def test_networks_import_torch_alone(path):
    assert strangers_in_a_network(path.read_text()) == set()


@pytest.mark.parametrize(
    "line", ["import lightning", "from hydra.utils import instantiate", "import experiments.data"]
)
def test_a_network_that_imports_more_is_found(line):
    source = (PACKAGE / "nets" / "mlp.py").read_text()
    assert strangers_in_a_network(f"{line}\n{source}")


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").glob("*.py")), ids=lambda path: path.name)
def test_data_knows_neither_networks_nor_classifier(path):
    allowed = ("experiments.data", "experiments.errors", "experiments.memory")
    assert {name for name in own(path.read_text()) if not name.startswith(allowed)} == set()
    assert "hydra" not in tops(path.read_text())


def test_the_classifier_knows_no_hydra_no_network_and_no_data_set():
    source = (PACKAGE / "classifier.py").read_text()
    known = {name for name in own(source) if not name.startswith(("experiments.errors", "experiments.metrics"))}
    assert known == set()
    assert not {"hydra", "omegaconf"} & tops(source)


def test_run_knows_no_hydra():
    assert not {"hydra", "omegaconf"} & tops((PACKAGE / "run.py").read_text())


def test_only_build_instantiates_and_only_train_is_a_hydra_main():
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    assert scripts
    everything = {path: path.read_text() for path in [*FILES, *scripts]}
    assert [path.name for path, source in everything.items() if "hydra.utils.instantiate" in imports(source)] == [
        "build.py"
    ]
    assert [path.name for path, source in everything.items() if "@hydra.main" in source] == ["train.py"]


def test_nothing_imports_scripts_and_no_script_shadows_a_standard_module():
    import sys

    assert not [path for path in FILES if "scripts" in tops(path.read_text())]
    assert not [p.stem for p in (ROOT / "scripts").glob("*.py") if p.stem in sys.stdlib_module_names]


LIGHT = [
    PACKAGE / name
    for name in (
        "__init__.py", "commands.py", "composition.py", "errors.py", "imports.py", "options.py",
        "secrecy.py", "summarize.py",
        *(f"{part}/{path.name}" for part in ("check", "sweeps") for path in sorted((PACKAGE / part).glob("*.py"))),
    )
]  # fmt: skip
PLUGINS = PACKAGE.parent / "hydra_plugins"


@pytest.mark.parametrize(
    "path", [*LIGHT, *PLUGINS.glob("*.py"), *sorted((ROOT / "scripts").glob("*.py"))], ids=lambda path: path.name
)
def test_light_modules_do_not_wait_for_torch(path):
    top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    heads = tops("\n".join(ast.unparse(node) for node in top_level))
    assert not {"torch", "lightning", "torchvision", "torchmetrics", "sklearn", "numpy"} & heads


def test_hydras_plugins_stay_a_namespace_and_their_stub_imports_nothing_but_hydra_when_it_is_scanned():
    stubs = list(PLUGINS.glob("*.py"))
    assert [path.name for path in stubs] == ["experiments_sweepers.py"]  # an __init__.py would hide all other plugins
    top_level = [
        node for node in ast.parse(stubs[0].read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    heads = imports("\n".join(ast.unparse(node) for node in top_level))
    assert own("\n".join(ast.unparse(node) for node in top_level)) == {
        "experiments.composition",
        "experiments.composition.register_resolvers",
        "experiments.config",
        "experiments.config.conf_files",
        "experiments.config.installation",
        "experiments.config.installation.CONF",
    }
    assert {name.partition(".")[0] for name in heads} == {"typing", "hydra", "omegaconf", "experiments"}


def test_only_the_sweeps_that_need_it_know_optuna():
    light = {PACKAGE / "sweeps" / f"{name}.py" for name in ("__init__", "grid", "launching", "needs")}
    knowing = {path for path in FILES if "optuna" in tops(path.read_text())}
    assert (
        knowing
        == {
            *(PACKAGE / "sweeps").glob("*.py"),
            PACKAGE / "summarize.py",
        }
        - light
    )
