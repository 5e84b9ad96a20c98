"""Images of one size as a data set: bytes 0..255 in, normalized float32 out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, Integer, UInt8

from wemem.data.dataset import Dataset
from wemem.data.split import stratified_draw
from wemem.errors import InputError
from wemem.files.memory_limit import require_memory
from wemem.randomness import generator

Pixels = UInt8[np.ndarray, "N 3 H W"]
Labels = Int64[np.ndarray, " N"]


@dataclass(frozen=True)
class Channels:
    """Mean and standard deviation of each colour channel over a training set, of values 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


#: Mean and deviation for images whose statistics are not known.
ANY = Channels((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def draw_records(labels: Labels, records: int | None) -> Int64[np.ndarray, " n"]:
    """Indices of ``records`` records, ascending, drawn in the classes' proportions; all if None or
    if there are fewer.

    The draw is always the same: the records of a data set are no part of a study's randomness.

    >>> draw_records(np.arange(8) % 2, 4)
    array([3, 4, 6, 7])
    """
    if records is None or records >= len(labels):
        return np.arange(len(labels))
    (drawn,) = stratified_draw(labels, np.arange(len(labels)), [records], generator(0, "records"))
    return np.sort(drawn)


def require_image_memory(count: int, size: tuple[int, int], limit: int, what: str) -> None:
    """Refuse images that would not fit into memory, as bytes and once more as the float32 that
    training needs.

    Raises:
        InputError: more than ``limit`` bytes.
    """
    require_memory(count * 3 * size[0] * size[1] * 5, limit, what)


def image_dataset(
    name: str, pixels: Pixels, labels: Labels, classes: int, channels: Channels, *, records: int | None, limit: int,
) -> Dataset:  # fmt: skip
    """A data set of images: float32 ``(N, 3, H, W)``, each channel less its mean and divided by its
    deviation.

    Args:
        name: the name of the data set in reports.
        pixels: red, green and blue, 0..255.
        labels: the class of each image, 0..classes-1.
        classes: the number of classes.
        channels: mean and deviation of the channels.
        records: the number of images to draw, see :func:`draw_records`; all if None.
        limit: the largest number of bytes that loading may take.

    Raises:
        InputError: no images, labels out of range, or images that do not fit.
    """
    if len(labels) == 0:
        raise InputError(f"data {name!r}: expected images, got none; bring some")
    chosen = draw_records(labels, records)
    require_image_memory(len(chosen), (pixels.shape[2], pixels.shape[3]), limit, name)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (channels.mean, channels.std))
    x = normalized(pixels[chosen], mean, std)
    drawn_from = len(labels) if len(chosen) < len(labels) else None
    return Dataset(name, x, np.ascontiguousarray(labels[chosen], np.int64), classes, drawn_from=drawn_from)


def normalized(
    pixels: Integer[np.ndarray, "N C H W"],
    mean: Float32[np.ndarray, "C 1 1"] | float,
    std: Float32[np.ndarray, "C 1 1"] | float,
) -> Float32[np.ndarray, "N C H W"]:
    """Pixels 0..255 as float32, divided by 255, less a mean and divided by a standard deviation.

    Dividing by 255 first keeps the published constants as they are; in place, no second float copy
    is made.
    """
    x = pixels.astype(np.float32, order="C")
    x /= np.float32(255)
    x -= np.float32(mean)
    x /= np.float32(std)
    return x
