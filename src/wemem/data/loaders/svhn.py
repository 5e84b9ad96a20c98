"""SVHN: 99,289 house numbers' digits, colour images of 32 x 32, 10 classes.

Source: Netzer, Wang, Coates, Bissacco, Wu, Ng, "Reading Digits in Natural Images with Unsupervised
Feature Learning", NIPS workshop 2011, format 2 (cropped digits), the training and the test part;
the ``extra`` part is left out.
"""

from pathlib import Path

import numpy as np

from wemem.data.dataset import Dataset
from wemem.data.loaders.images import Channels, Labels, Pixels, image_dataset
from wemem.data.loaders.published import Published, download, in_folder, own_copy
from wemem.errors import InputError
from wemem.files.input_files import is_folder
from wemem.files.mat import read_mat

TRAIN = Published(
    "http://ufldl.stanford.edu/housenumbers/train_32x32.mat", 182_040_794,
    "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
)  # fmt: skip
TEST = Published(
    "http://ufldl.stanford.edu/housenumbers/test_32x32.mat", 64_275_384,
    "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
)  # fmt: skip
CHANNELS = Channels((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def load_svhn(path: Path | None, *, records: int | None, limit: int) -> Dataset:
    """Load the training and test digits, joined; class ``d`` is the digit ``d``.

    Args:
        path: a folder with ``train_32x32.mat`` and ``test_32x32.mat``, or one such file alone. If
            None, the environment variable ``WEMEM_DATA``; if that is not set, both are downloaded
            once and compared with their published checksums.
        records: the number of records to draw, see :func:`~wemem.data.loaders.images.draw_records`;
            all if None.
        limit: the largest number of bytes that loading may take.

    Raises:
        InputError: no such file, one that is not of that format, or no connection.
    """
    local = own_copy(path)
    if local is None:
        files = [download(file, f"set WEMEM_DATA to a folder that holds {file.name}") for file in (TRAIN, TEST)]
    else:
        files = [in_folder(local, [file.name]) for file in (TRAIN, TEST)] if is_folder(local, "SVHN") else [local]
    parts: list[tuple[Pixels, Labels]] = []
    for file in files:
        parts.append(digits_of(file, limit - 5 * sum(pixels.size for pixels, _ in parts)))
    pixels, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return image_dataset("svhn", pixels, labels, 10, CHANNELS, records=records, limit=limit)


def digits_of(path: Path, limit: int) -> tuple[Pixels, Labels]:
    """Read the images and digits of one file, in which a 0 is labelled 10."""
    x, y = read_mat(path, ["X", "y"], limit=limit)
    count = x.shape[-1] if x.ndim == 4 else 0
    if x.dtype != np.uint8 or x.shape != (32, 32, 3, count) or y.shape != (count, 1) or not np.isin(y, range(11)).all():
        raise InputError(
            f"{path}: expected X (32, 32, 3, N) of bytes and y (N, 1) of 1..10, got {x.dtype} {x.shape} and {y.shape} "
            f"or other values; get {TRAIN.url}"
        )
    return x.transpose(3, 2, 0, 1), y[:, 0].astype(np.int64) % 10
