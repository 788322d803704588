"""Speed on a GPU: python benchmarks/gpu.py root=<folder that holds MNIST/raw> [json=<path>], and --help.

All sides take turns in this process. Rates are of training alone, in images a second.

graph        a loop by hand: data on the GPU, and the whole step (fetch by index, normalise, forward, backward, fused
             Adam with its one-cycle rate, loss and accuracy) captured once as a CUDA graph and replayed
by hand      the same loop without the graph, as in benchmarks/training.py
project      ``scripts/train.py`` with its defaults
tutorial     torchvision's MNIST decoded image by image, loss and accuracy read each step
lightning    the same data in a LightningModule that logs loss and accuracy in each step

Then: how much of a training epoch the GPU computes; a start; and training seconds to 99 % on MNIST.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import start
import torch
from compare import compare
from torch import Tensor
from torch.nn import functional
from training import MEAN, SIDES, STD, Training, by_hand, network, project, raw_mnist

from experiments.config.options import option, read
from experiments.errors import UserError, stop


@dataclass
class GPU:
    """Measure speed on a GPU: python benchmarks/gpu.py root=<folder>."""

    root: str = option("the folder that holds MNIST/raw", "data")
    nets: str = option("networks: mlp, cnn, resnet", "mlp,cnn,resnet")
    batch_sizes: str = option("images a step", "64,256,1024")
    sides: str = option("what takes turns", "graph,by hand,project,tutorial,lightning")
    epochs: int = option("epochs a round, of the sides that are fast", 3)
    rounds: int = option("how often each side runs, after a first time that does not count", 3)
    slow_images: int = option("images a round for tutorial and lightning", 6400)
    parts: str = option("what to measure", "rates,share,start,to_99")
    json: str | None = option("a file for the numbers", None)


def graph(
    options: Training, net_name: str, batch_size: int, lr: float = 2e-3, label_smoothing: float = 0.0,
    bf16: bool = False, **arguments: Any,
) -> Callable[[], float]:  # fmt: skip
    """Training, then validation, with each step one replay of a graph."""
    device = torch.device("cuda")
    images, labels = (part.to(device) for part in raw_mnist(options.root))
    test_images, test_labels = images[55_000:], labels[55_000:]
    scale, shift = 1 / (255 * STD), -MEAN / STD
    net = network(net_name, **arguments).to(device)
    if bf16:
        net = net.to(memory_format=torch.channels_last)
    steps = options.epochs * -(-options.images // batch_size)
    rates = torch.tensor(one_cycle(lr, steps), device=device)
    optimizer = torch.optim.Adam(net.parameters(), lr=torch.tensor(lr, device=device), fused=True, capturable=True)
    order = torch.zeros(options.images, dtype=torch.int64, device=device)
    position, step = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
    total, right = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    inputs = [images, labels, rates]  # graphs read them where they lay
    before = [value.detach().clone() for value in (*net.parameters(), *net.buffers())]

    def take(offsets: Tensor) -> None:
        index = order[position + offsets]
        x, y = torch.mul(images[index], scale).add_(shift), labels[index]
        optimizer.param_groups[0]["lr"].copy_(rates[step][0])
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16, cache_enabled=False):
            logits = net(x)
            loss = functional.cross_entropy(logits, y, label_smoothing=label_smoothing)
        loss.backward()
        optimizer.step()
        total.add_(loss.detach() * len(offsets))
        right.add_((logits.detach().argmax(1) == y).sum())
        position.add_(len(offsets))
        step.add_(1)

    def captured(size: int) -> torch.cuda.CUDAGraph:
        offsets = torch.arange(size, device=device)
        inputs.append(offsets)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                start_anew()
                take(offsets)
        torch.cuda.current_stream().wait_stream(stream)
        made = torch.cuda.CUDAGraph()
        start_anew()
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(made):
            take(offsets)
        return made

    def start_anew() -> None:
        with torch.no_grad():
            for value, old in zip((*net.parameters(), *net.buffers()), before, strict=True):
                value.copy_(old)
        for held in optimizer.state.values():
            for value in held.values():
                value.zero_()
        position.zero_(), step.zero_()

    net.train()
    full, rest = divmod(options.images, batch_size)

    def run() -> float:
        # anew each time: torch frees the workspace of all graphs of a stream with any of them (issue 193402)
        whole, last = captured(batch_size), captured(rest) if rest else None
        start_anew()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(options.epochs):
            order.copy_(torch.randperm(options.images, device=device))
            position.zero_(), total.zero_(), right.zero_()
            for _ in range(full):
                whole.replay()
            if last:
                last.replay()
            total.item(), right.item()
            if options.validate:
                run.accuracy = measure()  # type: ignore[attr-defined]
        return time.perf_counter() - started

    run.inputs = inputs  # type: ignore[attr-defined]

    @torch.no_grad()
    def measure() -> float:
        net.eval()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            outputs = [net(torch.mul(part, scale).add_(shift)) for part in test_images.split(1000)]
        net.train()
        return (torch.cat(outputs).argmax(1) == test_labels).float().mean().item()

    return run


def one_cycle(lr: float, steps: int) -> list[float]:
    """The rate of every step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def rates(options: GPU, quick: Training, slow: Training) -> None:
    makers = {"graph": graph, **SIDES}
    table = []
    for net_name in options.nets.split(","):
        for batch_size in map(int, options.batch_sizes.split(",")):
            calls = {}
            for side in options.sides.split(","):
                settings = slow if side in ("tutorial", "lightning") else quick
                calls[side] = a_million(makers[side](settings, net_name, batch_size), settings)
            title = f"{net_name}, batch size {batch_size}: seconds a million images"
            rows = compare(title, calls, options.rounds)
            table.append((net_name, batch_size, {side: 1e6 / row["median"] for side, row in rows.items()}))
    print("\nimages a second")
    print(f"{'':18}" + "".join(f"{side:>12}" for side in options.sides.split(",")))
    for net_name, batch_size, found in table:
        print(f"{net_name:8}{batch_size:8}  " + "".join(f"{rate:12,.0f}" for rate in found.values()))


