"""Images that a table lists."""

from pathlib import Path
from typing import Any

from experiments.data.images.folder import ImageFolder
from experiments.data.images.lists import ImageLists, read_image_table


class ImageTable(ImageFolder):
    """Images that a CSV file lists, a line each: the file and its class; see ``ImageFolder`` for the rest.

    A column ``split`` says which images to train on (``train``), validate with (``val``) and test with (``test``);
    without it, or without one of the latter two, they are drawn. The columns may stand in any order, beside others.

    Args:
        table: a CSV file with a header; columns are separated by commas, semicolons or tabs.
        root: the folder that files are named from; None for that of the table.
        file_column: the name of the column with files.
        label_column: of that with classes.
        split_column: of that with splits, if there is one.
        options: those of ``ImageFolder``.
    """

    def __init__(
        self,
        table: str,
        root: str | None = None,
        file_column: str = "file",
        label_column: str = "label",
        split_column: str = "split",
        **options: Any,
    ) -> None:
        self.table = Path(table).expanduser()
        self.columns = (file_column, label_column, split_column)
        super().__init__(root=root or str(self.table.parent), **options)

    def find_images(self) -> ImageLists:
        """The images of each split that the table names."""
        return read_image_table(self.table, self.root, *self.columns)
