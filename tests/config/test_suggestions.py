"""What is typed in other words, another letter case or another place is answered with the key that is meant."""

import inspect
import re
from functools import cache

import lightning
import pytest
import yaml

import experiments
from experiments.config import conf_files, overrides
from experiments.config.compose import composed
from experiments.config.hydra_internals import let_errors_through
from experiments.config.installation import CONF
from experiments.config.resolvers import register_resolvers
from experiments.config.suggestions import (
    explain_unknown_choice,
    explain_unknown_key,
    moved_keys,
    names_in_other_tools,
)
from experiments.errors import UserError
from tests.packing import packed


@cache
def keys_with(*choices: str) -> dict[str, bool]:
    return overrides.known_keys(choices)


OWN = {"model=custom", "data=custom", "data=image_folder", "data=image_table"}  # which ask for more
CHOICES = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name not in ("hydra", "local", "sweep", "experiment")
]


@pytest.fixture(autouse=True, scope="module")
def _resolvers():
    register_resolvers()


def one_letter_off(word: str) -> str:
    """The word with its second and third letter swapped, or without its last one where they are the same."""
    return word[0] + word[2] + word[1] + word[3:] if word[1] != word[2] else word[:-1]


TOGETHER = [tuple(one for (one,) in group) for group in packed([(one,) for one in CHOICES if one not in OWN])]


@pytest.mark.parametrize("choices", TOGETHER, ids=" ".join)
def test_every_key_is_found_by_letter_case_spelling_and_without_its_parent(choices):
    known = keys_with(*choices)
    groups = {choice.partition("=")[0] for choice in choices}
    keys = [key for key, holds in known.items() if holds and "." in key and key.partition(".")[0] in groups]
    composed([*choices, *(f"{key}=null" for key in keys)])  # what is answered composes
    for key in keys:
        parents, _, last = key.rpartition(".")
        if last.isdecimal():
            continue
        forms = {key.upper(): known, last: known}
        if len(last) > 3:
            forms[f"{parents}.{one_letter_off(last)}"] = known
        for form in forms:
            if form not in known:  # else it is right
                assert f"{key}=7" in explain_unknown_key(form, "7", known), form


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_found_by_letter_case_and_spelling(choice):
    group, _, name = choice.partition("=")
    for form in (name.upper(), name.replace("_", ""), name.replace("_", "-"), f"{name}x"):
        if form not in conf_files.choices(group):
            assert choice in explain_unknown_choice(group, form), form


@cache
def every_key() -> set[str]:
    return set().union(*(keys_with(*choices) for choices in TOGETHER))


@pytest.mark.parametrize(("typed", "answer"), [*names_in_other_tools().items(), *moved_keys().items()])
def test_what_the_table_answers_exists(typed, answer):
    assert typed not in every_key() or typed in ("optimizer.momentum", *moved_keys()), "it is a key by itself"
    if " " not in answer and "=" not in answer:
        assert answer in every_key() or conf_files.is_group(answer) or answer.startswith("hydra."), answer
    for group, choice in re.findall(r"(?<![\w.])(\w+)=(\w+)(?![\w.(])", answer):
        if conf_files.is_group(group):
            assert choice in conf_files.choices(group), answer
    for key in re.findall(r"(?<![\w.+])((?:trainer|optimizer|scheduler|callbacks|data|loss)\.[\w.]+)", answer):
        assert key.endswith("_target_") or any(key.rstrip(".") in keys_with(*extra) for extra in EXTRAS), key


