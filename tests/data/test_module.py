import hashlib

import pytest
import torch

from experiments.data import Digits, ImageDataModule, normalize
from experiments.data.splits import limited, resident
from experiments.errors import UserError


def ready(**options):
    data = Digits(**options)
    data.setup("fit")
    data.setup("test")
    return data


def counts(dataset):
    return torch.bincount(dataset.tensors[1], minlength=10)


def test_digits_are_split_once_and_for_all():
    data = ready()
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 1257, "val": 180, "test": 360}
    images = {name: {bytes(image.numpy()) for image in split.tensors[0]} for name, split in data.splits.items()}
    assert not images["train"] & images["test"]
    assert not images["train"] & images["val"]
    assert not images["val"] & images["test"]
    # the split itself must never move: results of different versions would no longer compare
    digest = hashlib.sha256(bytes(data.splits["test"].tensors[1].tolist())).hexdigest()
    assert digest[:16] == "da1a2ec12e5c2ed7"


def test_the_split_does_not_follow_the_seed():
    first, second = ready(seed=0), ready(seed=1)
    for name in ("train", "val", "test"):
        assert first.splits[name].tensors[0].equal(second.splits[name].tensors[0])
    assert not next(iter(first.train_dataloader()))[1].equal(next(iter(second.train_dataloader()))[1])


def test_stated_mean_and_std_are_those_of_the_images_outside_the_test_split():
    images, _ = Digits().read("train")
    assert (images / 255).mean().item() == pytest.approx(Digits.mean[0], abs=5e-5)
    assert (images / 255).std().item() == pytest.approx(Digits.std[0], abs=5e-5)


def test_batches_are_normalised_floats():
    data = ready(batch_size=50)
    images, labels = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (50, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert abs(images.mean().item()) < 0.1
    assert images.std().item() == pytest.approx(1, abs=0.1)


def test_normalize_is_the_textbook_formula_for_bytes_and_floats():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    truth = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    floats = images.float() / 255
    before = floats.clone()
    assert torch.allclose(normalize(images, mean, std).double(), truth, atol=1e-6)
    assert torch.allclose(normalize(floats, mean, std).double(), truth, atol=1e-6)
    assert floats.equal(before)


def test_folds_cover_every_image_once_and_keep_the_classes_shares():
    folds = [ready(num_folds=5, fold=fold) for fold in range(5)]
    validation = [bytes(image.numpy()) for data in folds for image in data.splits["val"].tensors[0]]
    everything = [bytes(image.numpy()) for image in folds[0].read("train")[0]]
    assert sorted(validation) == sorted(everything)
    shares = torch.stack([counts(data.splits["val"]) for data in folds])
    assert (shares.max(0).values - shares.min(0).values).max() <= 1


@pytest.mark.parametrize(("limit", "expected"), [(0.1, 126), (100, 100), (1257, 1257), (1.0, 1257), (1250, 1250)])
def test_limit_acts_on_the_train_split_alone_and_by_class(limit, expected):
    data, whole = ready(limit=limit), ready()
    assert len(data.splits["train"]) == expected
    assert data.splits["val"].tensors[0].equal(whole.splits["val"].tensors[0])
    assert data.splits["test"].tensors[0].equal(whole.splits["test"].tensors[0])
    shares = counts(data.splits["train"]) / expected
    assert (shares - counts(whole.splits["train"]) / 1257).abs().max() < 0.02


def test_a_limit_that_leaves_out_a_few_takes_one_each_of_the_largest_classes():
    labels = torch.arange(4).repeat_interleave(torch.tensor([5, 8, 7, 6]))  # sorted, as folders of images are
    data = Digits(limit=24, val_size=1)
    kept = limited(torch.arange(26), labels, data.limit, data.num_classes)
    assert torch.bincount(labels[kept]).tolist() == [5, 7, 6, 6]
    few = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    kept = limited(torch.arange(12), few, 10, 10)
    assert kept.tolist() == [0, *range(3, 12)]  # no class is lost
    with pytest.raises(UserError, match="limit=9 leaves 9 images for 10 classes"):
        limited(torch.arange(12), few, 9, 10)


def test_a_fraction_for_validation_is_one_of_the_train_split():
    assert len(ready(val_size=0.2).splits["val"]) == round(0.2 * 1437)


class Uneven(Digits):
    """Two hundred zeros and twenty ones."""

    class_names = ("zero", "one")

    def read(self, split):
        labels = torch.cat((torch.zeros(200), torch.ones(20))).long()
        return torch.zeros(220, 1, 28, 28, dtype=torch.uint8), labels


def test_balanced_draws_every_class_equally_often_in_training_alone():
    data = Uneven(val_size=22, balanced=True, batch_size=198)
    assert data.class_counts() == [180, 18]
    (batch,) = data.train_dataloader()
    assert batch[1].float().mean().item() == pytest.approx(0.5, abs=0.1)
    (batch,) = data.val_dataloader()
    assert torch.bincount(batch[1]).tolist() == [20, 2]


def test_what_lies_on_the_cpu_stays_where_it_is():
    data = ready()
    assert resident(data.splits["train"], torch.device("cpu")) is data.splits["train"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_the_images_and_gives_the_same_batches():
    data = ready()
    there = resident(data.splits["train"], torch.device("cuda"))
    assert there.tensors[0].is_cuda
    index = torch.tensor([5, 3, 9])  # the sampler's indices stay on the CPU
    for here, moved in zip(data.splits["train"][index], there[index], strict=True):
        assert moved.is_cuda
        assert here.equal(moved.cpu())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a whole number"),
        ({"limit": 0}, "limit=0 must be"),
        ({"limit": 1.5}, "limit=1.5 must be"),
        ({"limit": 5000}, "data.limit=5000 exceeds the 1257 images"),
        ({"limit": 5}, "data.limit=5 leaves 5 images for 10 classes"),
        ({"fold": 1}, "go together"),
        ({"num_folds": 5, "fold": 5}, "data.fold=5 must be from 0 to 4"),
        ({"fold": 0, "num_folds": 200}, "data.num_folds=200: n_splits=200 cannot be greater than"),
        ({"val_size": 1437}, "data.val_size=1437 leaves too few of 1437 images"),
    ],
)
def test_impossible_sizes_are_refused_with_the_value_and_the_rule(options, message):
    with pytest.raises((ValueError, UserError), match=message):
        ready(**options)


