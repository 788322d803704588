"""Experiments with small networks: Lightning trains, Hydra configures, TensorBoard shows.

For notebooks::

    import experiments

    net = experiments.load("runs/mlp-digits/<id>/checkpoints/best.ckpt")  # plain nn.Module, evaluation mode
    for prediction in experiments.predict(net, "digits/*.png"):
        print(prediction.predicted, prediction.probability)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.config.compose import compose as compose
    from experiments.inference.load import load as load
    from experiments.inference.predict import predict as predict
    from experiments.learning.classifier import Classifier as Classifier
    from experiments.training.run import train as train

_HOME = {
    "Classifier": "experiments.classifier",
    "compose": "experiments.composition",
    "load": "experiments.build",
    "predict": "experiments.prediction",
    "train": "experiments.run",
}
__all__ = ["Classifier", "compose", "load", "predict", "train"]


def __getattr__(name: str) -> Any:
    # Importing torch and lightning takes seconds; `train.py --help` must not wait for them.
    if name not in _HOME:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
