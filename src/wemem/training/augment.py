"""Random views of training images: shifted, mirrored, partly covered.

Padding with random crops, and the horizontal flip, follow the training of He et al. (CVPR 2016) on
CIFAR: they pad 32 pixels by 4, and we pad by an eighth of the image's height. Cutout (DeVries,
Taylor, 2017) covers a square of half the height around a random centre, cut at the edges. Padded
and covered pixels are 0, the mean of a channel in normalized images.

A view is a pure function of (image, key, position in the batch). It does not depend on the backend,
on the other models or on the padding of the batch.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Real
from torch import Tensor
from torch.nn.functional import pad

from wemem.randomness import generator

Augmentation = Literal["none", "flip", "crop_flip", "crop_flip_cutout"]


def draw_views(kind: Augmentation, key: int, batch: int) -> Float32[np.ndarray, "B 5"]:
    """Draw the random numbers of the views of a batch of images; none without augmentation.

    Args:
        kind: the kind of augmentation.
        key: a key, which differs for each model and each of its steps.
        batch: the number of images.
    """
    if kind == "none":
        return np.zeros((0, 5), np.float32)
    # one row of five draws per image, so that the draws of an image do not depend on the number of
    # images after it
    return generator(key, "augment").random((batch, 5), np.float32)


def augment(
    x: Real[Tensor, "S B *record"], kind: Augmentation, drawn: Float[Tensor, "R 5"]
) -> Real[Tensor, "S B *record"]:
    """Compute a random view of every image.

    Args:
        x: the images of S models.
        kind: the kind of augmentation.
        drawn: the draws of :func:`draw_views` of all models, one row for each image, on the device of the images.
    """
    if kind == "none":
        return x
    models, batch, channels, height, width = x.shape
    flip, down, right, centre_y, centre_x = drawn.T
    images = x.reshape(models * batch, channels, height, width)
    images = _moved(images, flip < 0.5, *((down, right) if kind != "flip" else (None, None)))
    if kind == "crop_flip_cutout":
        images = _covered(images, (centre_y * height).long(), (centre_x * width).long())
    return images.view(models, batch, channels, height, width)


def _moved(
    x: Float[Tensor, "N C H W"], flip: Tensor, down: Float[Tensor, " N"] | None, right: Float[Tensor, " N"] | None
) -> Float[Tensor, "N C H W"]:
    """The images, mirrored where ``flip`` is True, and shifted by ``down`` and ``right`` (0..1 of
    the range).
    """
    count, channels, height, width = x.shape
    rows, columns = torch.arange(height, device=x.device).expand(count, height), torch.arange(width, device=x.device)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    if down is not None and right is not None:
        margin = max(1, height // 8)
        x = pad(x, (margin, margin, margin, margin))
        rows = rows + (down * (2 * margin + 1)).long()[:, None]
        columns = columns + (right * (2 * margin + 1)).long()[:, None]
    image, channel = torch.arange(count, device=x.device), torch.arange(channels, device=x.device)
    return x[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def _covered(x: Float[Tensor, "N C H W"], y: Tensor, x0: Tensor) -> Float[Tensor, "N C H W"]:
    """The images with a square of half their height around ``(y, x0)`` set to 0."""
    half = max(1, x.shape[2] // 4)
    inside = []
    for size, centre in ((x.shape[2], y), (x.shape[3], x0)):
        place = torch.arange(size, device=x.device)
        inside.append((place >= centre[:, None] - half) & (place < centre[:, None] + half))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
