"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 x 32 in 10 and 100 classes.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The publisher's
*binary* archives: records of one label byte (CIFAR-100: a coarse and a fine one, of which the fine
one counts) and 3072 bytes, 1024 of each colour, rows first. The Python version of the same archives
holds pickles and is not read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from wemem.data.dataset import Dataset
from wemem.data.loaders.images import Channels, Labels, Pixels, image_dataset
from wemem.data.loaders.published import Published, download, in_folder, own_copy
from wemem.errors import InputError
from wemem.files.archive import walk_tgz
from wemem.files.input_files import is_folder, list_folder, read_bytes, require_file
from wemem.files.memory_limit import require_memory
from wemem.files.npz import read_npz

PIXELS = 3 * 32 * 32
#: Bytes of an unfolded archive; the larger one, CIFAR-100's, has 184,470,016.
SIZE_LIMIT = 2**28


@dataclass(frozen=True)
class Cifar:
    """The format of one of the two data sets.

    Args:
        name: the name of the source.
        classes: the number of classes.
        labels: the number of label bytes of a record, of which the last one counts.
        folder: the name of the folder within the archive.
        files: patterns of the files in that folder; the test images last.
        archive: the published file.
        channels: means and deviations of the training images.
    """

    name: str
    classes: int
    labels: int
    folder: str
    files: tuple[str, ...]
    archive: Published
    channels: Channels

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return self.labels + PIXELS


CIFAR10 = Cifar(
    "cifar10", 10, 1, "cifar-10-batches-bin", ("data_batch_?.bin", "test_batch.bin"),
    Published(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    Channels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)  # fmt: skip
CIFAR100 = Cifar(
    "cifar100", 100, 2, "cifar-100-binary", ("train.bin", "test.bin"),
    Published(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", 168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", "03b5dce01913d631647c71ecec9e9cb8",
    ),
    Channels((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
)  # fmt: skip


def load_cifar(kind: Cifar, path: Path | None, *, records: int | None, limit: int) -> Dataset:
    """Load the training and test images, joined.

    Args:
        kind: the data set to load.
        path: the binary archive; its unpacked ``.bin`` files, one of them or their folder; an
            ``.npz`` with uint8 arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` or ``x``,
            ``y`` (images ``(N, 32, 32, 3)``); or a folder that holds one of these. If None, the
            environment variable ``WEMEM_DATA``; if that is not set, the archive is downloaded once
            and compared with its published checksum. A local copy may have fewer records.
        records: the number of records to draw, see :func:`~wemem.data.loaders.images.draw_records`;
            all if None.
        limit: the largest number of bytes that loading may take.

    Raises:
        InputError: no such file, one that is not of that format, or no connection.
    """
    local = own_copy(path)
    if local is None:
        local = download(kind.archive, f"set WEMEM_DATA to a folder that holds {kind.archive.name}")
    elif is_folder(local, kind.name) and not matching(local, kind.files[-1:]):
        local = in_folder(local, [f"{kind.name}*.npz", kind.archive.name, kind.folder])
    read = reader_of(local, kind)
    pixels, labels = read(local, kind, limit)
    if len(labels) and labels.max() >= kind.classes:
        raise InputError(f"{local}: expected classes 0..{kind.classes - 1}, got {labels.max()}; is it {kind.name}?")
    return image_dataset(kind.name, pixels, labels, kind.classes, kind.channels, records=records, limit=limit)


Read = Callable[[Path, Cifar, int], tuple[Pixels, Labels]]


def reader_of(path: Path, kind: Cifar) -> Read:
    """The reader for the file or folder at ``path``, by its name."""
    if is_folder(path, kind.name) or path.suffix == ".bin":
        return of_files
    if path.suffix == ".npz":
        return of_npz
    if path.name.endswith((".tar.gz", ".tgz")):
        return of_archive
    raise InputError(
        f"{kind.name}: expected .tar.gz, .npz, .bin or a folder of .bin files, got {path}; give one of these"
    )


def of_archive(path: Path, kind: Cifar, limit: int) -> tuple[Pixels, Labels]:
    """Read the images of the binary archive, from any folder in it."""
    require_memory(SIZE_LIMIT, limit, str(path))
    contents: dict[str, bytes] = {}

    def visit(place: PurePosixPath, stream: IO[bytes]) -> None:
        if any(fnmatch(place.name, pattern) for pattern in kind.files):
            contents[place.name] = stream.read()

    walk_tgz(path, visit, size_limit=SIZE_LIMIT)
    return joined(path, kind, contents)


def of_files(path: Path, kind: Cifar, limit: int) -> tuple[Pixels, Labels]:
    """Read the images of one ``.bin`` file, or of all files of the data set in a folder."""
    files = matching(path, kind.files) if is_folder(path, kind.name) else [path]
    what = f"images of {kind.name}"
    sizes = [require_file(file, what).stat().st_size for file in files]
    require_memory(2 * sum(sizes), limit, str(path))
    contents = [read_bytes(file, what, limit=size) for file, size in zip(files, sizes, strict=True)]
    return joined(path, kind, {file.name: content for file, content in zip(files, contents, strict=True)})


def matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of a folder whose names match one of the patterns."""
    entries = list_folder(folder, f"a folder of {patterns[-1]}")
    return [entry for pattern in patterns for entry in entries if fnmatch(entry.name, pattern)]


def joined(path: Path, kind: Cifar, contents: dict[str, bytes]) -> tuple[Pixels, Labels]:
    """Join the records of several files in the order of their names, with the test images last."""
    if not contents:
        raise InputError(f"{path}: expected {' and '.join(kind.files)}, got neither; get {kind.archive.url}")
    ordered = sorted(contents, key=lambda name: (name.startswith("test"), name))
    rows = []
    for name in ordered:
        if not contents[name] or len(contents[name]) % kind.record:
            raise InputError(
                f"{path}: expected {name} to hold records of {kind.record} bytes, got {len(contents[name])} bytes; "
                f"get {kind.archive.url}"
            )
        rows.append(np.frombuffer(contents[name], np.uint8).reshape(-1, kind.record))
    table = np.concatenate(rows)
    return table[:, kind.labels :].reshape(-1, 3, 32, 32), table[:, kind.labels - 1].astype(np.int64)


def of_npz(path: Path, kind: Cifar, limit: int) -> tuple[Pixels, Labels]:
    """Read the images of an ``.npz`` file, the training part first where there are two."""
    parts = [("x_train", "y_train"), ("x_test", "y_test")]
    try:
        arrays = read_npz(path, [name for pair in parts for name in pair], limit=limit)
    except InputError as error:
        if "expected an array" not in str(error):
            raise
        arrays = read_npz(path, ["x", "y"], limit=limit)
    pixels = [_channels_first(path, x) for x in arrays[0::2]]
    labels = [_labels(path, y, len(x)) for x, y in zip(pixels, arrays[1::2], strict=True)]
    return np.concatenate(pixels), np.concatenate(labels)


def _channels_first(path: Path, x: np.ndarray[Any, Any]) -> Pixels:
    if x.dtype == np.uint8 and x.shape[1:] == (32, 32, 3):
        return x.transpose(0, 3, 1, 2)
    raise InputError(f"{path}: expected uint8 images (N, 32, 32, 3), got {x.dtype} {x.shape}; convert them")


def _labels(path: Path, y: np.ndarray[Any, Any], count: int) -> Labels:
    if y.dtype.kind not in "iu" or y.shape != (count,) or (count and y.min() < 0):
        raise InputError(
            f"{path}: expected {count} whole-number labels of 0 or more, got {y.dtype} {y.shape}; convert them"
        )
    return y.astype(np.int64)
