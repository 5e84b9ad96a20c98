"""Weight magnitude, ``|w|`` (Han, Pool, Tran, Dally, NeurIPS 2015), the criterion of the paper."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wemem.pruning.criterion import WeightCriterion


@dataclass(frozen=True)
class Magnitude(WeightCriterion):
    """A criterion that prunes weights of the smallest absolute value first.

    >>> import torch
    >>> Magnitude().importance(torch.tensor([[-2.0, 1.0]])).tolist()
    [[2.0, 1.0]]
    """

    def importance(self, weights: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        return weights.abs()
