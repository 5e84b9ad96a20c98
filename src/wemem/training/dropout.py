"""Dropout whose mask is a pure function of (member, step, layer, position).

PyTorch's dropout draws from one global stream, so that a member's mask would depend on who trains beside it and on
the backend. Here every unit's bit is a hash of its position and of a key that the training loop sets before each
step; all members together, one alone, and any order of training give the same masks. A layer that a model calls
several times in one forward pass draws a new mask each time. :func:`dropout_at` gives a record that is computed by
itself the mask that it has in its batch, in every model that keeps the records of a batch along the first axis.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int64
from torch import Tensor, nn

# the finalizer of "lowbias32" (C. Wellons, public domain): an avalanche in two multiplications
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - 2**32)


class MemberDropout(nn.Module):
    """Inverted dropout with probability ``p``; :attr:`key` says which mask.

    Args:
        p: probability of dropping a unit.
        layer: tells this layer's masks from those of the model's other dropout layers.
    """

    key: Tensor

    def __init__(self, p: float, layer: int) -> None:
        super().__init__()
        self.p = p
        self.layer = layer
        self.calls = 0
        self.place: Int64[Tensor, ""] | None = None
        self.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        position = torch.arange(x.numel(), dtype=torch.int32, device=x.device).view(x.shape)
        if self.place is not None:
            position = position + (self.place * x.numel()).to(torch.int32)
        bits = _mix(position ^ _mix(self.key + (self.layer + (self.calls << 16))))
        self.calls += 1
        # the signed 32-bit hash is uniform; halved, the difference to the threshold fits, and its sign bit is the
        # verdict. Integer arithmetic because comparisons to bool and torch.where are several times slower on a CPU.
        threshold = (int(self.p * 2**32) - 2**31) >> 1
        keep = (((bits >> 1) - threshold) >> 31) + 1
        return x * (keep.to(x.dtype) * (1 / (1 - self.p)))

    def extra_repr(self) -> str:
        return f"p={self.p}, layer={self.layer}"


def _mix(h: Tensor) -> Tensor:
    h = (h ^ ((h >> 16) & 0xFFFF)) * _MULTIPLIERS[0]
    h = (h ^ ((h >> 15) & 0x1FFFF)) * _MULTIPLIERS[1]
    return h ^ ((h >> 16) & 0xFFFF)


def replace_dropout(module: nn.Module) -> nn.Module:
    """Put :class:`MemberDropout` in the place of every ``nn.Dropout``; parameters and their names stay as they are."""
    places = {n: m for n, m in module.named_modules(remove_duplicate=False) if type(m) is nn.Dropout}
    for layer, (name, dropout) in enumerate(places.items()):
        module.set_submodule(name, MemberDropout(dropout.p, layer))
    module.register_forward_pre_hook(_count_calls_anew)
    return module


@contextmanager
def dropout_at(module: nn.Module, place: Int64[Tensor, ""]) -> Iterator[None]:
    """Within it, a batch of one record gets the masks of the record at ``place`` of its batch."""
    layers = [layer for layer in module.modules() if isinstance(layer, MemberDropout)]
    for layer in layers:
        layer.place = place
    try:
        yield
    finally:
        for layer in layers:
            layer.place = None


def _count_calls_anew(module: nn.Module, _: object) -> None:
    for layer in module.modules():
        if isinstance(layer, MemberDropout):
            layer.calls = 0
