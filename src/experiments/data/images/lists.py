"""Find images and their classes: in folders, or in a table."""

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.data.images.files import SUFFIXES, files_below
from experiments.data.splits import SPLIT_NAMES, split_folders
from experiments.errors import UserError, did_you_mean

log = logging.getLogger(__name__)
File = tuple[Path, int]  # an image and its class
SPLIT_COLUMN = "split"  # which a table need not have


@dataclass
class ImageLists:
    """The images of each existing split; ``train`` always exists."""

    class_names: tuple[str, ...]
    files: dict[str, list[File]]
    sources: list[str]  # where they are from, those of train first
    ignored: int = 0  # other files
    other_folders: list[str] = field(default_factory=list)


def find_images_in_folder(root: Path) -> ImageLists:
    """Images in ``<root>/<split>/<class>``, or in ``<root>/<class>`` where there is no folder ``train``.

    Raises:
        UserError: if there are fewer than two classes, or one without an image.
    """
    folders, others = split_folders(root)
    left_out: tuple[str, ...] = ()
    if "train" not in folders:
        left_out = tuple(folder.name for folder in folders.values())
        folders, others = {"train": root, **folders}, []
    names = tuple(name for name in _folders_in(folders["train"], root) if name not in left_out)
    if not names:
        raise UserError(
            f"{root} holds no images to train on: they belong in {root / '<class>'} or {root / 'train' / '<class>'}"
        )
    if len(names) < 2:
        nested = next((name for name in names if "train" in split_folders(root / name)[0]), None)
        hint = f" Type data.root={root / nested}" if nested else did_you_mean(names[0], list(SPLIT_NAMES["train"]))
        raise UserError(f"{folders['train']} holds one class, {names[0]}; there must be at least 2.{hint}")
    if folders["train"] == root and (shared_names := _subfolders_in_every_class(root, names)):
        each = f"each holds folders {', '.join(shared_names)}"
        if any(_is_like_a_split(name) for name in names):
            raise UserError(
                f"{', '.join(names)} in {root} are no classes: {each}. "
                "Call the folder of images to train on train, the others val and test"
            )
        log.warning("%s in %s are taken for the classes; %s", ", ".join(names), root, each)
    lists = ImageLists(names, {}, [folder.resolve().name for folder in folders.values()], other_folders=others)
    for split, folder in folders.items():
        lists.ignored += sum(path.is_file() for path in folder.glob("[!.]*"))
        lists.files[split] = []
        for name in names if folder == root else _folders_in(folder, root):
            if name not in names:
                raise UserError(f"{folder / name} is no class of {folders['train']}: {', '.join(names)}")
            files = files_below(folder / name)
            images = [path for path in files if path.suffix.lower() in SUFFIXES]
            if not images and split == "train":  # val and test may lack a class
                raise UserError(f"{folder / name} holds no image (of {', '.join(SUFFIXES)})")
            lists.ignored += len(files) - len(images)
            lists.files[split] += [(path, names.index(name)) for path in images]
    return lists


def _subfolders_in_every_class(root: Path, names: Sequence[str]) -> list[str]:
    """The folders, at least two, that every one of a folder's folders has and that hold all of its images."""
    shared = set.intersection(*({path.name for path in (root / name).glob("[!.]*/")} for name in names))
    direct = any(path.suffix.lower() in SUFFIXES for name in names for path in (root / name).glob("[!.]*"))
    return sorted(shared) if len(shared) > 1 and not direct else []


def _is_like_a_split(name: str) -> bool:
    words = re.split(r"[\W_\d]+", name.lower())
    return any(word in names for names in SPLIT_NAMES.values() for word in words)


def _read(rows: "csv.DictReader[str]", table: Path) -> Iterator[dict[str, str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(f"{table} is no CSV file: line {rows.line_num}: {error}") from error


def _folders_in(folder: Path, root: Path) -> list[str]:
    layout = f"images belong in {root / '<class>'} or {root / 'train' / '<class>'}; data.root names the folder"
    try:
        found = [entry.name for entry in sorted(folder.glob("[!.]*")) if entry.is_dir()]
        folder.stat()  # glob says nothing of a folder that is missing
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}; {layout}") from error
    if not found:
        raise UserError(f"{folder} holds no folder; {layout}")
    return found


def read_image_table(table: Path, root: Path, file_column: str, label_column: str, split_column: str) -> ImageLists:
    """Images that a CSV file names from the folder ``root``.

    Raises:
        UserError: if it cannot be read, lacks a column or a value, or names a file twice or one that is missing.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"data.table={table} cannot be read: {reason}") from error
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    columns = [name for name in rows.fieldnames or () if name]
    for key, name in (("file_column", file_column), ("label_column", label_column)):
        if name not in columns:
            near = did_you_mean(name, columns)
            raise UserError(f"{table} has no column {name}.{near} It has {', '.join(columns)}: set data.{key}=<name>")
    if split_column not in columns and split_column != SPLIT_COLUMN:
        near = did_you_mean(split_column, columns)
        raise UserError(f"{table} has no column {split_column}.{near} It has {', '.join(columns)}")
    found: dict[str, list[tuple[Path, str]]] = {}
    errors = []
    seen: dict[Path, int] = {}
    for row in _read(rows, table):
        name, label = ((row[column] or "").strip() for column in (file_column, label_column))
        split_value = (row.get(split_column) or "").strip() if split_column in columns else "train"
        split = next((one for one, names in SPLIT_NAMES.items() if split_value.lower() in names), None)
        path = root / name
        if not name or not label:
            errors.append(f"line {rows.line_num}: its {file_column if not name else label_column} is empty")
        elif split is None:
            errors.append(
                f"line {rows.line_num}: {split_column}={split_value or 'nothing'} is not one of train, val, test"
            )
        elif not path.is_file():
            errors.append(f"line {rows.line_num}: there is no file {path}")
        elif path in seen:
            errors.append(f"line {rows.line_num}: {name} stands in line {seen[path]} already")
        else:
            seen[path] = rows.line_num
            found.setdefault(split, []).append((path, label))
    if not seen and sum("there is no file" in fault for fault in errors) > 1:
        raise UserError(
            f"{table}: none of its files is in {root}. Set data.root=<the folder that they are named from>"
        )
    if errors:
        more = [f"and {len(errors) - 10} more"] if len(errors) > 10 else []
        raise UserError(f"{table} cannot be used:\n  " + "\n  ".join(errors[:10] + more))
    counts = Counter(label for _, label in found.get("train", ()))
    if len(counts) < 2:
        raise UserError(f"{table} has images to train on of {len(counts)} classes; there must be at least 2")
    if unknown := {label for files in found.values() for _, label in files} - counts.keys():
        raise UserError(f"{table} has no image to train on of {', '.join(sorted(unknown))}")
    names = sorted(counts, key=lambda label: (0, int(label), label) if label.isdecimal() else (1, 0, label))
    files = {
        split: [(path, names.index(label)) for path, label in found[split]] for split in SPLIT_NAMES if split in found
    }
    return ImageLists(tuple(names), files, [table.name])
