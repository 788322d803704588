"""Secrets: never in a config, since configs are written down; taken out of what a run records besides."""

import os
import re
from collections.abc import Mapping

REMOVED = "<removed>"
_WORDS = "api_?key|access_?key|private_?key|token|secret|passwd|password|credentials?"
_NAME = re.compile(rf"(?:^|[_\-.])(?:{_WORDS})$", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")
_ASSIGNED = re.compile(rf"\b([\w.\-]*(?:{_WORDS})[\"']?\s*[=:]\s*[\"']?)[^\s\"',}}]{{4,}}", re.IGNORECASE)

_QUOTED = re.compile(rf"\b([\w.\-]*(?:{_WORDS})[\"']?\s*[=:]\s*([\"']))[^\"'\n]{{4,}}\2", re.IGNORECASE)
# with a digit in it: no word such as cls_token: learned
_UNQUOTED = re.compile(rf"\b([\w.\-]*(?:{_WORDS})\s*:\s*)(?=\S*\d)[^\s\"',}}$]{{8,}}", re.IGNORECASE)

# how well-known services begin their keys: GitHub, Hugging Face, OpenAI and the like, AWS, Slack, Google
_SHAPES = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|hf_\w{20,}|sk-[\w\-]{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w\-]{10,}"
    r"|AIza[\w\-]{30,})"
)


def in_environment() -> dict[str, str]:
    """The environment's variables that hold a secret, by their names."""
    return {name: value for name, value in os.environ.items() if len(value) >= 8 and _NAME.search(name)}


def holds_secret(name: str, value: object, known: Mapping[str, str]) -> bool:
    """Whether a config's value is a secret: by its key, by its form, or since the environment holds it as one."""
    if not isinstance(value, str) or not value:
        return False
    return bool(
        _NAME.search(name)
        or _IN_URL.search(value)
        or _SHAPES.search(value)
        or any(secret in value for secret in known.values())
    )


def redacted(text: str) -> str:
    """The text without what is, or looks like, a secret."""
    return _ASSIGNED.sub(rf"\g<1>{REMOVED}", _without_certain_secrets(text))


def redacted_code(diff: str) -> str:
    """The diff of a file without what is, or looks like, a secret; what is left of Python and YAML is still code.

    There ``cls_token = x.mean(1)`` is no secret, and text in quotes after such a name is one.
    """
    header = diff.partition("\n")[0]
    if not header.endswith((".py", ".yaml", ".yml")):
        return redacted(diff)
    diff = _QUOTED.sub(rf"\g<1>{REMOVED}\g<2>", _without_certain_secrets(diff))
    return diff if header.endswith(".py") else _UNQUOTED.sub(rf"\g<1>{REMOVED}", diff)


def _without_certain_secrets(text: str) -> str:
    """The text without the environment's secrets, passwords in addresses, and service keys."""
    for secret in sorted(in_environment().values(), key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    return _IN_URL.sub(REMOVED, _SHAPES.sub(REMOVED, text))
