import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from experiments.data import ImageFolder
from experiments.data.images import files as image_files
from experiments.data.images import folder as image_folder
from experiments.errors import UserError
from tests.small_data import write_image_folder


def ready(root, **options):
    data = ImageFolder(root=str(root), **options)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def sizes(data):
    return {name: len(split) for name, split in data.splits.items()}


def test_without_val_and_test_the_split_is_stratified_and_fixed(tmp_path):
    write_image_folder(tmp_path, per_class=30)
    data = ready(tmp_path)
    assert data.num_classes == 2
    assert data.class_names == ("cat", "dog")
    assert data.image_shape == (3, 32, 32)
    assert sizes(data) == {"train": 49, "val": 5, "test": 6}
    assert torch.bincount(data.splits["test"].tensors[1]).tolist() == [3, 3]
    again = ready(tmp_path, seed=7, cache=str(tmp_path / "other"))
    for name, split in data.splits.items():
        assert split.tensors[0].equal(again.splits[name].tensors[0])
    images = {name: {bytes(image.numpy()) for image in split.tensors[0]} for name, split in data.splits.items()}
    assert sum(map(len, images.values())) == len(set.union(*images.values())) == 60
    assert data.note == "60 images in 2 classes of train; val and test drawn from train"


def test_folders_val_and_test_are_taken_as_they_are(tmp_path):
    write_image_folder(tmp_path, ("train", "val", "test"), per_class=5)
    data = ready(tmp_path, image_size=[16, 24], mode="L")
    assert sizes(data) == {"train": 10, "val": 10, "test": 10}
    assert data.image_shape == (1, 16, 24)
    assert data.splits["val"].tensors[1].tolist() == [0] * 5 + [1] * 5
    folds = [ready(tmp_path, num_folds=4, fold=fold) for fold in range(4)]
    validation = [bytes(image.numpy()) for data in folds for image in data.splits["val"].tensors[0]]
    assert len(set(validation)) == len(validation) == 20  # train and val together
    assert sizes(folds[0]) == {"train": 15, "val": 5, "test": 10}


def test_an_image_is_scaled_to_cover_and_cut_around_its_centre(tmp_path):
    write_image_folder(tmp_path, ("train", "test"), per_class=4)
    data = ready(tmp_path, image_size=20)
    for (path, label), image, stored in zip(data.files["test"], *data.read("test"), strict=True):
        assert stored == label
        with Image.open(path) as opened:
            truth = ImageOps.fit(opened.convert("RGB"), (20, 20), Image.Resampling.BILINEAR)
        assert image.equal(torch.from_numpy(np.array(truth)).permute(2, 0, 1))


def test_mean_and_std_are_those_outside_the_test_split_and_known_before_set_up(tmp_path):
    write_image_folder(tmp_path, ("train", "test"), per_class=6)
    data = ImageFolder(root=str(tmp_path))
    mean, std = data.mean, data.std
    images = data.read("train")[0][:].double() / 255
    assert mean == pytest.approx(images.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(images.std((0, 2, 3)).tolist(), abs=1e-3)


def ramp(mode):
    """A grey ramp in any mode that some file format takes."""
    values = np.arange(0, 256, 4, dtype=np.uint8)[None].repeat(32, 0)
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(values.astype(np.float32) / 255)
    if mode == "I":
        return Image.fromarray(values.astype(np.int32) * 257)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("LA", "png"), ("RGB", "png"), ("RGBA", "png"), ("P", "gif"), ("P", "png"), ("I;16", "png"),
     ("I;16", "tif"), ("I", "tif"), ("F", "tif"), ("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg"), ("RGB", "bmp"),
     ("RGB", "webp"), ("L", "JPEG"), ("RGB", "ppm")],
)  # fmt: skip
def test_any_mode_comes_out_as_what_it_shows(tmp_path, mode, suffix):
    path = tmp_path / f"ramp.{suffix}"
    ramp(mode).save(path)
    grey = image_files.decode(path, (1, 32, 64))
    colour = image_files.decode(path, (3, 32, 64))
    assert not isinstance(grey, str), grey
    truth = np.arange(0, 256, 4)[None, None].repeat(32, 1)
    assert np.abs(grey.astype(int) - truth).max() <= (6 if suffix in ("jpg", "webp", "JPEG") else 2)
    assert np.abs(colour.astype(int) - truth).max() <= (9 if suffix in ("jpg", "webp", "JPEG") else 3)


