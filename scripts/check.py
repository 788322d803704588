"""Run every check of this project."""

import subprocess
import sys

CHECKS = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
    ["pytest"],
)

for check in CHECKS:
    print("$", *check, flush=True)
    code = subprocess.run([sys.executable, "-m", *check]).returncode
    if code:
        sys.exit(code)
