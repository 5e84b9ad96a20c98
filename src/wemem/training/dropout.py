"""Dropout whose mask is a pure function of (model, step, layer, position).

PyTorch's dropout draws from one global stream, so that the mask of a model would depend on the
other models and on the backend. Here the bit of every unit is a hash of its position and of a key
that the training loop sets before each step. Masks are the same for all models together, for one
model alone, and in any order of training. To save time, rows and units are each hashed in full, and
their combination by a part of the hash. A layer that a model calls several times in one forward
pass draws a new mask each time. :func:`dropout_at` gives a record that is computed alone the mask
that it has in its batch, in every model that keeps the records of a batch along the first axis.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor, nn

# the finalizer of "lowbias32" (C. Wellons, public domain): an avalanche in two multiplications
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - 2**32)


class SeededDropout(nn.Module):
    """Inverted dropout with probability ``p``; :attr:`key` selects the mask.

    Args:
        p: the probability that a unit is dropped.
        layer: the number of this dropout layer in the model, so that layers have different masks.
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
        return self.drop(x, self.key)

    def drop(self, x: Tensor, key: Int32[Tensor, "*S"]) -> Tensor:
        """Drop units of a batch, or of a batch of each of S models at once: ``(*S, B, ...)``."""
        if not self.training or self.p == 0:
            return x
        models = key.ndim
        mask = self._mask(key, x.shape[models], prod(x.shape[models + 1 :])).view(x.shape).to(x.dtype)
        self.calls += 1
        return x * mask

    def _mask(self, key: Int32[Tensor, "*S"], rows: int, units: int) -> Float32[Tensor, "*S rows units"]:
        """The mask: 0 where a unit is dropped, else the factor that preserves the expectation."""
        first = 0 if self.place is None else (self.place * rows).to(torch.int32)
        key = _mix(key + (self.layer + (self.calls << 16)))[..., None]
        by_row, by_unit = _mix(_count(rows, key.device) + first ^ key), _mix(~_count(units, key.device) ^ key)
        # in place, because new memory costs a CPU more than the arithmetic
        bits = (by_row[..., None] ^ by_unit[..., None, :]).mul_(_MULTIPLIERS[0])
        bits = bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF)).mul_(_MULTIPLIERS[1])
        # the signed 32-bit hash is uniform; halved, the difference to the threshold fits, and its
        # sign, spread over all bits, cuts out the bits of the float. Integer arithmetic because
        # comparisons to bool and torch.where are several times slower on a CPU.
        threshold = (int((1 - self.p) * 2**32) - 2**31) >> 1
        scale = int(np.float32(1 / (1 - self.p)).view(np.int32))
        keep = bits.bitwise_right_shift_(1).sub_(threshold).bitwise_right_shift_(31)
        return _AsFloat.apply(keep.bitwise_and_(scale))  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        return f"p={self.p}, layer={self.layer}"


class _AsFloat(torch.autograd.Function):
    """The bits of integers as floats, under ``vmap`` too, for which older versions of PyTorch have no rule."""

    @staticmethod
    def forward(bits: Int32[Tensor, "..."]) -> Float32[Tensor, "..."]:
        return bits.view(torch.float32)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], bits: Tensor) -> tuple[Tensor, int | None]:
        return _AsFloat.apply(bits), in_dims[0]  # type: ignore[no-untyped-call]


def _count(n: int, device: torch.device) -> Int32[Tensor, " n"]:
    return torch.arange(n, dtype=torch.int32, device=device)


def _mix(h: Tensor) -> Tensor:
    """Mix the bits of integers by a bijective avalanche."""
    h = (h ^ ((h >> 16) & 0xFFFF)) * _MULTIPLIERS[0]
    h = (h ^ ((h >> 15) & 0x1FFFF)) * _MULTIPLIERS[1]
    return h ^ ((h >> 16) & 0xFFFF)


def replace_dropout(module: nn.Module) -> nn.Module:
    """Replace every ``nn.Dropout`` by :class:`SeededDropout`; parameters and their names do not
    change.
    """
    places = {n: m for n, m in module.named_modules(remove_duplicate=False) if type(m) is nn.Dropout}
    for layer, (name, dropout) in enumerate(places.items()):
        module.set_submodule(name, SeededDropout(dropout.p, layer))
    module.register_forward_pre_hook(lambda module, _: count_calls_anew(module))
    return module


@contextmanager
def dropout_at(module: nn.Module, place: Int64[Tensor, ""]) -> Iterator[None]:
    """Give a batch of one record, within this context, the masks of the record at ``place`` of its
    batch.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, SeededDropout)]
    for layer in layers:
        layer.place = place
    try:
        yield
    finally:
        for layer in layers:
            layer.place = None


def count_calls_anew(module: nn.Module) -> None:
    """Reset the number of calls of every dropout layer, at the start of a forward pass."""
    for layer in module.modules():
        if isinstance(layer, SeededDropout):
            layer.calls = 0
