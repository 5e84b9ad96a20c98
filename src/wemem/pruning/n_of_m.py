"""N:M sparsity: at most ``n`` of every ``m`` consecutive weights of a row stay (Zhou et al., ICLR
2021).

2:4 is the pattern that the sparse tensor cores of recent GPUs compute faster (Mishra et al.,
arXiv:2104.08378). A block is a part of a row of a linear layer, or of the flattened filter of a
convolution. Where ``m`` does not divide the length of the row, its last block is shorter.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from wemem.errors import InputError
from wemem.pruning.criterion import WeightCriterion
from wemem.pruning.masks import Scope


@dataclass(frozen=True)
class NOfM(WeightCriterion):
    """A criterion that first prunes, by magnitude, the weights that are not among the ``n`` largest
    of their block.

    A sparsity of 1 - n/m gives the N:M pattern.

    Args:
        n: the number of weights of a block that stay.
        m: the size of a block.

    >>> NOfM(1, 2).importance(torch.tensor([[[1.0, 2.0, 8.0, 4.0]]])).tolist()
    [[[0.125, 1.25, 2.0, 0.5]]]
    """

    n: int = 2
    m: int = 4

    scopes: ClassVar[tuple[Scope, ...]] = ("layer",)

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise InputError(f"n must be at least 1 and less than m, got n = {self.n}, m = {self.m}; 2 of 4 is usual")

    def importance(self, weights: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        magnitude = weights.abs()
        rows = magnitude.flatten(2)
        padded = pad(rows, (0, -rows.shape[2] % self.m), value=-1.0)
        blocks = padded.view(*rows.shape[:2], -1, self.m)
        # the rank of each weight in its block, 0 for the largest
        place = blocks.argsort(dim=3, descending=True, stable=True).argsort(dim=3)
        stays = (place < self.n).flatten(2)[:, :, : rows.shape[2]].reshape(weights.shape)
        largest = magnitude.flatten(1).amax(1).clamp(min=torch.finfo(weights.dtype).tiny)
        share = magnitude / largest.view(-1, *[1] * (weights.ndim - 1))
        return share + stays.to(share.dtype)