EXTRAS = [[], ["loss=weighted_cross_entropy"], ["scheduler=cosine"], ["scheduler=step"],
          ["callbacks=[default,ema,early_stopping,freeze]"]]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("optimizer.learning_rate=0.1", "Type optimizer.lr=0.1"),
        ("model=MLP", "Type model=mlp"),
        ("epochs=3", "Type trainer.max_epochs=3"),
        ("augment=affine,elastic", '"augment=[affine,elastic]" for one, or -m'),
        ("callbacks=default,ema", '"callbacks=[default,ema]" for one, or -m'),
        ("scheduler.T_max=10", "T_max:10}' has T_max"),
        ("optimizer.momentum=0.9", "optimizer=sgd has momentum"),
        ("train=false", "scripts/evaluate.py run=<run directory>"),
        ("ckpt_path=x", "resume=<run directory> continues a run, init_from=<file>"),
        ("debug=fdr", "Type debug=fast"),
        ("data.augment=affine", "it belongs to augment=affine"),
        ("+loss.weight=[1,2]", "loss=weighted_cross_entropy"),
        ("+trainer.enable_checkpointing=false", "callbacks.best_checkpoint=null callbacks.rolling_checkpoint=null"),
        ("trainer.enable-checkpointing=false", "callbacks.best_checkpoint=null callbacks.rolling_checkpoint=null"),
        ("+trainer.callbacks=[1]", "+callbacks.<name>._target_=<class>"),
        ("+model.num_classes=20", "it comes from the data"),
        ("data.num_workers=4", "leave it out"),
        ("data.pin_memory=true", "leave it out"),
        ("paths.data_dir=/x", "Type data_root=/x"),
        ("model.net.kernel_size=3", "Type model=cnn or model=resnet to have it"),
        ("optimizer=sgd optimizer.betas=[0.9,0.99]", "it takes lr, momentum, nesterov, weight_decay, fused"),
        ("model.net.chanels=[3]", "Type model.net.channels with model=cnn or model=resnet"),
        ("optimizer.momentun=0.3", "Type optimizer.momentum with optimizer=muon or optimizer=rmsprop"),
        ("optimizer=torch.optim.SGD", "Type optimizer=sgd"),
        ("optimizer=lion", "another class by optimizer._target_=<import path>"),
        ("optimizer.name=sgd", "Type optimizer=sgd"),
        ("loss=mse", "Type loss._target_=torch.nn.MSELoss"),
        ("logger=WandbLogger", "Type logger=wandb"),
        ("data=./my_images", "Type data=image_folder data.root=./my_images"),
        ("optimizer.lr=0.1,0.01", 'Type -m before it, or "optimizer.lr=[0.1,0.01]" for one with a list'),
        ("optimizer.betas=(0.9,0.95)", 'Type "optimizer.betas=[0.9,0.95]"'),
        ("callbacks=rich_progress_bar", "type +callbacks.rich._target_=lightning.pytorch.callbacks.RichProgressBar"),
        ("hydra.job.env_set.X=1", "Type +hydra.job.env_set.X=1"),
        ("resume_from_checkpoint=a.ckpt", "Type resume=a.ckpt"),
    ],
)
def test_habits_are_answered(typed, words):
    with pytest.raises(UserError) as caught:
        experiments.compose(*typed.split())
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{typed.split()[-1]}: ")
    for text in ("Could not", "To append", "struct", "HYDRA"):
        assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        ("optimizer.lr 0.01", "optimizer.lr=0.01"),
        ("optimizer.lr = 0.01", "optimizer.lr=0.01"),
        ("optimizer.lr =0.01", "optimizer.lr=0.01"),
        ("trainer.max_epochs: 10", "trainer.max_epochs=10"),
        ("optimizer.betas=[0.9, 0.95]", '"optimizer.betas=[0.9, 0.95]"'),
    ],
)
def test_what_the_shell_takes_apart_is_said_whole(typed, whole):
    with pytest.raises(UserError) as caught:
        experiments.compose(*typed.split())
    assert str(caught.value) == f"{typed}: an override is one piece. Type {whole}"


def test_values_that_hydras_grammar_has_no_place_for_need_no_quotes(monkeypatch):
    monkeypatch.setenv("LR", "0.25")
    config = experiments.compose(
        "data=image_folder", "data.root=~/a(b)#c", "name=a=b", "optimizer.lr=${oc.decode:${oc.env:LR}}"
    )  # fmt: skip
    assert config["data"]["root"] == "~/a(b)#c"
    assert config["name"] == "a=b"
    assert config["optimizer"]["lr"] == 0.25


def test_all_unknown_keys_are_answered_together():
    with pytest.raises(UserError) as caught:
        experiments.compose("lr=0.1", "bs=3", "optimizer=sgd")
    first, *others = str(caught.value).splitlines()
    assert first == "2 mistakes:"
    assert ["optimizer.lr=0.1" in others[0], "data.batch_size=3" in others[1]] == [True, True]


def test_a_plus_before_what_is_there_is_taken_as_without_it():
    config = experiments.compose("+optimizer.lr=0.5", "+loss=focal", "+optimizer.amsgrad=true")
    assert config["optimizer"]["lr"] == 0.5
    assert config["optimizer"]["amsgrad"] is True
    assert config["loss"]["_target_"] == "experiments.learning.FocalLoss"


def test_every_argument_of_lightnings_trainer_is_a_key_or_answered_with_its_place():
    keys = set(yaml.safe_load((CONF / "trainer" / "default.yaml").read_text()))
    arguments = set(inspect.signature(lightning.Trainer).parameters)
    assert keys - {"_target_"} == arguments - {"callbacks", "logger", "enable_checkpointing"}
    assert {"trainer.callbacks", "trainer.logger", "trainer.enable_checkpointing"} <= moved_keys().keys()


def test_hydra_raises_what_goes_wrong(monkeypatch):
    from hydra._internal import utils

    monkeypatch.setattr(utils, "run_and_report", utils.run_and_report)  # put back afterwards
    let_errors_through()
    with pytest.raises(ZeroDivisionError):
        utils.run_and_report(lambda: 1 // 0)
