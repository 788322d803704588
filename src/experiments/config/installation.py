"""Where this project lies, how it was started, and what a user types to start or install more of it."""

import os
import re
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
DISTRIBUTION = "experiments"
STARTED_AS = "EXPERIMENTS_STARTED_AS"  # the command that this process, or the one that started it, began with
OWN_CONF = "EXPERIMENTS_CONF"  # the user's own conf folder; --config-dir sets it
COMPOSING = ("train", "describe", "find_lr")  # the commands that read conf folders


def checkout_of(package: Path) -> Path | None:
    """The checkout that a package is part of; None for one that was installed from a wheel."""
    root = package.parents[1]
    return root if package.parent.name == "src" and (root / "conf" / "train.yaml").is_file() else None


CHECKOUT = checkout_of(PACKAGE)
CONF = (CHECKOUT or PACKAGE) / "conf"
SCRIPTS = (CHECKOUT or PACKAGE) / "scripts"


def command(name: str) -> str:
    """Return what starts a script of this project in the way that the running process was started.

    ``python scripts/<name>.py``, with the folder as it was typed; ``experiments <name>``; either of them behind
    ``uv run``. From a notebook or a user's own program: the script of a checkout, or else the installed command. With
    the user's own conf folder, where there is one and the script reads it.
    """
    folder = os.environ.get(OWN_CONF) if name in COMPOSING else None
    return _started(name) + (f" --config-dir {typed_path(Path(folder))}" if folder else "")


def typed_path(path: Path) -> str:
    """A path as a user would type it: quoted where it must be, relative where it lies below the current folder."""
    below = path.is_relative_to(Path.cwd()) and path != Path.cwd()
    return shlex.quote(os.path.relpath(path) if below else str(path))


def typed_override(key: str, value: str | Path) -> str:
    """``key=value`` as a user would type it in a shell, past Hydra's grammar too: ``'resume=\'runs/a,b\''``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    path = Path(value)
    text = os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(value)
    try:
        plain = OverridesParser.create().parse_override(f"{key}={text}").value() == text
    except HydraException:
        plain = False
    return shlex.quote(f"{key}={text if plain else QuotedString(text, Quote.single).with_quotes()}")


def _started(name: str) -> str:
    started_as, typed = os.environ.get(STARTED_AS), Path(sys.argv[0])
    is_script = typed.resolve().parent == SCRIPTS
    if started_as is None and (is_script or CHECKOUT):
        folder = typed.parent if is_script else SCRIPTS
        return f"{'uv run' if _under_uv() else _python()} {shlex.quote(str(folder / f'{name}.py'))}"
    return f"{'uv run ' if _under_uv() else ''}{started_as or DISTRIBUTION} {name}"


def as_started(text: str) -> str:
    """Return a text in which every ``python scripts/<name>.py`` is what ``command`` gives."""
    return re.sub(r"python scripts/(\w+)\.py", lambda match: command(match[1]), text)


def install_command(extra: str) -> str:
    """Return what installs one of this project's extras beside it."""
    if CHECKOUT is not None:
        return f"uv sync --inexact --extra {extra}" if _under_uv() else f'pip install -e ".[{extra}]"'
    wanted = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    declared = metadata.requires(DISTRIBUTION) or ()
    requirements = [one.partition(";")[0].strip() for one in declared if wanted.search(one)]
    quoted = " ".join(f'"{one}"' if re.search(r"[<>=!~\[ ]", one) else one for one in requirements)
    return f"{'uv ' if _under_uv() else ''}pip install {quoted}"


def _python() -> str:
    """What starts the Python that runs: its path, where ``python`` is another one."""
    found = shutil.which("python")
    same = found is not None and Path(found).absolute().parent == Path(sys.executable).absolute().parent
    return "python" if same else shlex.quote(sys.executable)


def _under_uv() -> bool:
    return "UV_RUN_RECURSION_DEPTH" in os.environ


def in_notebook() -> bool:
    """Whether this process is a notebook's."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")
