"""The L1 norm of attention heads and of hidden neurons of a transformer.

The importance of a head is the sum of absolute weights of its queries, keys and values, and that of
a neuron the sum of those that compute it (Li et al., ICLR 2017, applied to the units of Michel,
Levy and Neubig, NeurIPS 2019).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wemem.pruning.channels import Group, sum_over_filters
from wemem.pruning.heads import Parts, UnitCriterion
from wemem.training.ensemble import Ensemble


@dataclass(frozen=True)
class HeadsAndNeurons(UnitCriterion):
    """A criterion that removes heads and neurons of the smallest sum of absolute weights first.

    Args:
        parts: the parts that are removed, ``both``, ``heads`` or ``neurons``.
    """

    parts: Parts = "both"

    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        return sum_over_filters(ensemble, group, lambda weights: weights.abs())
