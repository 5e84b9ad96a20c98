"""How weights lie in memory: channels last for convolutions on images, where oneDNN computes faster.

The numbers are the same but for rounding. ``benchmarks/ensemble_backends.py`` justifies the rule.
"""

from jaxtyping import Float
from torch import Tensor, nn

#: Strided 1 x 1 convolutions of fewer channels than a vector register holds write beyond their memory in oneDNN 3.
VECTOR = 16


def channels_last_pays(module: nn.Module) -> bool:
    """Whether a model is computed with its channels last: it has 2-d convolutions, and none that oneDNN gets wrong."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return bool(convolutions) and not any(
        m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < VECTOR for m in convolutions
    )


def each_channels_last(stacked: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
    """The same values, each member's ``(O, I, H, W)`` laid out with I last; other shapes in plain order.

    >>> import torch
    >>> each_channels_last(torch.zeros(5, 4, 3, 2, 2))[0].is_contiguous(memory_format=torch.channels_last)
    True
    """
    if stacked.ndim != 5:
        return stacked.contiguous()
    return stacked.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
