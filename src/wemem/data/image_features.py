"""Features of images that no training made, for models that are linear in them.

Two maps that are fixed before any record is seen, so that no feature depends on a training record:

* Random patches: the image is filtered by random patches without a mean, and how strongly each
  filter and its negative answer is averaged over a grid of regions (Coates, Lee & Ng, AISTATS 2011,
  with random filters as in Saxe et al., ICML 2011).
* Histograms of oriented gradients (Dalal & Triggs, CVPR 2005): how strong edges of each direction
  are in each cell, normalized over blocks of two by two cells.

Each is normalized within its image. Larger images are first shrunk to at most :data:`LARGEST`
pixels a side, unless their shorter side would be less than that of a patch.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Real
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, normalize

#: Longest side of an image, in pixels; larger ones are shrunk by averaging.
LARGEST = 32
#: Number of random filters, their side and stride in pixels, and regions a side over which answers are averaged.
FILTERS, SIDE, STRIDE, REGIONS = 64, 5, 2, 3
#: Answers of a filter below this many root mean squares of the image's answers count as none.
THRESHOLD = 0.5
#: Directions of gradients, and cells a side of the image.
DIRECTIONS, CELLS = 9, 8
#: Limit of a normalized histogram's entries, so that a single strong edge does not dominate.
LIMIT = 0.2
#: Images that are computed at a time; of more, what is computed no longer fits into the caches.
BATCH = 32
#: Shortest side of an image that has these features.
SMALLEST = 8


def is_image(shape: tuple[int, ...]) -> bool:
    """True for the shape of a record (channels, height, width) that is large enough.

    >>> is_image((1, 28, 28)), is_image((446,)), is_image((3, 4, 4))
    (True, False, False)
    """
    return len(shape) == 3 and min(shape[1:]) >= SMALLEST


def image_features(images: Real[np.ndarray, "n c h w"]) -> Float32[np.ndarray, "n F"]:
    """Untrained features of images.

    Args:
        images: real-valued, of any range.
    """
    generator = torch.Generator().manual_seed(0)
    filters = torch.randn(FILTERS, images.shape[1], SIDE, SIDE, generator=generator)
    filters = normalize((filters - filters.mean((2, 3), keepdim=True)).flatten(1), dim=1).view_as(filters)
    sides = images.shape[2:]
    factor = min(-(-max(sides) // LARGEST), min(sides) // SIDE)
    done = []
    for start in range(0, len(images), BATCH):
        x = torch.from_numpy(np.asarray(images[start : start + BATCH], np.float32))
        x = avg_pool2d(x, factor) if factor > 1 else x
        done.append(torch.cat([_patches(x, filters), _gradients(x)], 1).numpy())
    return np.concatenate(done)


def _patches(x: Float[Tensor, "b c h w"], filters: Float[Tensor, "f c s s"]) -> Float[Tensor, "b p"]:
    """Mean answers of the filters and their negatives in each region, with a length of 1."""
    z = conv2d(x, filters, stride=STRIDE)
    z = z / z.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)
    answers = torch.cat([(z - THRESHOLD).relu(), (-z - THRESHOLD).relu()], 1)
    return normalize(adaptive_avg_pool2d(answers, REGIONS).flatten(1), dim=1)


def _gradients(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b g"]:
    """Histograms of the directions of gradients, without their sign, with a length of 1."""
    across, down = torch.zeros_like(x), torch.zeros_like(x)
    across[..., 1:-1] = x[..., 2:] - x[..., :-2]
    down[..., 1:-1, :] = x[..., 2:, :] - x[..., :-2, :]
    size = (across.square() + down.square()).sqrt()
    size, channel = size.max(1)  # of the channel with the strongest gradient
    across, down = (part.gather(1, channel[:, None])[:, 0] for part in (across, down))
    place = torch.atan2(down, across).remainder(torch.pi) / torch.pi * DIRECTIONS
    low = place.floor()
    between = place - low
    directions = torch.arange(DIRECTIONS).view(1, -1, 1, 1)
    low = low.long().remainder(DIRECTIONS)[:, None]
    share, high = between[:, None], (low + 1).remainder(DIRECTIONS)
    votes = (low == directions) * (1 - share) + (high == directions) * share
    cells = adaptive_avg_pool2d(votes * size[:, None], min(CELLS, *(side // 2 for side in x.shape[2:])))
    blocks = torch.cat([cells[:, :, i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1)], 1)
    blocks = normalize(normalize(blocks, dim=1).clamp(max=LIMIT), dim=1)
    return normalize(blocks.flatten(1), dim=1)
