"""Replay optimizer steps as CUDA graphs: of small networks, a GPU would wait for Python to launch its kernels."""

import logging
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from experiments.errors import UserError
from experiments.learning.torch_internals import has_hooks

log = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor]
Step = Callable[[Batch], tuple[Tensor, Tensor]]  # takes an optimizer step, gives the mean loss and the outputs
Settings = Callable[[], Any]

STEPS_PER_GRAPH = (8, 1)  # steps of a graph: long ones cost less a step, and any number can be made of both
WARM_UP_STEPS = 3  # steps before a capture, in which libraries and the optimizer allocate what they keep


class _Graph(NamedTuple):
    """A captured graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensor  # (steps * batch, ...)
    targets: Tensor
    rates: Tensor  # (steps, parameter groups)
    losses: Tensor  # (steps,)
    outputs: Tensor  # (steps * batch, ...)


class StepGraphs:
    """Captures an optimizer step once it has been taken a few times, and replays it while nothing else changes.

    Learning rates lie in a tensor, so schedules work as ever. All else that Python decides is frozen in the capture:
    where it is seen to change (layers that thaw, another dropout), the step is captured anew. Where it cannot be
    captured, that is said once, and steps are taken one by one.

    Learning rates are rounded to 32 bits in every step, also without graphs: both give the same weights bit for bit.

    Args:
        modules: the network and the loss.
        optimizer: one that ``takes_tensor_rates``.
        take: an optimizer step of a batch, which calls ``prepare_rates`` before the optimizer's own.
        settings: what else the step takes for granted.
        enabled: if false, rates are rounded, and nothing is captured.
    """

    def __init__(
        self, modules: Sequence[nn.Module], optimizer: Optimizer, take: Step, settings: Settings, enabled: bool
    ) -> None:
        self.modules = modules
        self.optimizer = optimizer
        self.take = take
        self.settings = settings
        self.enabled = enabled
        self._graphs: dict[int, _Graph] = {}
        self._assumptions: Any = None  # what a step took for granted when it was first taken
        self._places: list[int] = []  # of the optimizer's own tensors, when the step was captured
        self._warm_up_steps = 0
        self._peak = 0  # bytes, in a step
        self._stream = torch.cuda.Stream()
        self._captured_rates: Tensor | None = None  # by the step that is captured
        self._rates: list[float] = []  # what the step at hand was given
        self._hook = optimizer.register_step_post_hook(self._restore_rates)

    def __reduce__(self) -> Any:
        return type(None), ()  # a copied or pickled module drops its graphs

    def close(self) -> None:
        """Give the graphs' memory back, and leave the optimizer as it was."""
        self.enabled, self._graphs = False, {}
        self._hook.remove()

    def prepare_rates(self) -> None:
        """Give the optimizer its rates for the step to come, rounded or, in a capture, as tensors."""
        groups = self.optimizer.param_groups
        self._rates = [group["lr"] for group in groups]
        for number, group in enumerate(groups):
            group["lr"] = (
                float(np.float32(group["lr"])) if self._captured_rates is None else self._captured_rates[number]
            )

    def _restore_rates(self, optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=False):  # none, if a subclass gave none
            group["lr"] = rate
        self._rates = []

    def begin_list(self, batch: Batch) -> None:
        """Begin a list of batches like this one; forget the graphs if what they take for granted has changed."""
        if not self.enabled:
            return
        state = self._assumptions_of(batch)
        if state != self._assumptions or (self._graphs and self._places != self._optimizer_state_places()):
            self._assumptions, self._graphs, self._warm_up_steps = state, {}, 0

    def ensure_captured(self, batch: Batch) -> bool:
        """Whether the next step can be replayed; captures it when it has been taken often enough."""
        if not self.enabled or self._warm_up_steps < WARM_UP_STEPS:
            return False
        if not self.optimizer_settings_unchanged():
            self._give_up("the schedule changes more than the learning rate")
        elif not self._graphs:
            self._capture(batch)
        return self.enabled

    def optimizer_settings_unchanged(self) -> bool:
        """Whether the optimizer's settings, but for its rates, are those that were captured."""
        return self._assumptions[0] == self._optimizer_settings()

    def warm_up(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A step without a graph; the first ones run where a capture will, and the last of them is watched."""
        if not self.enabled or self._warm_up_steps >= WARM_UP_STEPS:
            return self.take(batch)
        self._warm_up_steps += 1
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            taken = self._step_under_watch(batch) if self._warm_up_steps == WARM_UP_STEPS else self.take(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return taken

    def replay(self, batches: Sequence[Batch], rates: Sequence[Sequence[float]]) -> list[tuple[Tensor, Tensor]]:
        """Take a step for each batch, at its learning rates; return the losses and outputs of some at a time."""
        taken = []
        while batches:
            length = next(length for length in STEPS_PER_GRAPH if length <= len(batches))
            graph = self._graphs[length]
            torch.cat([inputs for inputs, _ in batches[:length]], out=graph.inputs)
            torch.cat([targets for _, targets in batches[:length]], out=graph.targets)
            graph.rates.copy_(torch.tensor(rates[:length]).pin_memory(), non_blocking=True)
            graph.graph.replay()
            taken.append((graph.losses.clone(), graph.outputs.clone()))
            batches, rates = batches[length:], rates[length:]
        return taken

    def _capture(self, batch: Batch) -> None:
        if why := self._reason_not_to_capture(batch):
            self._give_up(why)
            return
        groups = self.optimizer.param_groups
        before = [dict(group) for group in groups]
        generator = torch.cuda.default_generators[batch[0].device.index]
        random_state, stream = generator.clone_state(), torch.cuda.current_stream()
        pool = torch.cuda.graph_pool_handle()  # shared: outputs are cloned before the other one is replayed
        try:
            for group in groups:
                if "capturable" in group:  # torch asks for it, fused or not
                    group["capturable"] = True
            self._graphs = {length: self._captured([batch] * length, pool) for length in STEPS_PER_GRAPH}
        except (RuntimeError, UserError) as error:
            self._give_up(str(error).splitlines()[0])
            torch.cuda.set_stream(stream)
            generator.graphsafe_set_state(random_state)  # a failed capture leaves the generator's own as capturing
        finally:
            self._captured_rates = None
            for group, settings in zip(groups, before, strict=True):
                group.update(settings)
            self.optimizer.zero_grad()  # gradients that lie in the graphs' memory
        self._places = self._optimizer_state_places()

    def _reason_not_to_capture(self, batch: Batch) -> str | None:
        if self._assumptions_of(batch) != self._assumptions:
            return "the network changes its own attributes in every step"
        if any(has_hooks(module) for module in self.modules):
            return "the network has hooks, which would not be called"
        used = torch.cuda.memory_allocated()
        step = self._peak - used
        if torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - used < 2 * step:
            return "there is too little free memory for a second copy of a step"
        return None

    def _captured(self, batches: Sequence[Batch], pool: Any) -> _Graph:
        inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
        rates = torch.zeros(len(batches), len(self.optimizer.param_groups), device=inputs.device)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(graph, pool=pool, stream=self._stream):
            taken = []
            parts = zip(inputs.chunk(len(batches)), targets.chunk(len(batches)), rates, strict=True)
            for some_inputs, some_targets, self._captured_rates in parts:
                taken.append(self.take((some_inputs, some_targets)))
            losses, outputs = torch.stack([loss for loss, _ in taken]), torch.cat([outputs for _, outputs in taken])
        return _Graph(graph, inputs, targets, rates, losses, outputs)

    def _step_under_watch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take a step; give up if Python decides in it by values or by chance, which a graph would not repeat."""
        before = _host_random_states()
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            torch.cuda.reset_peak_memory_stats()
            try:
                taken = self.take(batch)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        self._peak = torch.cuda.max_memory_allocated()
        reads = [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
        for warning in caught:
            if warning not in reads and "ynchronization debug mode" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if reads:
            self._give_up("the step reads values from the GPU")
        elif _host_random_states() != before:
            self._give_up("the step draws random numbers on the CPU")
        return taken

    def _give_up(self, why: str) -> None:
        log.info("steps are taken without CUDA graphs: %s", why)
        self.enabled, self._graphs = False, {}

    def _parts(self) -> list[nn.Module]:
        return [part for module in self.modules for part in module.modules()]

    def _assumptions_of(self, batch: Batch) -> Any:
        """What a step takes for granted: settings, shapes, where weights lie, what modules are set to."""
        tensors = [tensor for module in self.modules for tensor in (*module.parameters(), *module.buffers())]
        return (
            self._optimizer_settings(),
            self.settings(),
            [(part.shape, part.dtype) for part in batch],
            [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors],
            [
                {key: value for key, value in vars(part).items() if isinstance(value, (bool, int, float, str))}
                for part in self._parts()
            ],
        )

    def _optimizer_settings(self) -> Any:
        return [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in self.optimizer.param_groups
        ]

    def _optimizer_state_places(self) -> list[int]:
        held = [value for values in self.optimizer.state.values() for value in values.values()]
        return [value.data_ptr() for value in held if isinstance(value, Tensor)]


def _host_random_states() -> Any:
    return (
        random.getstate(),
        repr(np.random.get_state(legacy=False)["state"]),
        torch.get_rng_state().numpy().tobytes(),
    )
