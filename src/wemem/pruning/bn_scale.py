"""The scale of BatchNorm, ``|gamma|`` (network slimming: Liu, Li, Shen, Huang, Yan, Zhang, ICCV
2017).

The scales are those after ordinary training. Unlike the paper, we add no L1 penalty to them,
because a penalty would change the training on which defenses are compared.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.errors import InputError
from wemem.pruning.channels import Group
from wemem.pruning.criterion import ChannelCriterion
from wemem.training.ensemble import Ensemble


@dataclass(frozen=True)
class BatchNormScale(ChannelCriterion):
    """A criterion that removes channels of the smallest BatchNorm scale first.

    Where several layers scale a channel, their scales are added.
    """

    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        state = {**ensemble.parameters, **ensemble.buffers}
        total, scaled = torch.zeros(len(ensemble), group.size, dtype=torch.float64), False
        for cut in group.cuts:
            # a BatchNorm scale has running statistics beside it; the scale of a layer norm has none
            prefix = cut.tensor.removesuffix("weight")
            if cut.tensor.endswith("weight") and f"{prefix}running_var" in state:
                total.index_add_(1, cut.channels, state[cut.tensor].detach()[:, cut.places].abs().double())
                scaled = True
        if not scaled:
            raise InputError(
                f"bn_scale expected a BatchNorm after the channels of {group.root!r}, got none; use the method "
                "l1_filter, or add the layer to pruning.ignored_layers"
            )
        return total
