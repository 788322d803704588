"""Random changes of training images, drawn anew for every image, on the whole batch where it lies.

Own tensor code: torchvision's transforms draw once a batch; kornia (0.9) draws once an image, but from torch's
global generator. All randomness here comes from the NumPy generator that the caller hands in, so what is drawn
depends neither on the device nor on what else a run draws.
"""

from experiments.data.augmentation.base import Augmentation as Augmentation
from experiments.data.augmentation.colours import Blur as Blur
from experiments.data.augmentation.colours import ColorJitter as ColorJitter
from experiments.data.augmentation.colours import Grey as Grey
from experiments.data.augmentation.mixing import Cutmix as Cutmix
from experiments.data.augmentation.mixing import Cutout as Cutout
from experiments.data.augmentation.mixing import Mixup as Mixup
from experiments.data.augmentation.photographs import ResizedCrop as ResizedCrop
from experiments.data.augmentation.photographs import TrivialAugment as TrivialAugment
from experiments.data.augmentation.shifts import Crop as Crop
from experiments.data.augmentation.shifts import Flip as Flip
from experiments.data.augmentation.warps import Affine as Affine
from experiments.data.augmentation.warps import Elastic as Elastic
from experiments.data.augmentation.warps import augmented as augmented
