"""Whatever is typed and whatever stands in a config: one message or none, never an unhandled exception."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import experiments
from experiments.config.checks.check import config_mistakes
from experiments.config.checks.classes import class_mistakes
from experiments.config.installation import CONF
from experiments.errors import UserError
from experiments.runs.allowed_classes import check_allowed, check_paths
from experiments.runs.redaction import redacted

quick = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
BASE = experiments.compose("callbacks=[default,early_stopping,ema]", "metrics=[f1]", "augment=[affine,mixup]")


def paths(value, prefix=()):
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*prefix, key)
            yield from paths(part, (*prefix, key))


PATHS = sorted(paths(BASE))
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "local"))
words = st.sampled_from(
    ["null", "true", "???", "nan", "inf", "-inf", "1e400", "0x10", "1_000", "", "''", '"a b"', "[]", "{}", "[1,2]",
     "{a:1}", "[[[1]]]", "a,b", "1,2", "${seed}", "${nothing}", "${optimizer.lr}", "${oc.env:HOME}",
     "${oc.env:NOT_THERE}",
     "${experiments.run_id:}", "${experiments.run_folder:a,b}", "${..}", "${.}", "$", "\\", "=", "a=b", "range(1,3)", "choice(1,2)",
     "int(3.5)", "float(x)", "str(1)", "glob(*)", "sort(3,1)", "interval(0,1)", "tag(a,1)", "shuffle(1,2)",
     "extend_list(1)",
     "-1", "../..", "/", "~", "a/b", "é", "𝔘", "torch.optim.Adam", "os.system", "experiments.nets.MLP", ".", "a..b",
     "1:2:3"]
)  # fmt: skip
keys = st.one_of(
    st.sampled_from([".".join(map(str, path)) for path in PATHS]),
    st.sampled_from(GROUPS),
    st.sampled_from(
        ["nothing", "model.nothing", "hydra.job.name", "data@model", "model@:x", "a.b.c", "data._target_", "0", "-"]
    ),
)
overrides = st.builds(
    lambda sign, key, equals, value: f"{sign}{key}{equals}{value}",
    st.sampled_from(["", "", "", "+", "++", "~"]), keys, st.sampled_from(["=", "=", "=", "=", "", " = ", ":"]),
    st.one_of(words, st.text(max_size=8), st.integers().map(str), st.floats(allow_subnormal=False).map(str)),
)  # fmt: skip
names = st.one_of(st.text(max_size=5), st.sampled_from(["_target_", "_partial_", "monitor", "lr"]))
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_subnormal=False), st.text(max_size=12), words,
        st.sampled_from(["torch.optim.SGD", "torch.nn.ReLU", "val/loss", "auto", "\0", "a" * 5000]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(names, inner, max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip


def refused(function):
    """What a UserError says, or what the function gives."""
    try:
        return None, function()
    except UserError as error:
        return str(error), None


def looked_at(config, typed=()):
    """Both passes; what they find are sentences that a user can read."""
    found = config_mistakes(config, typed)
    try:
        found += class_mistakes(config, typed)
    except UserError as error:
        found.append(str(error))
    assert all(isinstance(fault, str) and fault.strip() for fault in found)
    return found


@settings(quick, max_examples=30)  # each composes a config
@given(st.lists(overrides, min_size=1, max_size=3))
def test_any_override_composes_and_is_looked_at_or_is_refused(typed):
    refusal, config = refused(lambda: experiments.compose(*typed))
    assert refusal is None or refusal.strip()
    if refusal is None:
        looked_at(config, typed)


@settings(quick, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(PATHS), values), min_size=1, max_size=4))
def test_any_value_anywhere_is_looked_at(changes):
    config = copy.deepcopy(BASE)
    for (*folders, last), value in changes:
        place = config
        for folder in folders:
            place = place.get(folder) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
    looked_at(config, [".".join(map(str, changes[0][0])) + "=1"])


@settings(quick, max_examples=300)
@given(values)
def test_any_stored_config_is_accepted_or_refused(tmp_path_factory, value):
    for judge in (lambda: check_allowed(value, "file"), lambda: check_paths(value, tmp_path_factory.getbasetemp())):
        refusal, _ = refused(judge)
        assert refusal is None or refusal.strip()


@settings(quick, max_examples=200)
@given(st.text())
def test_any_text_can_be_redacted(text):
    assert redacted(redacted(text)) == redacted(text)


@settings(quick, max_examples=10)
@given(st.lists(overrides, min_size=1, max_size=2))
def test_any_command_line_ends_with_an_exit_code_and_no_traceback(typed):
    """Through the same main; ``max_epochs=0`` keeps what is right from training."""
    with pytest.MonkeyPatch.context() as patch:
        code, errors = main(patch, *typed, "trainer.max_epochs=0")
    assert code in (1, 2), (code, errors)
    assert "Traceback" not in errors


def main(patch, *typed):
    import contextlib
    import io
    import runpy
    import sys
    import tempfile

    from tests.conftest import ROOT

    errors = io.StringIO()
    code = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(errors):
        patch.chdir(folder)
        patch.delenv("EXPERIMENTS_RUN_ID", raising=False)
        patch.setattr(sys, "argv", ["train.py", *typed])
        patch.setattr(sys, "path", [*sys.path])
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        except SystemExit as ending:
            code = ending.code
        finally:
            patch.undo()
    return code, errors.getvalue()
