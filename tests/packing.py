"""Many overrides in few commands: composing a config takes longer than what most tests ask about it."""

from collections.abc import Sequence


def keys_of(typed: str) -> set[str]:
    """The keys that a command's overrides name, without their signs and values."""
    return {override.lstrip("+-~").partition("=")[0].strip().replace("/", ".") for override in typed.split()}


def packed(rows: Sequence[tuple]) -> list[list[tuple]]:
    """The rows, whose first item is what is typed, in groups of which no two rows name the same key or its parent."""
    groups: list[tuple[list[tuple], set[str]]] = []
    for row in rows:
        keys = keys_of(row[0])
        for group, taken in groups:
            if not any(
                f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
                for one in keys
                for other in taken
            ):
                group.append(row)
                taken |= keys
                break
        else:
            groups.append(([row], keys))
    return [group for group, _ in groups]
