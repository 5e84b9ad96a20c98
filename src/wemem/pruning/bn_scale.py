"""The scale of BatchNorm, ``|gamma|`` (network slimming: Liu, Li, Shen, Huang, Yan, Zhang, ICCV 2017).

The scales are those that training left. We add no L1 penalty to them, in which we differ from the paper: a penalty
would change the training that a defense is compared on.
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
    """Channels of the smallest BatchNorm scale go first; where several layers scale a channel, the scales add up."""

    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        state = {**ensemble.parameters, **ensemble.buffers}
        total, scaled = torch.zeros(len(ensemble), group.size, dtype=torch.float64), False
        for cut in group.cuts:
            # a scale stands beside running statistics; the layer norm of the same channels has none
            prefix = cut.tensor.removesuffix("weight")
            if cut.tensor.endswith("weight") and f"{prefix}running_var" in state:
                total.index_add_(1, cut.channels, state[cut.tensor].detach()[:, cut.places].abs().double())
                scaled = True
        if not scaled:
            raise InputError(
                f"bn_scale expected a BatchNorm behind the channels of {group.root!r}, got none; use the method "
                "l1_filter, or add the layer to pruning.ignored_layers"
            )
        return total
