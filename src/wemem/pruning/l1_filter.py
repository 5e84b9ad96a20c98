"""The L1 norm of a filter, ``sum |w|`` (Li, Kadav, Durdanovic, Samet, Graf, ICLR 2017)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wemem.pruning.channels import Group, sum_over_filters
from wemem.pruning.criterion import ChannelCriterion
from wemem.training.ensemble import Ensemble


@dataclass(frozen=True)
class L1Filter(ChannelCriterion):
    """A criterion that removes filters and neurons of the smallest sum of absolute weights first."""

    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        return sum_over_filters(ensemble, group, lambda weights: weights.abs())
