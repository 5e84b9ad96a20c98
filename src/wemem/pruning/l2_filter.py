"""The L2 norm of a filter, ``sqrt(sum w^2)``, computed as its square, which gives the same order."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wemem.pruning.channels import Group, sum_over_filters
from wemem.pruning.criterion import ChannelCriterion
from wemem.training.ensemble import Ensemble


@dataclass(frozen=True)
class L2Filter(ChannelCriterion):
    """A criterion that removes filters and neurons of the smallest sum of squared weights first."""

    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        return sum_over_filters(ensemble, group, lambda weights: weights.square())
