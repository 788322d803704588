from dataclasses import dataclass

import pytest

from experiments.config.options import gathered, option, read
from experiments.errors import UserError


@dataclass
class Schema:
    """Do something: python scripts/something.py run=<dir>."""

    run: str = option("the run directory")
    count: int = option("how many", 3)
    trust: list[str] = option("packages", [])
    name: str | None = option("a name", None)
    data_keys: list[str] = gathered("data.", "the data set's keys")


def test_values_get_their_type():
    assert read(Schema, ["run=a=b", "count=4", "trust=[x,y]"]) == Schema("a=b", 4, ["x", "y"])
    assert read(Schema, ["run=r"]) == Schema("r", 3, [], None, [])


def test_text_stays_as_it_was_typed():
    assert read(Schema, ["run=007", "name=1e3"]) == Schema("007", 3, [], "1e3", [])
    assert read(Schema, ["run=[a]#b: *.png", "name=null"]).run == "[a]#b: *.png"


def test_keys_with_a_prefix_are_gathered():
    assert read(Schema, ["data.root=a", "run=r", "data.x=1"]).data_keys == ["data.root=a", "data.x=1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run must be given"),
        (["run"], "'run' is not of the form key=value"),
        (["rum=x"], "'rum' is not an option. Did you mean run"),
        (["run=x", "count=many"], "count: .*many"),
        (["run=x", "data_keys=many"], "'data_keys' is not an option"),
        (["run=x", "count=[1"], r"count=\[1 cannot be read"),
    ],
)
def test_mistakes_name_the_value_and_the_rule(arguments, message):
    with pytest.raises(UserError, match=message):
        read(Schema, arguments)


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as ending:
        read(Schema, ["--help"])
    assert ending.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("Do something", "run", "count", "(default: 3)", "trust", "data.<key>"))
