"""Layer-adaptive magnitude, LAMP (Lee, Park, Mo, Ahn, Shin, ICLR 2021).

The score of a weight is its square, divided by the sum of squares of all weights of its layer that
are at least as large::

    score(w) = w^2 / sum over |v| >= |w| of v^2

The scores of all layers are compared together, so that the sparsity of each layer follows from its
weights. No layer loses all its weights, because the largest weight of every layer has score 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.pruning.criterion import WeightCriterion
from wemem.pruning.masks import Scope


@dataclass(frozen=True)
class Lamp(WeightCriterion):
    """A criterion that prunes weights of the lowest layer-adaptive score first, over all layers
    together.

    >>> [round(x, 3) for x in Lamp().importance(torch.tensor([[1.0, 3.0, 2.0]]))[0].tolist()]
    [0.071, 1.0, 0.308]
    """

    scopes: ClassVar[tuple[Scope, ...]] = ("global",)

    def importance(self, weights: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        squares = weights.double().square().flatten(1)
        order = squares.sort(dim=1, descending=True, stable=True)
        shares = order.values / order.values.cumsum(1).clamp(min=torch.finfo(torch.float64).tiny)
        return torch.zeros_like(squares).scatter_(1, order.indices, shares).view_as(weights).to(weights.dtype)