def a_million(call: Callable[[], float], settings: Training) -> Callable[[], float]:
    """The seconds that a million images take where a call takes those of its own."""
    return quiet(lambda: call() * 1e6 / (settings.epochs * settings.images))


def quiet(call: Callable[[], float]) -> Callable[[], float]:
    """The same, without what it prints."""

    def run() -> float:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return call()

    return run


def share(options: GPU, quick: Training) -> None:
    """What part of the training time some kernel runs, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    print(f"\n{'the GPU computes':24}" + "".join(f"{size:>12}" for size in options.batch_sizes.split(",")))
    for net_name in options.nets.split(","):
        for name, make in {"graph": graph, "project": project}.items():
            found = []
            for batch_size in map(int, options.batch_sizes.split(",")):
                call = quiet(make(quick, net_name, batch_size))
                call()
                with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                    seconds = call()
                busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
                found.append(busy / seconds)
            print(f"{net_name:8}{name:16}" + "".join(f"{part:12.0%}" for part in found), flush=True)


def starts(options: GPU) -> None:
    plain = (
        "import os, torch, torchvision, lightning;"
        "lightning.Trainer(accelerator='gpu', logger=False); torch.zeros(1, device='cuda'); os._exit(0)"
    )
    first = "+callbacks.first._target_=first_step.FirstStep"
    compare(
        "a start, to the first training step on the GPU",
        {
            "imports, Trainer, CUDA": lambda: start.seconds("-c", plain),
            "train.py": lambda: start.seconds(str(start.TRAIN), "trainer.accelerator=gpu", first),
        },
        options.rounds,
    )


def to_99(options: GPU) -> None:
    recipe: dict[str, Any] = {"channels": [32, 64], "kernel_size": 5, "stride": 2, "norm": "batch"}
    settings = Training(root=options.root, epochs=3, device="gpu")
    by_graph = graph(settings, "cnn", 128, lr=0.01, label_smoothing=0.1, bf16=True, **recipe)
    compare(
        "experiment=mnist_fast, three epochs with validation",
        {
            "graph in bf16": by_graph,
            "by hand": by_hand(settings, "cnn", 128, lr=0.01, label_smoothing=0.1, **recipe),
            "project": quiet(project(settings, "cnn", 128, "experiment=mnist_fast")),
            "project, minimal": quiet(project(settings, "cnn", 128, "experiment=mnist_fast", "callbacks=minimal")),
        },
        options.rounds,
    )
    print(f"the graph's accuracy on the validation images: {by_graph.accuracy:.4f}")  # type: ignore[attr-defined]


def main() -> None:
    options = read(GPU)
    if not torch.cuda.is_available():
        raise UserError("benchmarks/gpu.py needs a GPU that CUDA knows; benchmarks/training.py measures on the CPU")
    logging.disable()
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}", flush=True)
    quick = Training(root=options.root, epochs=options.epochs, device="gpu", validate=False)
    slow = replace(quick, epochs=1, images=options.slow_images)
    parts: Mapping[str, Callable[[], None]] = {
        "rates": lambda: rates(options, quick, slow),
        "share": lambda: share(options, replace(quick, epochs=1)),
        "start": lambda: starts(options),
        "to_99": lambda: to_99(options),
    }
    for part in options.parts.split(","):
        if part not in parts:
            raise UserError(f"parts={part}: choose from {', '.join(parts)}")
        parts[part]()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)
