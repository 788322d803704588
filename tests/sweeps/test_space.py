import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from experiments.errors import UserError
from experiments.sweeps import space

PARSED = [
    ("x=interval(1,8)", FloatDistribution(1.0, 8.0)),
    ("x=int(interval(4,32))", IntDistribution(4, 32)),
    ("x=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
    ("x=tag(log,int(interval(4,32)))", IntDistribution(4, 32, log=True)),
    ("x=range(1,8)", IntDistribution(1, 7)),
    ("x=range(1,8,3)", IntDistribution(1, 7, step=3)),
    ("x=range(8,1,-3)", IntDistribution(2, 8, step=3)),
    ("x=range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
    ("x=a,b", CategoricalDistribution(["a", "b"])),
    ("x=1,2.5,null,true", CategoricalDistribution(["1", "2.5", "null", "True"])),
    ("x=choice([16],[16,32],{a:1})", CategoricalDistribution(["[16]", "[16,32]", "{a:1}"])),
    ("x='a b','c,d'", CategoricalDistribution(["'a b'", "'c,d'"])),
    ("+x=1,1,2", CategoricalDistribution(["1", "2"])),
]


@pytest.mark.parametrize(("override", "truth"), PARSED, ids=lambda value: str(value)[:40])
def test_hydras_grammar_becomes_optunas_distributions(override, truth):
    fixed, found = space.parse([override])
    assert fixed == []
    assert list(found.values()) == [truth]


@pytest.mark.parametrize(
    "override", ["x=range(1,8,3)", "x=range(8,1,-3)", "x=range(0.1,0.5,0.1)", "x=a,b", "x=1,[2]"]
)
def test_the_grid_is_what_hydra_itself_would_run(override):
    (parsed,) = OverridesParser.create().parse_overrides([override])
    truth = sorted(parsed.sweep_string_iterator())
    _, found = space.parse([override])
    assert sorted(str(value) for value in space.grid(found)["x"]) == pytest.approx(truth) or [
        float(value) for value in space.grid(found)["x"]
    ] == pytest.approx([float(value) for value in truth])


def test_what_is_fixed_stays_as_it_was_typed_and_the_last_word_counts():
    typed = ["loss=focal", "+a.b='c d'", "x=1,2", "~callbacks.progress", "loss=margin", "x=interval(0,1)"]
    fixed, found = space.parse(typed)
    assert fixed == ["loss=margin", "+a.b='c d'", "~callbacks.progress"]
    assert found == {"x": FloatDistribution(0, 1)}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("x=interval(8,1)", "makes no range"),
        ("x=tag(log,interval(0,1))", "makes no range"),
        ("x=range(3,3)", "the range is empty"),
        ("x=tag(log,range(1,9,2))", "makes no range"),
        ("x=tag(lg,interval(1,2))", "the tag 'lg' is unknown; there is log"),
        ("x=tag(log,choice(1,2))", "choices have no log scale"),
        ("x=interval(1", "x=interval"),
    ],
)
def test_what_makes_no_range_is_named(override, words):
    with pytest.raises(UserError, match=words):
        space.parse([override])


def test_an_interval_has_no_grid():
    with pytest.raises(UserError, match="x is an interval, which has no grid"):
        space.grid({"x": FloatDistribution(0, 1)})
    assert space.grid_size(space.parse(["x=1,2,3", "y=range(0,4)"])[1]) == 12


def test_examples_show_every_choice():
    _, found = space.parse(["x=a,b,c", "y=d,e", "z=interval(1,2)"])
    assert space.examples(found) == [
        {"x": "a", "y": "d", "z": 1.0},
        {"x": "b", "y": "e", "z": 1.0},
        {"x": "c", "y": "d", "z": 1.0},
    ]


@pytest.mark.parametrize("text", ["/a b/c", "it's", "a=b,c", "{x}", r"back\slash", "${x}"])
def test_any_path_survives_hydras_grammar(text):
    (parsed,) = OverridesParser.create().parse_overrides([f"x={space.quoted(text)}"])
    assert parsed.value() == text
