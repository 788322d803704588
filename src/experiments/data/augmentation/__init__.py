"""Random changes of training images, drawn anew for every image, on the whole batch where it lies."""

from experiments.data.augmentation.base import Augmentation as Augmentation
from experiments.data.augmentation.mixing import Cutmix as Cutmix
from experiments.data.augmentation.mixing import Cutout as Cutout
from experiments.data.augmentation.mixing import Mixup as Mixup
from experiments.data.augmentation.shifts import Crop as Crop
from experiments.data.augmentation.shifts import Flip as Flip
from experiments.data.augmentation.warps import Affine as Affine
from experiments.data.augmentation.warps import Elastic as Elastic
from experiments.data.augmentation.warps import augmented as augmented
