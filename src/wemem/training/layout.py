"""Memory layouts of weights, which change the speed, and the numbers only by rounding.

Models that are computed one after another store the channels of convolutions last, which is faster
in oneDNN. Models that are computed at once store matrices transposed, like the gradients of vmap,
because an optimizer would otherwise have to copy them. ``benchmarks/ensemble_backends.py``
justifies both for the CPU, ``benchmarks.gpu`` the former for a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from wemem.training.backends import Backend
from wemem.training.device import CPU, cuda_settings

#: The number of channels below which a strided 1 x 1 convolution writes beyond its memory in oneDNN
#: 3.
VECTOR = 16


@dataclass(frozen=True)
class Layout:
    """An order of the dimensions in memory.

    Args:
        orders: the order of dimensions, models first, by the number of dimensions of a stacked
            tensor; a tensor with another number of dimensions has the default order.

    >>> import torch
    >>> CHANNELS_LAST.lay_out(torch.zeros(5, 4, 3, 2, 2))[0].is_contiguous(memory_format=torch.channels_last)
    True
    >>> TRANSPOSED.straight(TRANSPOSED.lay_out(torch.zeros(5, 4, 3))).is_contiguous()
    True
    """

    orders: Mapping[int, tuple[int, ...]]

    def lay_out(self, stacked: Shaped[Tensor, "K ..."]) -> Shaped[Tensor, "K ..."]:
        """Store the same values in this order; they are copied only if they have another order."""
        order = self.orders.get(stacked.ndim)
        if order is None:
            return stacked.contiguous()
        back = [order.index(dimension) for dimension in range(stacked.ndim)]
        ordered = stacked.permute(order).contiguous()
        # a dimension of one channel may keep any stride, by which oneDNN would still choose the
        # layout of images; the view gives it the stride of this order
        return ordered.flatten().view(ordered.shape).permute(back)

    def straight(self, laid_out: Shaped[Tensor, "K ..."]) -> Shaped[Tensor, "K ..."]:
        """View the same memory with its dimensions in the order of memory."""
        return laid_out.permute(self.orders.get(laid_out.ndim, tuple(range(laid_out.ndim))))


PLAIN = Layout({})
#: Convolutions (K, O, I, H, W) with I last.
CHANNELS_LAST = Layout({5: (0, 1, 3, 4, 2)})
#: Matrices (K, O, I) with O last.
TRANSPOSED = Layout({3: (0, 2, 1)})


def choose_layout(backend: Backend, module: nn.Module, device: torch.device) -> Layout:
    """Choose the layout of weights, their gradients and their masks."""
    if backend == "vmapped":
        return TRANSPOSED
    if device == CPU:
        return CHANNELS_LAST if channels_last_pays(module) else PLAIN
    convolutions = any(isinstance(m, nn.Conv2d) for m in module.modules())
    return CHANNELS_LAST if convolutions and cuda_settings().channels_last else PLAIN


def channels_last_pays(module: nn.Module) -> bool:
    """Return True if a model has 2-d convolutions, and none that oneDNN computes wrongly with its
    channels last.
    """
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return bool(convolutions) and not any(
        m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < VECTOR for m in convolutions
    )
