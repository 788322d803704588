"""Networks, precisions and repeatable runs on a GPU."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import experiments
from experiments.data import Digits
from experiments.data.augmentation.mixing import Cutmix, Cutout, Mixup
from experiments.data.augmentation.shifts import Crop, Flip
from experiments.data.augmentation.warps import Affine, Elastic
from experiments.data.batches import as_batch_list
from experiments.errors import UserError
from experiments.training.build import build
from experiments.training.process import prepare_process

NETS = ("mlp", "cnn", "resnet", "rnn", "attention")
EVERYTHING = ("augment=[affine,elastic,mixup]", "callbacks=[default,ema]", "model.net.dropout=0.2")


def weights(folder):
    return torch.load(folder / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert [name for name, value in first.items() if not value.equal(second[name])] == []


def test_the_first_command_of_the_readme_says_the_gpus_name(script, tmp_path):
    ended = script("train", "trainer.accelerator=gpu")
    assert ended.returncode == 0, ended.stderr
    assert f"device: cuda:0 ({torch.cuda.get_device_name(0)})" in ended.stdout
    (summary,) = tmp_path.rglob("summary.json")
    assert json.loads(summary.read_text())["test/accuracy"] > 0.95
    assert "Warning" not in ended.stderr + ended.stdout


@pytest.mark.parametrize("net", NETS)
def test_every_network_learns_and_is_the_cpus_network(run, net):
    folder, summary = run(f"model={net}", "trainer.max_epochs=8")
    assert summary["test/accuracy"] > 0.8
    loaded = experiments.load(folder / "checkpoints" / "best.ckpt")
    images = torch.randn(50, *loaded.card["image_shape"])
    with torch.no_grad():
        here = loaded(images)
        there = loaded.cuda()(images.cuda()).cpu()
    assert torch.allclose(here, there, atol=0.05)  # convolutions are TF32 there, as torch has it
    assert (here.argmax(1) == there.argmax(1)).float().mean() > 0.95


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        (["trainer.precision=bf16-mixed"], torch.bfloat16),
        (["trainer.precision=16-mixed"], torch.float16),
        (["matmul_precision=high"], torch.float32),
        (["channels_last=true"], torch.float32),
    ],
    ids=str,
)
def test_precisions_and_memory_formats(run, options, dtype):
    seen = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: seen.append((type(module), output)) and None
    )
    try:
        _, summary = run("model=cnn", "trainer.max_epochs=5", *options)
    finally:
        hook.remove()
        torch.set_float32_matmul_precision("highest")
    convolved = [output for kind, output in seen if kind is torch.nn.Conv2d]
    assert convolved[-1].is_cuda
    assert convolved[-1].dtype == dtype
    if "channels_last=true" in options:
        assert convolved[-1].is_contiguous(memory_format=torch.channels_last)
    assert summary["test/accuracy"] > 0.9


@pytest.mark.parametrize("net", NETS)
def test_deterministic_runs_repeat_bit_for_bit(run, net):
    try:
        first, _ = run("deterministic=true", f"model={net}", *EVERYTHING, name="first")
        second, _ = run("deterministic=true", f"model={net}", *EVERYTHING, name="second")
    finally:
        torch.use_deterministic_algorithms(False)
    assert_equal(weights(first), weights(second))


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_lists_of_steps_are_single_steps(run, net):
    try:
        several, _ = run("deterministic=true", f"model={net}", *EVERYTHING, "steps_per_execution=5", name="several")
        single, _ = run("deterministic=true", f"model={net}", *EVERYTHING, "steps_per_execution=1", name="single")
    finally:
        torch.use_deterministic_algorithms(False)
    assert_equal(weights(several), weights(single))


class Watcher(Callback):
    handles_batch_lists = True

    def __init__(self):
        self.devices = set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.devices |= {part.device.type for one in as_batch_list(batch) for part in one}


def test_images_lie_on_the_gpu_and_are_augmented_there(tmp_path):
    prepare_process()
    made = build(
        experiments.compose("trainer.accelerator=gpu", "trainer.max_epochs=1", "logger=none", "callbacks=minimal",
                            "augment=[affine,crop]", "steps_per_execution=4", f"run_dir={tmp_path}")
    )  # fmt: skip
    watcher = Watcher()
    made.trainer.callbacks.insert(0, watcher)
    made.trainer.fit(made.classifier, made.data)
    assert {part.device.type for part in made.data.train_dataloader().dataset.tensors} == {"cuda"}
    assert watcher.devices == {"cuda"}


EVERY = [Affine(), Elastic(), Crop(), Flip(), Cutout(), Mixup(), Cutmix()]


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda made: type(made).__name__)
def test_augmentations_do_there_what_they_do_here(augmentation):
    data = Digits(augment={"one": augmentation})
    data.setup("fit")
    images, labels = data.splits["train"].tensors
    here = data.augmented(images[:64], labels[:64], 0, 3)
    there = data.augmented(images[:64].cuda(), labels[:64].cuda(), 0, 3)
    for one, other in zip(here, there, strict=True):
        assert other.is_cuda
        assert torch.allclose(one.float(), other.cpu().float(), atol=1e-4)


def test_too_little_memory_is_said_and_what_to_do(run):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.002)
    try:
        with pytest.raises(UserError, match=r"(?s)out of memory: .*Lower data.batch_size \(now 1000;"):
            run("model=cnn", "model.net.channels=[1024,1024]", "data.batch_size=1000")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_more_gpus_than_there_are(run):
    count = torch.cuda.device_count()
    with pytest.raises(UserError, match=rf"trainer.devices={count + 1}: .* has {count} GPU"):
        run(f"trainer.devices={count + 1}")


def test_hidden_gpus_are_not_taken_for_a_missing_driver(script):
    ended = script("train", "trainer.accelerator=gpu", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 2
    assert "trainer.accelerator=gpu" in ended.stderr
    assert "No CUDA GPUs are available" in ended.stderr
