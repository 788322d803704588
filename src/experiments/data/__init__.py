"""Data sets as LightningDataModules over tensors in memory."""

from experiments.data.digits import Digits
from experiments.data.mnist import MNIST
from experiments.data.module import ImageDataModule, normalize

__all__ = ["MNIST", "Digits", "ImageDataModule", "normalize"]
