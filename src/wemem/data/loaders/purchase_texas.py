"""Purchase-100 and Texas-100: tables used by membership inference since 2017.

Source: Shokri, Stronati, Song, Shmatikov, "Membership Inference Attacks Against Machine Learning
Models", IEEE S&P 2017. Purchase-100: 197,324 shoppers, 600 products bought or not, 100 clusters of
shoppers. Texas-100: 67,330 hospital stays, 6,169 attributes present or not, the 100 most frequent
procedures.

There is no published checksum of these archives, so they are not downloaded; the user brings a
copy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from jaxtyping import Int64, UInt8

from wemem.data.dataset import Dataset
from wemem.data.loaders.images import draw_records
from wemem.data.loaders.published import in_folder, own_copy
from wemem.errors import InputError
from wemem.files.archive import walk_tgz
from wemem.files.input_files import exists, is_folder, open_file
from wemem.files.memory_limit import require_memory

CLASSES = 100
#: Bytes of an unfolded archive; that of Texas-100 has about 0.83 GB.
SIZE_LIMIT = 2**30


@dataclass(frozen=True)
class BinaryTable:
    """Records of 0 and 1 with a class 1..100, as text.

    Args:
        name: the name of the data set.
        features: the number of features.
        archive: the name of the published file.
        files: the names of the text files in it: the features, and the classes if they have a file
            of their own; if not, the class is the first value of each line.
        url: the address of a page with the archive.
    """

    name: str
    features: int
    archive: str
    files: tuple[str, ...]
    url: str


PURCHASE100 = BinaryTable(
    "purchase100", 600, "dataset_purchase.tgz", ("dataset_purchase",),
    "https://github.com/privacytrustlab/datasets",
)  # fmt: skip
TEXAS100 = BinaryTable(
    "texas100", 6169, "dataset_texas.tgz", ("feats", "labels"), "https://github.com/privacytrustlab/datasets",
)  # fmt: skip

Bits = UInt8[np.ndarray, " F"]


def load_binary_table(kind: BinaryTable, path: Path | None, *, records: int | None, limit: int) -> Dataset:
    """Load all records, or some drawn in the classes' proportions.

    Args:
        kind: the data set to load.
        path: the archive, the text file (of Texas-100 the folder with ``feats`` and ``labels``), or
            a folder that holds one of them; if None, the environment variable ``WEMEM_DATA``.
        records: the number of records to draw, see :func:`~wemem.data.loaders.images.draw_records`;
            all if None.
        limit: the largest number of bytes that loading may take.

    Raises:
        InputError: no path at all, no such file, or one that is not of that format.
    """
    local = own_copy(path)
    if local is None:
        raise InputError(
            f"{kind.name}: expected a path, got none; no checksum of it is published, so get {kind.archive} from "
            f"{kind.url} yourself and give its path, or set WEMEM_DATA to its folder"
        )
    folder = local if is_folder(local, kind.name) else local.parent
    if folder == local and not exists(local / kind.files[0], kind.name):
        local = in_folder(local, [kind.archive])
    reader = _Lines(kind, limit)
    if local.name.endswith((".tgz", ".tar.gz")):
        walk_tgz(local, reader.visit, size_limit=SIZE_LIMIT)
    else:
        names = [local.name] if len(kind.files) == 1 and folder != local else kind.files
        for i, name in enumerate(names):
            with open_file(folder / name, f"the table {kind.files[i]} of {kind.name}") as stream:
                reader.visit(PurePosixPath(kind.files[i]), stream)
    return reader.dataset(local, records)


class _Lines:
    """A reader of the table's files, line by line."""

    def __init__(self, kind: BinaryTable, limit: int) -> None:
        self.kind, self.limit = kind, limit
        self.rows: list[Bits] = []
        self.classes: list[int] = []

    def visit(self, place: PurePosixPath, stream: IO[bytes]) -> None:
        """Read one file of the archive, if it belongs to the table."""
        if place.name not in self.kind.files or (len(self.kind.files) > 1 and place.parts[-2:-1] not in ((), ("100",))):
            return
        first = place.name == self.kind.files[0]
        together = len(self.kind.files) == 1
        longest = 2 * self.kind.features + 16
        for number, line in enumerate(_lines(stream, longest), 1):
            where = f"{place}, line {number}"
            if together:
                label, _, line = line.partition(b",")
                self.classes.append(_class(label, where))
            if first:
                self.rows.append(_bits(line, self.kind.features, where))
                # As bytes while they are read, as float32 afterwards; the overhead of rows is
                # within the difference.
                require_memory(6 * self.kind.features * len(self.rows), self.limit, self.kind.name)
            else:
                self.classes.append(_class(line, where))

    def dataset(self, path: Path, records: int | None) -> Dataset:
        """Build the data set from the lines that were read, if there is a class for each."""
        if not self.rows or len(self.rows) != len(self.classes):
            raise InputError(
                f"{path}: expected {' and '.join(self.kind.files)} of equally many records, got {len(self.rows)} and "
                f"{len(self.classes)}; get {self.kind.archive} from {self.kind.url}"
            )
        labels: Int64[np.ndarray, " N"] = np.array(self.classes, np.int64) - 1
        chosen = draw_records(labels, records)
        features = np.empty((len(chosen), self.kind.features), np.float32)
        for row, i in enumerate(chosen):
            features[row] = self.rows[i]
        drawn_from = len(labels) if len(chosen) < len(labels) else None
        return Dataset(self.kind.name, features, labels[chosen], CLASSES, drawn_from=drawn_from)


def _lines(stream: IO[bytes], longest: int) -> Iterable[bytes]:
    """Lines without their ends; a line that is too long is cut, and then refused by its parser."""
    return (line.rstrip(b"\r\n") for line in iter(partial(stream.readline, longest), b""))


def _class(text: bytes, where: str) -> int:
    digits = text.strip(b' "')
    if not (digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= CLASSES):
        raise InputError(f"{where}: expected a class 1..{CLASSES}, got {text[:20]!r}; get the published file")
    return int(digits)


def _bits(line: bytes, count: int, where: str) -> Bits:
    values = np.frombuffer(line, np.uint8)
    if len(values) != 2 * count - 1 or (values[1::2] != ord(",")).any() or (values[::2] & 0xFE != ord("0")).any():
        raise InputError(f"{where}: expected {count} values 0 or 1, got {line[:20]!r}...; get the published file")
    return values[::2] & 1
