"""Run every check of this project; fast=true leaves out the slow tests."""

import subprocess
import sys

CHECKS = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
)
TESTS = {"": ["pytest"], "fast=true": ["pytest", "-m", "not slow"]}

chosen = " ".join(sys.argv[1:])
if chosen not in TESTS:
    sys.exit(f"error: {chosen}: there is fast=true alone")
for check in (*CHECKS, TESTS[chosen]):
    print("$", *check, flush=True)
    code = subprocess.run([sys.executable, "-m", *check]).returncode
    if code:
        sys.exit(code)