def test_what_is_transparent_is_white_and_a_bitmap_has_two_colours(tmp_path):
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :4, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "ink.png")
    Image.fromarray(pixels[:, :, 3] > 0).save(tmp_path / "bits.png")
    assert image_files.decode(tmp_path / "ink.png", (1, 8, 8))[0, 0].tolist() == [0] * 4 + [255] * 4
    assert image_files.decode(tmp_path / "bits.png", (1, 8, 8))[0, 0].tolist() == [255] * 4 + [0] * 4


def test_a_cameras_orientation_is_followed(tmp_path):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(image_files.decode(tmp_path / "turned.png", (1, 8, 8))[0], np.asarray(image)[::-1, ::-1])


def no_decoding(*arguments, **options):
    raise AssertionError("decoded again")


def test_images_are_decoded_once_and_again_when_a_file_or_an_option_changes(tmp_path, monkeypatch):
    write_image_folder(tmp_path, per_class=10)
    first = ready(tmp_path)
    names = sorted(path.suffix for path in (tmp_path / ".cache").glob("[!.]*"))
    assert names == [".json", ".json", ".pixels", ".pixels"]
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "decode", no_decoding)
        second = ready(tmp_path)
        assert second.mean == first.mean
        for name, split in first.splits.items():
            assert split.tensors[0].equal(second.splits[name].tensors[0])
        with pytest.raises(AssertionError, match="decoded again"):
            ready(tmp_path, image_size=16)
        path = first.files["train"][0][0]
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
        with pytest.raises(AssertionError, match="decoded again"):
            ready(tmp_path)


@pytest.mark.parametrize(
    "damage", ["cut", "flipped bit", "longer", "no numbers", "another mean", "no json", "no pixels"]
)
def test_a_damaged_cache_is_noticed_and_mended(tmp_path, damage):
    write_image_folder(tmp_path, ("train", "test"), per_class=4)
    first = ready(tmp_path)
    images, mean = [split.tensors[0] for split in first.splits.values()], first.mean
    (path,) = (tmp_path / ".cache").glob("train-*.pixels")
    known = path.with_suffix(".json")
    before = path.read_bytes(), known.read_text()
    if damage == "cut":
        path.write_bytes(before[0][:-1])
    elif damage == "longer":
        path.write_bytes(before[0] + b"x")
    elif damage == "flipped bit":
        middle = len(before[0]) // 2
        path.write_bytes(before[0][:middle] + bytes([before[0][middle] ^ 1]) + before[0][middle + 1 :])
    elif damage == "no numbers":
        known.write_text(before[1].replace('"checksums": [', '"checksums": [NaN, '))
    elif damage == "another mean":
        known.write_text(before[1].replace('"mean": [0.', '"mean": [0.1'))
    else:
        (known if damage == "no json" else path).unlink()
    second = ready(tmp_path)
    assert second.mean == mean
    assert all(split.tensors[0].equal(one) for split, one in zip(second.splits.values(), images, strict=True))
    assert (path.read_bytes(), known.read_text()) == before


def test_a_damaged_image_whose_file_is_gone_is_said(tmp_path):
    write_image_folder(tmp_path, ("train", "test"), per_class=4)
    data = ready(tmp_path)
    (path,) = (tmp_path / ".cache").glob("train-*.pixels")
    path.write_bytes(bytes(path.stat().st_size))
    for file, _ in data.files["train"]:
        status = file.stat()
        file.write_bytes(bytes(status.st_size))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match=r"\.pixels is damaged, and .* cannot be decoded again"):
        ready(tmp_path).splits["train"][torch.arange(2)]


