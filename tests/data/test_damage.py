"""Hundreds of damaged files: each ends with one message that names the file and the reason."""

import hashlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from experiments.data import CIFAR10, EMNIST, MNIST, ImageFolder
from experiments.errors import UserError
from tests.small_data import (
    pack_cifar_files,
    pack_emnist_files,
    write_cifar_files,
    write_idx_files,
    write_image_folder,
)

# ---- damages: (content, random generator) -> content


def truncated(content, draw):
    return content[: draw.randrange(len(content))]


def truncated_inside(content, draw):
    """Some formats end with bytes that carry no pixel: without them the picture is whole."""
    return content[: draw.randrange(len(content) * 3 // 4)]


def longer(content, draw):
    return content + draw.randbytes(draw.randrange(1, 100))


def flipped(content, draw):
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def emptied(content, draw):
    return b""


def text(content, draw):
    return b"<html><title>404 Not Found</title></html>"


def noise(content, draw):
    return draw.randbytes(len(content))


def magic(content, draw):
    place = draw.randrange(4)
    return content[:place] + bytes([content[place] ^ draw.randrange(1, 256)]) + content[place + 1 :]


def count(content, draw):
    """Another number of images or labels in the header."""
    return content[:4] + draw.randrange(2**32).to_bytes(4, "big") + content[8:]


def sides(content, draw):
    """Another height or width in the header of an images file."""
    place = draw.choice((8, 12))
    return content[:place] + draw.choice((0, 1, 27, 29, 2**31)).to_bytes(4, "big") + content[place + 4 :]


def label(content, draw):
    place = draw.randrange(8, len(content))
    return content[:place] + bytes([draw.randrange(10, 256)]) + content[place + 1 :]


def png(width, height, *chunks):
    """A PNG file with any size in its header."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*data) for data in chunks) + chunk(b"IEND", b"")


def bomb(content, draw):
    """A few kilobytes that would become gigabytes."""
    side = draw.randrange(10_000, 60_000)
    return png(side, side, (b"IDAT", zlib.compress(bytes(1_000_000))))


def endless_side(content, draw):
    return png(2**31 - 1, draw.randrange(1, 100), (b"IDAT", zlib.compress(bytes(1000))))


def sizeless(content, draw):
    return png(*draw.choice(((0, 5), (5, 0), (0, 0))), (b"IDAT", zlib.compress(b"")))


def postscript(content, draw):
    """What Pillow would hand to an external program, under a picture's name."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


# ---- the table: which file, which damage, how many different ones

ONCE = [(emptied, 1), (text, 1)]
CHANCE = [(truncated, 25), (noise, 10), (longer, 10), (magic, 20), (count, 15)]
SUMMED = [(truncated, 10), (flipped, 10), (longer, 4), (noise, 4)]  # files with a checksum
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
DAMAGES = {
    ("mnist", IMAGES): [*ONCE, *CHANCE, (sides, 10)],
    ("mnist", LABELS): [*ONCE, *CHANCE, (label, 15)],
    ("packed mnist", f"{IMAGES}.gz"): [*ONCE, *SUMMED],
    ("emnist", "gzip.zip"): [*ONCE, (truncated, 5), (flipped, 5)],
    ("cifar10", "data_batch_3"): [*ONCE, *SUMMED],
    ("packed cifar10", "cifar-10-python.tar.gz"): [*ONCE, (truncated, 5), (flipped, 5)],
    ("images", "000.png"): [*ONCE, (noise, 5), (bomb, 5), (endless_side, 5), (sizeless, 3), (truncated_inside, 12)],
    ("images", "001.jpg"): [(postscript, 1), (truncated_inside, 12)],
    ("images", "002.bmp"): [(truncated_inside, 12)],
    ("images", "003.webp"): [(truncated_inside, 12)],
}
CASES = [(*file, damage, times) for file, damages in DAMAGES.items() for damage, times in damages]


def test_the_table_has_every_kind():
    assert {kind for kind, *_ in CASES} == set(WRITERS)


def read(build, *stages):
    data = build()
    data.prepare_data()
    for stage in stages or ("fit",):
        data.setup(stage)


def small_mnist(root, patch):
    write_idx_files(root / "MNIST" / "raw", 60, 20)
    return lambda: MNIST(root=str(root), val_size=20)


def small_packed_mnist(root, patch):
    folder = root / "MNIST" / "raw"
    write_idx_files(folder, 60, 20, packed=True)
    checksums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in folder.iterdir()]
    patch.setattr(datasets.MNIST, "resources", checksums)
    return lambda: MNIST(root=str(root), val_size=20)


def small_emnist(root, patch):
    folder = root / "EMNIST" / "raw"
    write_idx_files(folder, 60, 20, packed=True, prefixes=("emnist-digits-train", "emnist-digits-test"))
    pack_emnist_files(folder, patch)
    return lambda: EMNIST(root=str(root), val_size=20, split="digits")


def small_cifar10(root, patch):
    write_cifar_files(root, patch, per_batch=5)
    return lambda: CIFAR10(root=str(root), val_size=10)


def small_packed_cifar10(root, patch):
    folder = write_cifar_files(root, patch, per_batch=5)
    pack_cifar_files(folder, patch)
    folder.rename(root / "elsewhere")
    return lambda: CIFAR10(root=str(root), val_size=10)


def small_images(root, patch):
    write_image_folder(root, ("train", "test"), per_class=4)
    return lambda: ImageFolder(root=str(root), cache=str(root / "cache"))


WRITERS = {
    "mnist": small_mnist,
    "packed mnist": small_packed_mnist,
    "emnist": small_emnist,
    "cifar10": small_cifar10,
    "packed cifar10": small_packed_cifar10,
    "images": small_images,
}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write whole files of one kind; returns the data set over them."""
    return lambda kind: WRITERS[kind](tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "name", "damage", "times"), CASES, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_damaged_file_ends_with_a_message_that_names_it(make, tmp_path, capfd, kind, name, damage, times):
    build = make(kind)
    path = next(path for path in sorted(tmp_path.rglob(name)) if "elsewhere" not in path.parts)
    whole, draw = path.read_bytes(), random.Random(f"{kind} {name} {damage.__name__}")
    seen = {whole}
    while len(seen) <= times:
        content = damage(whole, draw)
        if content in seen:
            continue
        seen.add(content)
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read(build)
        message = str(caught.value)
        assert name in message
        assert len(message) < 600
        assert len(message.replace(str(path), "").strip()) > 20  # it says more than the name
    assert capfd.readouterr().err == ""
    path.write_bytes(whole)
    read(build)  # it was whole before


def test_files_in_each_others_place_are_noticed(make, tmp_path):
    build = make("mnist")
    folder = tmp_path / "MNIST" / "raw"
    names = [f"{split}-{kind}" for split in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    whole = {name: (folder / name).read_bytes() for name in names}
    for first in names:
        for second in names[names.index(first) + 1 :]:
            (folder / first).write_bytes(whole[second])
            (folder / second).write_bytes(whole[first])
            with pytest.raises(UserError, match="-ubyte"):
                read(build, "fit", "test")
            for name in (first, second):
                (folder / name).write_bytes(whole[name])


def test_a_cifar10_batch_in_anothers_place_and_a_missing_one_are_named(make, tmp_path):
    build = make("cifar10")
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "data_batch_1").rename(folder / "other")
    (folder / "data_batch_2").rename(folder / "data_batch_1")
    (folder / "other").rename(folder / "data_batch_2")
    with pytest.raises(UserError, match="data_batch_1 does not match its checksum"):
        build().setup("fit")
    (folder / "data_batch_1").unlink()
    with pytest.raises(UserError, match="data_batch_1 cannot be read: No such file"):
        build().setup("fit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train" / "bird").mkdir(), "train/bird holds no image"),
        (lambda root: (root / "test" / "bird").mkdir(), "test/bird is no class of .*train: cat, dog"),
        (
            lambda root: (root / "train").rename(root / "trian"),
            "holds one class, trian;.* Did you mean train",
        ),
        (
            lambda root: (root / "train" / "dog").rename(root / "dog"),
            "holds one class, cat; there must be at least 2",
        ),
        (
            lambda root: [(root / "train" / name).rename(root / name) for name in ("cat", "dog")],
            "train holds no folder",
        ),
    ],
)
def test_a_folder_that_is_no_image_folder_is_refused_on_construction(make, tmp_path, change, message):
    build = make("images")
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        build()


def test_all_unreadable_images_are_listed_at_once(make, tmp_path):
    build = make("images")
    for path in sorted((tmp_path / "train" / "dog").iterdir())[:3]:
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)^3 of 8 images cannot be read; mend .*000.png.*001.jpg.*002.bmp"):
        build().prepare_data()
    assert not list(tmp_path.glob("cache/[!.]*"))
    assert not list(tmp_path.glob("cache/*writing"))


def test_an_image_that_only_lost_its_end_mark_is_whole():
    """Why truncation is tested well inside: what is accepted lost no pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    with Image.open(io.BytesIO(buffer.getvalue()[:-8])) as image:
        assert np.array_equal(np.asarray(image), pixels)
