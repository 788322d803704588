import math

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as truth

from experiments.data import Digits
from experiments.data.augmentation.colours import Blur, ColorJitter, Grey, blurred, hue_shifted
from experiments.data.augmentation.mixing import Cutmix, Cutout, Mixup
from experiments.data.augmentation.photographs import BINS, CHANGES, ResizedCrop, TrivialAugment, changed, cropped
from experiments.data.augmentation.shifts import Crop, Flip
from experiments.data.augmentation.warps import Affine, Elastic, augmented
from tests.learning.test_classifier import classifier

COUNT = 12
EVERY = [Affine(), Elastic(), Crop(), Flip(vertical=0.5), Cutout(), ResizedCrop(), ColorJitter(), Blur(probability=1),
         TrivialAugment(), Mixup(), Cutmix()]  # fmt: skip
LABELS = F.one_hot(torch.arange(COUNT) % 10, 10).float()


def photos(height=20, width=28):
    """Smooth colour images, all the same: what differs afterwards was drawn apart."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    one = torch.stack((torch.sin(x) * 0.4 + 0.5, torch.cos(y) * 0.4 + 0.5, torch.sin(x + y) * 0.4 + 0.5))
    return one.expand(COUNT, 3, height, width).contiguous()


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda made: type(made).__name__)
def test_shapes_stay_the_input_stays_and_the_generator_alone_decides(augmentation):
    images = photos() if not augmentation.mixes else torch.rand(COUNT, 3, 20, 28)
    before = images.clone()
    out, labels = augmentation(images, LABELS, rng())
    assert images.equal(before)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    assert labels.shape == LABELS.shape
    assert labels.sum(1).allclose(torch.ones(COUNT))
    torch.manual_seed(1)  # torch's own generator has no say
    again, labels_again = augmentation(images, LABELS, rng())
    assert again.equal(out)
    assert labels_again.equal(labels)
    assert not augmentation(images, LABELS, rng(1))[0].equal(out)


@pytest.mark.parametrize("augmentation", EVERY[:9], ids=lambda made: type(made).__name__)
def test_every_image_draws_for_itself(augmentation):
    out, labels = augmentation(photos(), LABELS, rng())
    different = {bytes(image.numpy()) for image in out}
    assert len(different) > (3 if isinstance(augmentation, Flip) else COUNT - 3)
    assert labels is LABELS


@pytest.mark.parametrize(
    "options", [(30, 0, 1, 0), (0, 0.2, 1, 0), (0, 0, 1.3, 0), (0, 0, 1, 20), (25, 0.1, 0.8, 15)]
)
def test_affine_is_the_textbook_matrix_on_images_that_are_not_square(options):
    degrees, shift, size, skew = options

    class Fixed:  # every draw is the upper end of its range
        def uniform(self, low, high, shape):
            return np.full(shape, high)

    images = photos()
    height, width = images.shape[-2:]
    made = Affine(degrees or 0, shift, (size, size), skew)
    out, _ = made(images, LABELS, Fixed())
    angle, tangent = math.radians(degrees), math.tan(math.radians(skew))
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ torch.tensor([[1.0, tangent], [0.0, 1.0]]) / size
    # where each pixel comes from, in pixels from the centre, and what torch reads there
    y, x = torch.meshgrid(
        torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij"
    )
    source = torch.stack((x, y), -1) @ matrix.T + torch.tensor([shift * width, shift * height])
    grid = source * torch.tensor([2 / width, 2 / height])
    expected = F.grid_sample(images, grid.expand(COUNT, -1, -1, -1), mode="bicubic", align_corners=False).clamp(0, 1)
    assert torch.allclose(out, expected, atol=1e-4)


def test_affine_agrees_with_torchvision_on_a_rotation():
    class Fixed:
        def uniform(self, low, high, shape):
            return np.full(shape, high)

    images = photos(28, 28)
    # torchvision reads tensors bilinearly alone: what must agree is where from
    out = F.grid_sample(images, Affine(30, 0, (1, 1), 0).sources(images, None, Fixed()), align_corners=False)
    expected = truth.affine(images, -30, [0, 0], 1.0, [0.0, 0.0], interpolation=truth.InterpolationMode.BILINEAR)
    assert torch.allclose(out[..., 8:20, 8:20], expected[..., 8:20, 8:20], atol=1e-3)


def test_nothing_drawn_is_nothing_changed():
    images = photos()
    for made in (Affine(0, 0, (1, 1), 0), Elastic(0), Crop(0), Flip(0, 0)):
        assert torch.allclose(made(images, LABELS, rng())[0], images, atol=1e-5)


def test_an_elastic_shift_is_bounded_and_smooth():
    ramp = torch.arange(40.0).expand(COUNT, 1, 40, 40) / 40
    out, _ = Elastic(magnitude=2, spacing=10, padding="border")(ramp, LABELS, rng())
    moved = (out - ramp)[..., 6:-6, 6:-6] * 40  # pixels
    assert 0.5 < moved.abs().max() < 2.6  # bicubic interpolation overshoots a little
    assert (moved[..., 1:] - moved[..., :-1]).abs().max() < 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_warps_in_a_row_are_one_after_the_other_without_the_blur(order):
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    ramps = torch.stack((x, y)).expand(COUNT, -1, -1, -1) / 50  # one pixel is 0.02
    warps = [[Affine(20, 0.02, (0.9, 1.1), 10), Elastic(2.0, spacing=12)][index] for index in order]
    at_once, labels = augmented(warps, (ramps, LABELS), rng())
    second = rng()  # what the last one draws comes first
    warps[1].sources(ramps, None, second)
    by_turns, _ = warps[1](warps[0](ramps, LABELS, second)[0], LABELS, rng())
    inside = (..., slice(12, -12), slice(12, -12))
    assert torch.allclose(at_once[inside], by_turns[inside], atol=4e-3)
    assert (at_once - ramps)[inside].abs().max() * 50 > 1
    assert labels is LABELS


def test_a_crop_is_a_window_of_the_padded_image():
    images = torch.rand(COUNT, 3, 8, 10)
    out, _ = Crop(margin=2)(images, LABELS, rng())
    padded = F.pad(images, (2,) * 4)
    for image, cut in zip(padded, out, strict=True):
        windows = image.unfold(1, 8, 1).unfold(2, 10, 1).flatten(1, 2).transpose(0, 1)
        assert (windows == cut).flatten(1).all(1).any()


def test_a_flip_is_a_mirror_with_the_stated_probability():
    images = torch.rand(1, 3, 8, 10).expand(1000, -1, -1, -1)
    out, _ = Flip(horizontal=0.3)(images, torch.zeros(1000), rng())
    flipped = (out == images.flip(-1)).flatten(1).all(1)
    assert (flipped | (out == images).flatten(1).all(1)).all()
    assert flipped.float().mean() == pytest.approx(0.3, abs=0.05)


def test_cutout_blackens_one_square():
    out, _ = Cutout(size=6)(torch.ones(500, 3, 20, 28), torch.zeros(500), rng())
    holes = (out == 0).all(1)
    assert (holes.sum((1, 2)) <= 36).all()
    assert (holes.sum((1, 2)) == 36).float().mean() > 0.4  # the rest lies across a border
    assert holes.float().mean(0).min() > 0  # it comes everywhere


def test_mixup_blends_labels_as_it_blends_images():
    images = torch.eye(10)[:, :, None, None].expand(10, 10, 4, 4).contiguous()  # image i is lit in channel i alone
    out, labels = Mixup(alpha=1.0)(images, torch.eye(10), rng())
    assert torch.allclose(out[:, :, 0, 0], labels, atol=1e-6)
    assert ((labels > 0.05).sum(1) == 2).sum() > 4


def test_cutmix_labels_are_areas():
    images = torch.eye(10)[:, :, None, None].expand(10, 10, 20, 28).contiguous()
    out, labels = Cutmix()(images, torch.eye(10), rng())
    assert torch.allclose(out.mean((2, 3)), labels, atol=1e-6)
    assert ((out == 0) | (out == 1)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(degrees=200), "degrees=200 must be a number from 0 to 180"),
        (lambda: Affine(scale=(1.2, 0.8)), "scale="),
        (lambda: Affine(padding="black"), "padding='black' must be one of zeros, border, reflection"),
        (lambda: Flip(horizontal=2), "horizontal=2"),
        (lambda: Mixup(alpha=0), "alpha=0"),
        (lambda: Cutout(size=0), "size=0"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def seen_in_training(epochs=1, **options):
    """Every training batch and every validation batch of a run, as the network receives them."""
    data, module, batches = Digits(batch_size=100, limit=300, **options), classifier(), []
    module.on_train_batch_start = lambda batch, index: batches.append(batch) and None
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, datamodule=data)
    return batches, data, module


def test_the_same_seed_gives_the_same_images_and_every_epoch_others():
    augment = {"affine": Affine(), "elastic": Elastic()}
    first, data, _ = seen_in_training(2, augment=augment)
    torch.rand(5)
    second, _, _ = seen_in_training(2, augment=augment)
    other, _, _ = seen_in_training(2, augment=augment, seed=1)
    plain, _, _ = seen_in_training(2)
    assert len(first) == 6
    for a, b, c, d in zip(first, second, other, plain, strict=True):
        assert a[0].equal(b[0])
        assert a[1].equal(b[1])
        assert a[1].equal(d[1])
        assert not a[0].equal(c[0])
        assert not a[0].equal(d[0])
    # it is a function of seed, epoch and position: any batch can be had again by itself
    sampler = data.train_dataloader().sampler
    sampler.set_epoch(1)
    images, labels = data.splits["train"][list(sampler)[2]]
    again, _ = data.augmented(images, labels, epoch=1, position=2)
    assert torch.allclose((again - data.mean[0]) / data.std[0], first[5][0], atol=1e-5)


def test_evaluation_is_left_alone():
    data = Digits(augment={"affine": Affine()})
    data.setup("fit")
    plain = Digits()
    plain.setup("fit")
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    module = classifier()
    assert trainer.validate(module, datamodule=data, verbose=False) == trainer.validate(
        module, datamodule=plain, verbose=False
    )


def test_mixed_labels_reach_the_loss_and_the_larger_part_counts_as_right():
    batches, _, module = seen_in_training(augment={"mixup": Mixup(alpha=1.0)})
    images, labels = batches[0]
    assert labels.shape == (100, 10)
    loss, logits = module.step((images, labels))
    module.update_stage("train", loss, logits, labels)
    log_probabilities = module.net(images).log_softmax(1)
    assert loss.item() == pytest.approx(-(labels * log_probabilities).sum(1).mean().item(), rel=1e-5)
    accuracy = dict(module.stage_metrics("train"))["accuracy"].compute()
    assert accuracy.item() == pytest.approx((log_probabilities.argmax(1) == labels.argmax(1)).float().mean().item())


class Upper:
    """Draws the upper end of every range; of booleans, true."""

    def random(self, shape, dtype=np.float64):
        return np.full(shape, 1.0, dtype)


@pytest.mark.parametrize(
    "amounts", [(0.4, 0, 0, 0), (0, 0.7, 0, 0), (0, 0, 0.9, 0), (0, 0, 0, 0.3), (0.2, 0.3, 0.4, 0.1)]
)
def test_colours_are_changed_as_by_torchvision(amounts):
    images = torch.rand(COUNT, 3, 20, 28, generator=torch.Generator().manual_seed(1))
    brightness, contrast, saturation, hue = amounts
    out, _ = ColorJitter(*amounts)(images, LABELS, Upper())
    for image, ours in zip(images, out, strict=True):
        expected = truth.adjust_brightness(image, 1 + brightness)
        expected = truth.adjust_contrast(expected, 1 + contrast)
        expected = truth.adjust_saturation(expected, 1 + saturation)
        torch.testing.assert_close(ours, truth.adjust_hue(expected, hue), atol=1e-4, rtol=0)


def test_hue_turns_any_colour_as_torchvision_does():
    colours = torch.tensor([[r, g, b] for r in (0, 0.3, 1) for g in (0, 0.3, 1) for b in (0, 0.3, 1)])
    images = colours[:, :, None, None].repeat(1, 1, 2, 2)
    for shift in (-0.5, -0.21, 0.0, 0.4, 0.5):
        ours = hue_shifted(images, torch.full((len(images),), shift))
        torch.testing.assert_close(ours, truth.adjust_hue(images, shift), atol=1e-5, rtol=0)


def test_grey_images_keep_to_what_they_have():
    images = torch.rand(COUNT, 1, 20, 28)
    for made in (ColorJitter(0, 0, 0.9, 0.5), Grey(1.0)):
        assert made(images, LABELS, rng())[0] is images
    out, _ = ColorJitter(0.4, 0.4)(images, LABELS, Upper())
    torch.testing.assert_close(out, truth.adjust_contrast(truth.adjust_brightness(images, 1.4), 1.4))
    colours = torch.rand(200, 3, 8, 8)
    out, _ = Grey(0.3)(colours, torch.zeros(200), rng())
    grey = [image.equal(truth.rgb_to_grayscale(one, 3)) for image, one in zip(out, colours, strict=True)]
    assert 35 < sum(grey) < 85
    assert all(one or image.equal(colour) for one, image, colour in zip(grey, out, colours, strict=True))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_blur_is_torchvisions(sigma):
    images = torch.rand(3, 3, 20, 28)
    reach = max(1, round(3 * sigma))
    expected = truth.gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)
    torch.testing.assert_close(blurred(images, torch.full((3,), sigma)), expected)
    assert blurred(torch.rand(2, 1, 3, 2), torch.full((2,), 5.0)).isfinite().all()  # hardly a pixel to mirror


def test_a_part_is_enlarged_as_by_torchvision():
    images = torch.rand(5, 3, 20, 28)
    boxes = torch.tensor([[0, 0, 20, 28], [3, 5, 10, 14], [19, 27, 1, 1], [0, 20, 20, 8], [7, 0, 13, 28]])
    for image, ours, box in zip(images, cropped(images, boxes), boxes.tolist(), strict=True):
        torch.testing.assert_close(ours, truth.resized_crop(image, *box, [20, 28], antialias=True), atol=1e-5, rtol=0)


def test_parts_are_drawn_as_torchvision_draws_them():
    images = torch.zeros(4000, 3, 20, 28)
    ours = ResizedCrop((0.1, 0.8), (0.5, 1.5)).boxes(images, rng())
    theirs = v2.RandomResizedCrop((20, 28), (0.1, 0.8), (0.5, 1.5))
    torch.manual_seed(0)
    drawn = [theirs.make_params([images[0]]) for _ in range(4000)]
    theirs = np.array([[one[key] for key in ("top", "left", "height", "width")] for one in drawn])
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 0.35
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 0.35
    assert (ours[:, 0] + ours[:, 2]).max() <= 20
    assert (ours[:, 1] + ours[:, 3]).max() <= 28
    wide = ResizedCrop((1.0, 1.0), (4.0, 4.0)).boxes(images[:2], rng())  # nothing fits: the centre
    assert wide.tolist() == [[6, 0, 7, 28]] * 2


NAMES = {name: "".join(part.capitalize() for part in name.split("_")) for name in CHANGES}
NAMES |= {"autocontrast": "AutoContrast"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_trivial_change_is_torchvisions(name):
    theirs = v2.TrivialAugmentWide()
    image = torch.rand(3, 40, 36)
    amounts, signed = theirs._AUGMENTATION_SPACE[NAMES[name]]
    magnitudes = amounts(BINS, 40, 36)
    assert signed == CHANGES[name][1]
    for step in (0, 7, BINS - 1):
        amount = 0.0 if magnitudes is None else float(magnitudes[step])
        for negative in (False, True) if signed else (False,):
            expected = theirs._apply_image_or_video_transform(
                image, NAMES[name], -amount if negative else amount, InterpolationMode.NEAREST, {}
            )
            torch.testing.assert_close(changed(image, name, step, negative), expected.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "make",
    [lambda: ResizedCrop((0.5, 0.2)), lambda: ResizedCrop(ratio=(2.0, 1.0)), lambda: Blur((2.0, 1.0)),
     lambda: ColorJitter(hue=0.7), lambda: Grey(1.5), lambda: ResizedCrop((0.0, 1.0))],
)  # fmt: skip
def test_ranges_of_photographs_augmentations_are_checked(make):
    with pytest.raises(ValueError, match="must be"):
        make()
