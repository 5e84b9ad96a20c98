"""Orders of weights in memory, for speed: the numbers are the same but for rounding.

Models one after another have their convolutions' channels last, where oneDNN computes faster. Models computed at once
have their matrices transposed, as vmap's gradients come: an optimizer needs weights and gradients laid out alike, and
would need a copy. ``benchmarks/ensemble_backends.py`` justifies both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from wemem.training.backends import Backend
from wemem.training.device import CPU

#: Strided 1 x 1 convolutions of fewer channels than a vector register holds write beyond their memory in oneDNN 3.
VECTOR = 16


@dataclass(frozen=True)
class Layout:
    """An order of the dimensions in memory.

    Args:
        orders: the order by the number of dimensions of a stacked tensor, models first; others lie in plain order.

    >>> import torch
    >>> CHANNELS_LAST.lay_out(torch.zeros(5, 4, 3, 2, 2))[0].is_contiguous(memory_format=torch.channels_last)
    True
    >>> TRANSPOSED.straight(TRANSPOSED.lay_out(torch.zeros(5, 4, 3))).is_contiguous()
    True
    """

    orders: Mapping[int, tuple[int, ...]]

    def lay_out(self, stacked: Shaped[Tensor, "K ..."]) -> Shaped[Tensor, "K ..."]:
        """The same values in this order; a copy only where they are not yet."""
        order = self.orders.get(stacked.ndim)
        if order is None:
            return stacked.contiguous()
        back = [order.index(dimension) for dimension in range(stacked.ndim)]
        return stacked.permute(order).contiguous().permute(back)

    def straight(self, laid_out: Shaped[Tensor, "K ..."]) -> Shaped[Tensor, "K ..."]:
        """The same memory with its dimensions in the order of memory."""
        return laid_out.permute(self.orders.get(laid_out.ndim, tuple(range(laid_out.ndim))))


PLAIN = Layout({})
#: Convolutions (K, O, I, H, W) with I last.
CHANNELS_LAST = Layout({5: (0, 1, 3, 4, 2)})
#: Matrices (K, O, I) with O last.
TRANSPOSED = Layout({3: (0, 2, 1)})


def choose_layout(backend: Backend, module: nn.Module, device: torch.device) -> Layout:
    """The layout of weights, their gradients and their masks."""
    if backend == "vmapped":
        return TRANSPOSED
    return CHANNELS_LAST if device == CPU and channels_last_pays(module) else PLAIN


def channels_last_pays(module: nn.Module) -> bool:
    """Whether a model is computed with its channels last: it has 2-d convolutions, and none that oneDNN gets wrong."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return bool(convolutions) and not any(
        m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < VECTOR for m in convolutions
    )
