import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from experiments.data.images.files import decode, find, refusing_decompression_bombs, to_input
from experiments.errors import UserError

GREY, COLOUR = (1, 28, 28), (3, 28, 28)


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def saved(image, path, **options):
    image.save(path, **options)
    return path


def test_an_image_of_the_networks_size_is_untouched(tmp_path):
    grey, colour = noise(28, 28), noise(28, 28, 3)
    path = saved(Image.fromarray(grey.numpy()), tmp_path / "grey.png")
    assert to_input(path, GREY).equal(grey[None])
    assert to_input(str(path), COLOUR).equal(grey.expand(3, 28, 28))
    path = saved(Image.fromarray(colour.numpy()), tmp_path / "colour.png")
    assert to_input(path, COLOUR).equal(colour.permute(2, 0, 1))
    assert to_input(path, COLOUR, invert=True).equal(255 - colour.permute(2, 0, 1))


@pytest.mark.parametrize("size", [(100, 64), (8, 300), (20, 20), (28, 56)])
def test_resizing_is_torchs_bilinear_with_antialiasing_of_what_lies_in_the_middle(size):
    image, side = noise(3, *size), min(size)
    above, left = ((length - side) // 2 for length in size)
    truth = F.interpolate(
        image[None, :, above : above + side, left : left + side].float(),
        size=(28, 28),
        mode="bilinear",
        antialias=True,
    )[0]
    inside = (..., slice(3, -3), slice(3, -3))  # at a cut, Pillow looks at what lies beyond, too
    # Pillow rounds after each direction
    assert (to_input(image, COLOUR).float() - truth)[inside].abs().max() <= 1.01


def test_grey_is_the_luma_of_the_colour():
    colour = noise(3, 28, 28)
    truth = (colour.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    assert (to_input(colour, GREY)[0] - truth).abs().max() < 0.6


MODES = {  # one pixel of a darker and one of a lighter grey, in every mode that a file can have
    "1": (0, 255), "L": (51, 204), "P": (51, 204), "RGB": ((51,) * 3, (204,) * 3), "RGBX": ((51,) * 4, (204,) * 4),
    "RGBA": ((51, 51, 51, 255), (204, 204, 204, 255)), "RGBa": ((51, 51, 51, 255), (204, 204, 204, 255)),
    "LA": ((51, 255), (204, 255)), "PA": ((51, 255), (204, 255)), "CMYK": ((0, 0, 0, 204), (0, 0, 0, 51)),
    "YCbCr": ((51, 128, 128), (204, 128, 128)), "HSV": ((0, 0, 51), (0, 0, 204)),
    "LAB": ((54, 128, 128), (209, 128, 128)),
    "I;16": (51 * 257, 204 * 257), "I;16B": (51 * 257, 204 * 257), "I": (51 * 257, 204 * 257), "F": (0.2, 0.8),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_read(mode):
    image = Image.new(mode, (2, 1))
    for column, value in enumerate(MODES[mode]):
        image.putpixel((column, 0), value)
    if mode in ("P", "PA"):
        image.putpalette([level for level in range(256) for _ in range(3)])
    truth = torch.tensor(MODES["1"] if mode == "1" else MODES["L"])
    for channels in (1, 3):
        values = to_input(image, (channels, 1, 2)).int()
        assert (values - truth).abs().max() <= (2 if mode == "LAB" else 0), values


def test_a_16_bit_file_is_scaled_not_cut(tmp_path):
    grey = noise(28, 28)
    path = saved(Image.fromarray(grey.numpy().astype(np.uint16) * 257), tmp_path / "deep.png")
    assert to_input(path, GREY).equal(grey[None])


def test_integers_of_32_bits_count_to_255_or_to_65535():
    small = Image.fromarray(np.array([[0, 200]], dtype=np.int32))
    assert to_input(small, (1, 1, 2)).tolist() == [[[0, 200]]]
    with pytest.raises(ValueError, match="not within 0 to 65535"):
        to_input(Image.fromarray(np.array([[0, -200]], dtype=np.int32)), (1, 1, 2))
    with pytest.raises(ValueError, match="nan"):
        to_input(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), (1, 1, 2))


@pytest.mark.parametrize("name", ["alpha.png", "palette.png", "palette.gif"])
def test_transparency_is_laid_on_white(tmp_path, name):
    if name == "alpha.png":
        image, options = Image.new("RGBA", (28, 28), (0, 0, 0, 255)), {}
        image.paste((0, 0, 0, 0), (0, 0, 14, 28))
    else:  # two blacks, one of them transparent
        image, options = Image.new("P", (28, 28), 1), {"transparency": 0}
        image.putpalette([0] * 6)
        image.paste(0, (0, 0, 14, 28))
    values = to_input(saved(image, tmp_path / name, **options), GREY)[0]
    assert (values[:, :14] == 255).all()
    assert (values[:, 14:] == 0).all()


def test_a_photo_is_turned_as_its_exif_tag_says(tmp_path):
    values = torch.zeros(28, 28, dtype=torch.uint8)
    values[:, :14] = 255  # light on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise brings it upright: light on top
    path = saved(Image.fromarray(values.numpy()), tmp_path / "photo.png", exif=exif)
    assert to_input(path, GREY)[0].equal(values.rot90(-1))


def test_the_first_frame_stands_for_an_animation(tmp_path):
    frames = [Image.new("L", (28, 28), level) for level in (10, 200)]
    path = saved(frames[0], tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert (to_input(path, GREY) == 10).all()


def broken_files(folder):
    whole = saved(Image.fromarray(noise(64, 64).numpy()), folder / "whole.png").read_bytes()
    contents = {
        "empty.png": b"",
        "text.png": b"no image",
        "truncated.png": whole[: len(whole) // 2],
        "damaged.png": whole[:200] + bytes(100) + whole[300:],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    saved(Image.new("L", (28, 28)), folder / "program.eps")
    return [folder / name for name in (*contents, "program.eps", "missing.png")]


def test_what_cannot_be_read_raises_with_a_reason(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(ValueError, match=r".+"):
            to_input(path, GREY)


@pytest.mark.parametrize("pixels", [150, 1000])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, pixels):
    path = saved(Image.new("L", (pixels, 1)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with refusing_decompression_bombs(), pytest.raises(ValueError, match="decompression bomb"):
        to_input(path, GREY)
    before = list(warnings.filters)
    with refusing_decompression_bombs():
        pass
    assert warnings.filters == before


@pytest.mark.parametrize("image", [torch.zeros(28, 28), torch.zeros(2, 28, 28, dtype=torch.uint8)])
def test_tensors_of_another_kind_are_refused(image):
    with pytest.raises(ValueError, match="a tensor of"):
        to_input(image, GREY)


def test_a_file_a_folder_and_a_glob_name_images(tmp_path):
    names = ["b.png", "a.JPG", "sub/c.tif", "sub/.hidden.png", "notes.txt", "weird[1].png"]
    (tmp_path / "sub" / "folder.png").mkdir(parents=True)
    for name in names:
        (tmp_path / name).touch()

    def found(images):
        return [str(path.relative_to(tmp_path)) for path in find(images)]

    assert found(tmp_path) == ["a.JPG", "b.png", "sub/c.tif", "weird[1].png"]
    assert found(tmp_path / "weird[1].png") == ["weird[1].png"]
    assert found(f"{tmp_path}/*.png") == ["b.png", "weird[1].png"]
    assert found(f"{tmp_path}/**/*.t*") == ["notes.txt", "sub/c.tif"]
    for nothing in (tmp_path / "none.png", tmp_path / "sub" / "folder.png", f"{tmp_path}/*.bmp"):
        with pytest.raises(UserError, match="names no image"):
            find(nothing)


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("grey.png", "L", (96, 32)),
        ("colour.png", "RGB", (20, 50)),
        ("deep.png", "I;16", (30, 30)),
        ("photo.jpg", "RGB", (300, 200)),
        ("lab.tif", "LAB", (40, 40)),
    ],
)
def test_an_image_to_be_predicted_is_prepared_as_one_of_a_folder_to_train_on(tmp_path, name, mode, size):
    path, (width, height) = tmp_path / name, size
    values = noise(3, height, width).permute(1, 2, 0).numpy()
    dark = Image.fromarray(values[..., 0].astype("uint16"))  # 16 bits, of which little is used
    bright = Image.fromarray(values)
    if mode == "LAB":
        bright = Image.frombytes("LAB", bright.size, bright.tobytes())
    (dark if mode == "I;16" else bright.convert(mode)).save(path)
    for shape in (GREY, COLOUR):
        assert to_input(path, shape).equal(torch.from_numpy(decode(path, shape).copy()))
