"""The first-order Taylor importance of attention heads and hidden neurons.

Michel, Levy and Neubig (NeurIPS 2019) measure the change of the loss when a head is removed by its
gradient. We estimate it as for filters (:mod:`wemem.pruning.taylor_filter`), by the weights of the
queries, keys and values of the head.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.pruning.channels import Group, sum_over_filters
from wemem.pruning.heads import Parts, UnitCriterion
from wemem.training.ensemble import Ensemble


@dataclass(frozen=True)
class TaylorHeadsAndNeurons(UnitCriterion):
    """A criterion that removes heads and neurons of the smallest effect on the loss first.

    Args:
        parts: the parts that are removed, ``both``, ``heads`` or ``neurons``.
    """

    parts: Parts = "both"

    reads_gradients: ClassVar[bool] = True

    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        return sum_over_filters(ensemble, group, torch.square)