def test_splits_folds_and_limits_are_indices_into_one_mapped_file(tmp_path):
    write_image_folder(tmp_path, per_class=20)
    data = ready(tmp_path, num_folds=3, fold=1, limit=12)
    train, val = data.splits["train"], data.splits["val"]
    assert train.images is val.images
    assert (len(train), len(train.indices.unique())) == (12, 12)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(train.images.path) in maps.read_text()
    batch, labels = train[torch.tensor([3, 0])]
    assert batch.equal(train.images[train.indices[[3, 0]]])
    assert labels.tolist() == train.labels[[3, 0]].tolist()
    sent = pickle.dumps(train)
    assert len(sent) < train.images.pixels.nbytes / 4  # to another process, which maps the file
    assert pickle.loads(sent)[torch.arange(12)][0].equal(train[torch.arange(12)][0])
    batch.zero_()  # a copy
    assert train[torch.tensor([3])][0].any()


def test_a_disk_that_is_full_is_told_before_decoding_and_memory_serves(tmp_path, monkeypatch, caplog):
    write_image_folder(tmp_path, ("train", "test"), per_class=4)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
        with caplog.at_level("INFO"):
            data = ready(tmp_path)
        assert "decoded images are not kept: they need 24 KiB, and 1e+03 B are free" in caplog.text
        assert sizes(data) == {"train": 6, "val": 2, "test": 8}
        assert not list((tmp_path / ".cache").glob("[!.]*"))
        patch.setattr(image_folder, "free_memory", lambda: 1000)
        patch.setattr(image_files, "decode", no_decoding)
        with pytest.raises(UserError, match="does not fit into memory.*data.cache=<a folder with"):
            ready(tmp_path, image_size=64)


def test_two_processes_decode_a_folder_once_and_what_a_killed_one_left_is_overwritten(tmp_path):
    write_image_folder(tmp_path, per_class=10)
    (tmp_path / ".cache").mkdir()
    truth = ready(tmp_path, cache=str(tmp_path / "other"))
    (path,) = (tmp_path / "other").glob("train-*.pixels")
    (tmp_path / ".cache" / f".{path.name}.writing").write_bytes(b"left")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: ready(tmp_path), range(2)))
    for data in both:
        assert data.splits["train"].tensors[0].equal(truth.splits["train"].tensors[0])
    assert sorted(one.suffix for one in (tmp_path / ".cache").iterdir() if one.name != ".lock") == [
        ".json", ".json", ".pixels", ".pixels",
    ]  # fmt: skip


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    write_image_folder(tmp_path, ("train", "test"), per_class=4)
    (tmp_path / "file").write_text("no folder")
    data = ready(tmp_path, cache=str(tmp_path / "file"))
    assert sizes(data) == {"train": 6, "val": 2, "test": 8}
    monkeypatch.setattr(image_files, "decode", no_decoding)
    assert len(data.mean) == 3  # nothing is decoded a second time