class Lacking(ImageDataModule):
    """Three classes in the train split, and no image of the second one in the test split."""

    image_shape, class_names, mean, std = (1, 4, 4), ("cat", "dog", "eel"), (0.5,), (0.5,)

    def __init__(self, absent, **options):
        super().__init__(val_size=9, **options)
        self.absent = absent

    def read(self, split):
        labels = torch.arange(60) % 3
        if self.absent == split:
            labels[labels == 1] = 2
        return torch.zeros(60, 1, 4, 4, dtype=torch.uint8), labels


def test_a_class_without_an_image_is_told_and_cannot_be_drawn_as_often_as_others(caplog):
    data = Lacking("test", balanced=True)
    data.setup("fit")
    assert not caplog.messages
    data.setup("test")
    assert caplog.messages == ["the test split has no image of dog: means over classes leave them out"]
    with pytest.raises(UserError, match=r"^data\.balanced=true: the train split has no image of dog$"):
        Lacking("train", balanced=True).setup("fit")


class Blank(ImageDataModule):
    """Black images, as a user may write them down at first."""

    image_shape, class_names = (1, 8, 8), ("a", "b")
    targets = 60

    def read(self, split):
        return torch.zeros(60, 1, 8, 8, dtype=torch.uint8), torch.arange(self.targets) % 2


def test_what_a_data_set_must_state_is_said(tmp_path):
    data = Blank(val_size=20)
    with pytest.raises(UserError, match="data: Blank must state mean and std of each channel"):
        data.setup("fit")
    data.mean = data.std = (0.5,)
    data.setup("fit")
    for data.targets in (59, 61):
        with pytest.raises(UserError, match=f"there are 60 images and {data.targets} targets, which must be as many"):
            data.setup("test")
