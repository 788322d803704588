"""The command ``experiments``, or ``python -m experiments``: the scripts, wherever the package is installed."""

import ast
import os
import runpy
import sys
from pathlib import Path

from experiments.config.installation import DISTRIBUTION, SCRIPTS, STARTED_AS
from experiments.errors import UserError, did_you_mean, stop


def main() -> None:
    """Run the script that the first argument names, with the others."""
    scripts = {path.stem: path for path in sorted(SCRIPTS.glob("*.py"))}
    started_as = f"python -m {DISTRIBUTION}" if Path(sys.argv[0]).name == "__main__.py" else DISTRIBUTION
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(f"Usage: {started_as} <command> [group=choice] [key=value]\n\nCommands (each has its own --help):")
        for script, path in scripts.items():
            described = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            print(f"  {script:10} {described.partition(chr(10))[0]}")
        return
    if name not in scripts:
        stop(UserError(f"{name!r} is no command.{did_you_mean(name, list(scripts))} There are {', '.join(scripts)}"))
    os.environ[STARTED_AS] = started_as
    sys.argv = [str(scripts[name]), *arguments]  # processes that a run starts are started as this
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
