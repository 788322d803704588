"""Write docs/configuration.md from the YAML files in conf: python docs/configuration.py."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "configuration.md"
GROUPS = {
    "model": "The network.",
    "data": "The data set.",
    "augment": "Random changes of the training images, drawn anew for every image.",
    "loss": "What training lowers.",
    "optimizer": "How weights change in a step.",
    "param_groups": "Other learning rates and weight decays for some of the parameters.",
    "scheduler": "How the learning rate changes. What needs the number of steps gets it by itself.",
    "metrics": "What is measured on validation and test images, beside loss and accuracy.",
    "trainer": "Lightning's Trainer: device, precision, length, validation.",
    "callbacks": "What guards, ends and shows training.",
    "logger": "Where curves go.",
    "debug": "Short runs that look for mistakes.",
    "experiment": "Recipes: all choices of a training in one file.",
    "sweep": "Search spaces for Optuna, one for each network.",
    "hydra/sweeper": "What `-m` does.",
    "hydra/sweeper/sampler": "What proposes the next trial of a study.",
    "hydra/sweeper/pruner": "What stops a trial early.",
}
LISTS = ("augment", "metrics", "callbacks", "logger", "param_groups")  # whose choices can be joined
KEY = re.compile(r"^(?P<indent> *)(?P<name>[\w.]+):(?: (?P<value>[^#\s][^#]*?))?(?: +# ?(?P<comment>.*))?$")


def write() -> str:
    """Return the whole page."""
    text = (CONF / "train.yaml").read_text(encoding="utf-8")
    parts = [
        "# Configuration\n",
        "<!-- Written by `python docs/configuration.py` from the files in conf. -->\n",
        "Choose from a group by `group=choice`, set a value by `key=value`. `null` is none. This page is written "
        "from the YAML files in `conf`.\n",
        "## Top level\n",
        table([row for row in rows(text, "") if not row[0].startswith(("hydra", "defaults", "metrics"))]),
    ]
    for group, meaning in GROUPS.items():
        chosen = defaults(text).get(group)
        joined = f' Several are joined in a list: `"{group}=[<one>,<another>]"`.' if group in LISTS else ""
        parts.append(f"## {group}\n\n{meaning}{joined}\n")
        for path in sorted((CONF / group).glob("*.yaml")):
            parts.append(choice(group, path, path.stem == chosen))
    return "\n".join(parts)


def defaults(text: str) -> dict[str, str]:
    """Return what the defaults list of a file chooses."""
    entries = yaml.safe_load(text).get("defaults", [])
    return {
        key.removeprefix("override /"): one
        for entry in entries
        if isinstance(entry, dict)
        for key, one in entry.items()
    }


def choice(group: str, path: Path, is_default: bool) -> str:
    """Describe a file: what its first comment says, and its keys."""
    text = path.read_text(encoding="utf-8")
    comment = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    said = " ".join(line.replace("<", "\\<") for line in comment if line and line != "@package _global_")
    above = [entry for entry in (yaml.safe_load(text) or {}).get("defaults", []) if isinstance(entry, str)]
    if above:
        said += f" All of {', '.join(f'`{group}={name}`' for name in above)}."
    head = f"### {group}={path.stem}{' (default)' if is_default else ''}\n"
    body = (
        ""
        if group == "experiment"
        else table(rows(text, "" if "@package _global_" in text else group.replace("/", ".")))
    )
    return "\n".join(part for part in (head, f"{said.strip()}\n" if said.strip() else "", body) if part)


def rows(text: str, prefix: str) -> list[tuple[str, str, str]]:
    """List the keys of a file that hold a value: dotted name, default, comment."""
    found: list[tuple[str, str, str]] = []
    above: list[tuple[int, str]] = [(-1, prefix)]
    for line in text.splitlines():
        match = KEY.match(line)
        if not match or match["name"] in ("_target_", "_partial_"):
            continue
        indent = len(match["indent"])
        while above[-1][0] >= indent:
            above.pop()
        name = ".".join(part for part in (above[-1][1], match["name"]) if part)
        above.append((indent, name))
        if match["value"] is not None and ".defaults" not in f".{name}":
            found.append((name, match["value"].strip(), match["comment"] or ""))
    return found


def table(found: list[tuple[str, str, str]]) -> str:
    """Lay keys out as a table."""
    if not found:
        return ""
    cells = [
        (name, value.replace("|", "\\|"), said.replace("|", "\\|").replace("<", "\\<")) for name, value, said in found
    ]
    return "| key | default | |\n|---|---|---|\n" + "".join(
        f"| `{name}` | `{value}` | {said} |\n" for name, value, said in cells
    )


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
