"""The first-order Taylor importance of a filter (Molchanov, Mallya, Tyree, Frosio, Kautz, CVPR
2019).

The importance of a set S of weights is the sum over its weights::

    I(S) = sum over s in S of mean over batches of (g_s w_s)^2

with the gradients g of the cross-entropy on the model's own training records. That is the second of
the paper's two forms, the sum of the importances of single weights. Of the filters that are removed
together, all count.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.pruning.channels import Group, sum_over_filters
from wemem.pruning.criterion import ChannelCriterion
from wemem.training.ensemble import Ensemble


@dataclass(frozen=True)
class TaylorFilter(ChannelCriterion):
    """A criterion that removes filters and neurons of the smallest effect on the loss first."""

    reads_gradients: ClassVar[bool] = True

    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        return sum_over_filters(ensemble, group, torch.square)
