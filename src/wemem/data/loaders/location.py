"""Location-30: visits of people to places in Bangkok, used by membership inference since 2017.

Source: Shokri, Stronati, Song, Shmatikov, "Membership Inference Attacks Against Machine Learning
Models", IEEE S&P 2017, from Foursquare check-ins of Yang et al. 5010 users, 446 binary features
(places and kinds of places visited), 30 clusters of users as classes.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wemem.data.dataset import Dataset
from wemem.data.loaders.published import cache_folder, own_copy
from wemem.errors import InputError
from wemem.files.archive import read_tgz_file
from wemem.files.download import fetch
from wemem.files.input_files import exists, is_folder
from wemem.files.npz import read_npz

ARCHIVE_URL = "https://raw.githubusercontent.com/privacytrustlab/datasets/master/dataset_location.tgz"
ARCHIVE = "dataset_location.tgz"
ARRAYS = "location30.npz"
CONTENT_SHA256 = "9e4c398aef3473f3872e27296e2109a3847748b81240597c9915993c90140e2c"
RECORDS, FEATURES, CLASSES = 5010, 446, 30
SIZE_LIMIT = 2**24  # the table is 4.5 MB of text

Rows = UInt8[np.ndarray, "N F"]


def load_location(path: Path | None = None) -> Dataset:
    """Load the data set, from a local copy or else from the public archive.

    There is no published checksum, so the content itself is verified, from any file: SHA-256 over
    the records as rows of 447 bytes (446 features 0/1, then the class 0..29) in lexicographic
    order. The data set has its records in that order too, so that every copy gives the same study.

    Args:
        path: ``location30.npz`` (arrays ``x``, ``y`` = 0..29), the published
            ``dataset_location.tgz``, or a folder that holds one of them; if None, the environment
            variable ``WEMEM_DATA``; if that is not set, the archive is downloaded once into
            ``$XDG_CACHE_HOME/wemem`` (``~/.cache/wemem``).

    Raises:
        InputError: no such file, a file with other content, or no connection.
    """
    path = own_copy(path)
    file = download() if path is None else find(path)
    rows = verified(file)
    return Dataset.from_arrays("location", rows[:, :-1], rows[:, -1], CLASSES)


def find(path: Path) -> Path:
    """The file at ``path``, or the one of Location-30 in the folder ``path``."""
    if not is_folder(path, "Location-30"):
        return path
    for name in (ARRAYS, ARCHIVE):
        if exists(path / name, "Location-30"):
            return path / name
    raise InputError(f"expected {ARRAYS} or {ARCHIVE} in {path}, got neither; put one there, or unset WEMEM_DATA")


def download() -> Path:
    """The path of the archive in the cache folder; it is downloaded if missing."""
    try:
        return fetch(ARCHIVE_URL, cache_folder() / ARCHIVE, size_limit=SIZE_LIMIT, check=verified)
    except InputError as error:
        raise InputError(f"{error}; or set WEMEM_DATA to a folder that holds {ARRAYS} or {ARCHIVE}") from error


def verified(file: Path) -> Rows:
    """Read the records of a file as rows of features and class, in lexicographic order.

    Raises:
        InputError: other records than the 5010 of Location-30.
    """
    rows = rows_of_npz(file) if file.suffix.lower() == ".npz" else rows_of_archive(file)
    rows = np.ascontiguousarray(rows[np.lexsort(rows.T[::-1])])
    got = hashlib.sha256(rows.tobytes()).hexdigest()
    if got != CONTENT_SHA256:
        raise InputError(
            f"{file}: expected the records of Location-30 (sorted SHA-256 {CONTENT_SHA256[:12]}...), got others "
            f"({got[:12]}...); remove that file and get {ARCHIVE_URL}"
        )
    return rows


def rows_of_npz(file: Path) -> Rows:
    """Read rows from the arrays ``x`` and ``y``."""
    x, y = read_npz(file, ["x", "y"], limit=8 * SIZE_LIMIT)
    require_location(file, x, y)
    return np.column_stack([x, y]).astype(np.uint8)


def rows_of_archive(file: Path) -> Rows:
    """Read rows from the published table: no header, a quoted class 1..30, then the features."""
    text = read_tgz_file(file, "bangkok", size_limit=SIZE_LIMIT).decode("latin-1")
    try:
        if not text.strip():
            raise ValueError("an empty table")
        table = np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.uint8, quotechar='"', ndmin=2)
    except ValueError as error:
        raise InputError(
            f"{file}: expected the table of Location-30, got: {' '.join(str(error).split())[:200]}; get it again"
        ) from error
    x, y = table[:, 1:], table[:, 0] - 1
    require_location(file, x, y)
    return np.column_stack([x, y])


def require_location(file: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
    """Refuse shapes, types and values that Location-30 does not have."""
    shaped = x.shape == (RECORDS, FEATURES) and y.shape == (RECORDS,) and {x.dtype.kind, y.dtype.kind} <= set("biu")
    if not shaped or x.max() > 1 or y.max() >= CLASSES:
        raise InputError(
            f"{file}: expected x ({RECORDS}, {FEATURES}) of 0/1 and y ({RECORDS},) of 0..{CLASSES - 1}, "
            f"got {x.dtype} {x.shape} and {y.dtype} {y.shape} or other values; get {ARCHIVE_URL}"
        )
