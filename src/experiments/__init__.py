"""Experiments with small networks: Lightning trains, Hydra configures, TensorBoard shows.

For notebooks::

    import experiments

    config = experiments.compose("optimizer=sgd", "trainer.max_epochs=3", "run_dir=out")  # as the command line would
    summary = experiments.train(config)  # what out/summary.json says
    net = experiments.load("out/checkpoints/best.ckpt")  # plain nn.Module, evaluation mode
    for prediction in experiments.predict(net, "digits/*.png"):
        print(prediction.predicted, prediction.probability)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.config.compose import compose as compose
    from experiments.inference.load import load as load
    from experiments.inference.predict import predict as predict
    from experiments.learning import Classifier as Classifier
    from experiments.learning import Task as Task
    from experiments.training.build import build as build
    from experiments.training.run import train as train

_MODULES = {
    "Classifier": "experiments.learning",
    "Task": "experiments.learning",
    "build": "experiments.training.build",
    "compose": "experiments.config.compose",
    "load": "experiments.inference.load",
    "predict": "experiments.inference.predict",
    "train": "experiments.training.run",
}
__all__ = ["Classifier", "Task", "build", "compose", "load", "predict", "train"]


def __getattr__(name: str) -> Any:
    # Importing torch and lightning takes seconds; `train.py --help` must not wait for them.
    if name not in _MODULES:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
