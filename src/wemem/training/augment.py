"""Random views of training images: shifted, mirrored, partly covered.

Pad and crop, and the horizontal flip, as He et al. (CVPR 2016) train on CIFAR: 4 pixels of 32, here an eighth of the
image's height; cutout (DeVries, Taylor, 2017): a square of half the height around a random centre, cut at the edges.
Padded and covered pixels are 0, the mean of a channel in normalized images.

A view is a pure function of (image, key, position in the batch): the same in every backend, whoever trains beside, and
however a batch is padded.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn.functional import pad

from wemem.randomness import generator

Augmentation = Literal["none", "flip", "crop_flip", "crop_flip_cutout"]


def augment(x: Real[Tensor, "S B *record"], kind: Augmentation, keys: Sequence[int]) -> Real[Tensor, "S B *record"]:
    """A random view of every image.

    Args:
        x: images of S models.
        kind: the changes that are made.
        keys: one key per model, another one for each of its steps.
    """
    if kind == "none":
        return x
    models, batch, channels, height, width = x.shape
    # rows of five draws an image, so that an image's draws do not depend on how many follow it
    drawn = [generator(key, "augment").random((batch, 5), np.float32) for key in keys]
    flip, down, right, centre_y, centre_x = torch.from_numpy(np.concatenate(drawn)).to(x.device, non_blocking=True).T
    images = x.reshape(models * batch, channels, height, width)
    images = _moved(images, flip < 0.5, *((down, right) if kind != "flip" else (None, None)))
    if kind == "crop_flip_cutout":
        images = _covered(images, (centre_y * height).long(), (centre_x * width).long())
    return images.view(models, batch, channels, height, width)


def _moved(
    x: Float[Tensor, "N C H W"], flip: Tensor, down: Float[Tensor, " N"] | None, right: Float[Tensor, " N"] | None
) -> Float[Tensor, "N C H W"]:
    """Images mirrored where ``flip``, and shifted by ``down`` and ``right``, 0..1 of the whole range, if given."""
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
    """Images without the square of half the height around ``(y, x0)``."""
    half = max(1, x.shape[2] // 4)
    inside = []
    for size, centre in ((x.shape[2], y), (x.shape[3], x0)):
        place = torch.arange(size, device=x.device)
        inside.append((place >= centre[:, None] - half) & (place < centre[:, None] + half))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