def test_what_does_not_fit_memory_is_refused_before_decoding(tmp_path, monkeypatch):
    write_image_folder(tmp_path, ("train", "test"), per_class=10)
    needed = (20 * 2 + 20) * 3 * 100 * 100
    monkeypatch.setattr(image_files, "decode", no_decoding)
    monkeypatch.setattr(image_folder, "free_memory", lambda: needed // 4)
    (tmp_path / "file").write_text("no folder")
    message = r"need 1.72 MiB at data.image_size=\[100, 100\], 439 KiB are free; data.image_size=50 would fit"
    with pytest.raises(UserError, match=message):
        ready(tmp_path, image_size=100, cache=str(tmp_path / "file"))


def test_free_memory_is_a_plausible_number():
    from experiments.data.memory import format_bytes, free_memory

    assert 2**20 < free_memory() < 2**50
    assert [format_bytes(size) for size in (5, 2048, 3 * 2**20, 5 * 2**40)] == ["5 B", "2 KiB", "3 MiB", "5 TiB"]


def test_other_files_are_counted_and_hidden_ones_passed_over(tmp_path):
    write_image_folder(tmp_path, per_class=10)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("cats")
    (tmp_path / "train" / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / "train" / "LICENSE").write_text("free")
    assert ready(tmp_path).note == (
        "20 images in 2 classes of train; val and test drawn from train; 2 other files passed over"
    )


def test_images_in_deeper_folders_belong_to_their_class(tmp_path):
    write_image_folder(tmp_path, per_class=10)
    deeper = tmp_path / "train" / "dog" / "more" / "still"
    deeper.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(deeper / "a.png")
    assert len(ready(tmp_path).files["train"]) + len(ready(tmp_path).files["test"]) == 21


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size=0"),
        ({"image_size": [8, 8, 8]}, r"data.image_size=\[8, 8, 8\]"),
        ({"mode": "CMYK"}, "mode='CMYK' must be one of RGB, L"),
        ({"val_size": 0}, "val_size=0"),
        ({"test_size": 0}, "test_size=0"),
        ({"test_size": 19}, "20 images in .*train cannot be split into train and test by class"),
    ],
)
def test_impossible_options_are_refused(tmp_path, options, message):
    write_image_folder(tmp_path, per_class=10)
    with pytest.raises((ValueError, UserError), match=message):
        ready(tmp_path, **options)


def test_links_are_followed_hidden_folders_passed_over_and_dead_links_refused(tmp_path):
    write_image_folder(tmp_path / "data", per_class=6)
    cats = tmp_path / "data" / "train" / "cat"
    before = ImageFolder(root=str(tmp_path / "data"))
    more = tmp_path / "elsewhere"
    more.mkdir()
    for number, path in enumerate(sorted(cats.iterdir())[:3]):
        (more / f"more{number}.png").write_bytes(path.read_bytes())
    (cats / "linked").symlink_to(more)
    (cats / "round").symlink_to(cats)  # a loop
    (cats / ".ipynb_checkpoints").mkdir()
    (cats / ".ipynb_checkpoints" / "cat-checkpoint.png").write_bytes((more / "more0.png").read_bytes())
    data = ImageFolder(root=str(tmp_path / "data"))
    assert sum(map(len, data.files.values())) == sum(map(len, before.files.values())) + 3
    assert len(image_files.find(tmp_path / "data")) == 12 + 3
    (cats / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"1 links below .*cat lead nowhere; mend or remove them:\n  .*gone\.png -> "):
        ImageFolder(root=str(tmp_path / "data"))


@pytest.mark.parametrize(
    "names", [("train", "validation", "TEST"), ("Train", "valid", "test"), ("training", "Val", "Testing")]
)
def test_splits_are_found_under_the_names_that_people_give_them(tmp_path, names):
    for name, per_class in zip(names, (12, 3, 2), strict=True):
        write_image_folder(tmp_path / "data" / "made", per_class=per_class)
        (tmp_path / "data" / "made" / "train").rename(tmp_path / "data" / name)
        (tmp_path / "data" / "made").rmdir()
    (tmp_path / "data" / "raw").mkdir()
    data = ready(tmp_path / "data")
    assert sizes(data) == {"train": 24, "val": 6, "test": 4}
    assert data.note == f"34 images in 2 classes of {', '.join(names)}; other folders left out: raw"
    (tmp_path / "data" / "dev").mkdir()
    with pytest.raises(UserError, match=r"are both of val: leave one of them there"):
        ImageFolder(root=str(tmp_path / "data"))


def test_a_class_without_an_image_to_test_is_told_at_the_start(tmp_path):
    for name in ("train", "test"):
        write_image_folder(tmp_path / "data" / "made", per_class=6)
        (tmp_path / "data" / "made" / "train").rename(tmp_path / "data" / name)
        (tmp_path / "data" / "made").rmdir()
    for path in sorted((tmp_path / "data" / "test" / "dog").iterdir()):
        path.unlink()
    data = ImageFolder(root=str(tmp_path / "data"))
    assert data.note == "18 images in 2 classes of train, test; val drawn from train; no image to test of dog"
