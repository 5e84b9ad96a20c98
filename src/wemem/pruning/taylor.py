"""The first-order Taylor importance of a weight, ``(g w)^2`` (Molchanov, Mallya, Tyree, Frosio,
Kautz, CVPR 2019), as a mean over batches of the model's own training records.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from wemem.pruning.criterion import WeightCriterion


@dataclass(frozen=True)
class Taylor(WeightCriterion):
    """A criterion that prunes weights of the smallest effect on the loss first."""

    reads_gradients: ClassVar[bool] = True

    def importance(self, weights: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        return weights.abs()
