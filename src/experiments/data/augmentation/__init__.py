"""Random changes of training images, drawn anew for every image, on the whole batch where it lies."""

from experiments.data.augmentation.base import Augmentation
from experiments.data.augmentation.mixing import Cutmix, Cutout, Mixup
from experiments.data.augmentation.shifts import Crop, Flip
from experiments.data.augmentation.warps import Affine, Elastic, augmented

__all__ = ["Affine", "Augmentation", "Crop", "Cutmix", "Cutout", "Elastic", "Flip", "Mixup", "augmented"]
