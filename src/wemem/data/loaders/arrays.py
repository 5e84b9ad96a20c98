"""Arrays as they come, from an ``.npz`` file or a function: channels moved, bytes scaled, labels
understood.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wemem.data.dataset import Dataset
from wemem.data.loaders.images import ANY, normalized
from wemem.data.packed_inputs import pack
from wemem.errors import InputError
from wemem.files.input_files import require_file
from wemem.files.mapped import map_npy, map_npz
from wemem.files.npz import larger_than, read_npy, read_npz
from wemem.notes import Note
from wemem.resolve import resolve

#: Numbers of channels by which an axis is taken for that of the channels: grey, colour, colour with
#: transparency.
CHANNELS = (1, 3, 4)


def load_npz(path: Path, *, features: str | tuple[str, ...], label: str, limit: int) -> Dataset:
    """Read a data set from two arrays of an ``.npz`` file.

    Args:
        path: the path of the file.
        features: the name of the features array, or of several that are inputs of those names.
        label: the name of the labels array.
        limit: the largest number of bytes that loading may take; larger features of an uncompressed
            file stay in the file.

    Raises:
        InputError: a file that cannot be read, or arrays that :func:`dataset_of` refuses.
    """
    if not isinstance(features, str):
        *arrays, y = read_npz(path, [*features, label], limit=limit)
        return dataset_of(path.stem, dict(zip(features, arrays, strict=True)), y)
    if larger_than(path, [features, label], limit):
        return dataset_in_file(path.stem, map_npz(path, features), read_npz(path, [label], limit=limit)[0])
    x, y = read_npz(path, [features, label], limit=limit)
    return dataset_of(path.stem, x, y)


def load_npy(path: Path, *, labels: Path, limit: int) -> Dataset:
    """Read a data set from an ``.npy`` file of features and one of labels.

    Args:
        path: the path of the features.
        labels: the path of the labels.
        limit: the largest number of bytes that loading may take; larger features stay in the file.

    Raises:
        InputError: a file that cannot be read, or arrays that :func:`dataset_of` refuses.
    """
    y = read_npy(labels, limit=limit)
    if 2 * require_file(path, "a .npy file").stat().st_size > limit:
        return dataset_in_file(path.stem, map_npy(path), y)
    return dataset_of(path.stem, read_npy(path, limit=limit), y)


def dataset_in_file(name: str, features: np.ndarray[Any, Any], labels: Any) -> Dataset:
    """A data set whose features stay in a file, as they are.

    Raises:
        InputError: images with channels in the last axis, or what :class:`Dataset` refuses.
    """
    if features.ndim == 4 and features.shape[3] in CHANNELS and features.shape[1] not in CHANNELS:
        raise InputError(
            f"data {name!r}: expected images (N, channels, height, width) that are larger than memory allows, got "
            f"{_shape(features)}; move the channels, or raise memory_gib"
        )
    blank = Dataset.from_arrays(name, np.zeros((len(features), 1), np.float32), labels)
    note = Note("features_in_file", {"gib": features.nbytes / 2**30})
    return replace(blank, features=features, notes=(note, *blank.notes))


def load_factory(spec: str) -> Dataset:
    """Call the function of the user's that ``spec`` names; it returns a :class:`Dataset`, or
    features and labels.

    Raises:
        InputError: no such function, one that returns something else, or arrays that
            :func:`dataset_of` refuses.
    """
    factory = resolve(spec)
    if not callable(factory):
        raise InputError(f"data {spec!r}: expected a function, got {type(factory).__name__}; name a function")
    try:
        result = factory()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # from within the function, whose own lines say more
        raise InputError(f"data {spec!r}: expected a function without arguments, got {error}; write one") from error
    if isinstance(result, Dataset):
        return result
    if isinstance(result, tuple) and len(result) == 2:
        return dataset_of(spec, *result)
    raise InputError(
        f"data {spec!r}: expected it to return a Dataset or (features, labels), got {type(result).__name__}; return one"
    )


def dataset_of(name: str, features: Any, labels: Any) -> Dataset:
    """A data set of arrays whose layout is recognized; its notes say what was changed.

    Four axes are images. Channels that stand last are moved before the rows, and whole numbers
    0..255 are scaled as images from folders are. Whole numbers ``(N, L)`` or ``(N, L, F)`` stay so,
    as token ids and codes of categories must; switches of only 0 and 1 do not. Several inputs, by
    name or as a tuple, stay as they are and are packed into one row for each record.

    Args:
        name: the name of the data set in reports.
        features: numbers, shape ``(N, ...)``, or several arrays of them.
        labels: the labels, as :meth:`Dataset.from_arrays` takes them.

    Raises:
        InputError: arrays that :meth:`Dataset.from_arrays` refuses.

    >>> images = dataset_of("toy", np.zeros((2, 8, 9, 3), np.uint8), [0, 1])
    >>> images.input_shape, float(images.features.max())
    ((3, 8, 9), -2.0)
    """
    if isinstance(features, Mapping | tuple):
        rows, inputs = pack(name, features)
        blank = Dataset.from_arrays(name, np.zeros((len(rows), 1), np.float32), labels)
        return replace(blank, features=rows, inputs=inputs)
    x, notes = np.asarray(features), []
    if x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS:
        moved = x.transpose(0, 3, 1, 2)
        notes.append(Note("channels_last", {"was": _shape(x), "moved": _shape(moved)}))
        x = moved
    if x.ndim == 4 and x.shape[1] in CHANNELS and _bytes(x):
        x = normalized(x, ANY.mean[0], ANY.std[0])
        notes.append(Note("pixels_scaled"))
    data = Dataset.from_arrays(name, x, labels)
    if _codes(x):
        data = replace(data, features=np.ascontiguousarray(x, np.int64))
    return replace(data, notes=(*notes, *data.notes)) if notes else data


def _codes(x: np.ndarray[Any, Any]) -> bool:
    """True if features are vectors or sequences of whole numbers, and not only switches of 0 and 1."""
    if x.dtype.kind not in "iu" or x.ndim > 3:
        return False
    if x.max() > np.iinfo(np.int64).max:
        raise InputError(f"expected whole-number features of at most 63 bits, got {x.max()}; give floats")
    return bool(x.min() < 0 or x.max() > 1)


def _bytes(x: np.ndarray[Any, Any]) -> bool:
    """True if images hold bytes: whole numbers 0..255, and not only switches of 0 and 1."""
    return x.dtype == np.uint8 or (x.dtype.kind in "iu" and x.min(initial=0) >= 0 and 1 < x.max(initial=0) <= 255)


def _shape(x: np.ndarray[Any, Any]) -> str:
    return f"({', '.join(['N', *map(str, x.shape[1:])])})"
