"""Data sets as LightningDataModules over tensors in memory or in mapped files."""

from experiments.data.batches import normalize
from experiments.data.cifar import CIFAR10
from experiments.data.digits import Digits
from experiments.data.images.folder import ImageFolder
from experiments.data.images.table import ImageTable
from experiments.data.mnist import EMNIST, KMNIST, MNIST, FashionMNIST
from experiments.data.module import ImageDataModule

__all__ = [
    "CIFAR10",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "ImageTable",
    "normalize",
]
