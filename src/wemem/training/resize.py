"""Reduction of a network to tensors of given shapes, such as those after structured pruning."""

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from wemem.errors import InputError

#: Layers whose channels can be removed, and that hold the number of their channels.
RESIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, _NormBase, nn.LayerNorm, nn.PReLU)


def resized(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Reduce a module to tensors of given shapes; the tensors that change are filled with zeros.

    Args:
        module: the network in its full size, which is not changed; it is returned if its tensors
            have those shapes.
        shapes: the new shapes by the names of parameters and buffers; other tensors keep their
            shape.

    Raises:
        InputError: a shape exceeds that of the module, or belongs to a layer that is not one of
            :data:`RESIZABLE`.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> resized(network, {"0.weight": (1, 4), "0.bias": (1,), "1.weight": (2, 1)})
    Sequential(
      (0): Linear(in_features=4, out_features=1, bias=True)
      (1): Linear(in_features=1, out_features=2, bias=True)
    )
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    changed = {
        name: tuple(shapes[name])
        for name, tensor in state.items()
        if tuple(shapes.get(name, tensor.shape)) != tensor.shape
    }
    if not changed:
        return module
    smaller = copy.deepcopy(module)
    touched = set()
    for name, shape in changed.items():
        full = tuple(state[name].shape)
        prefix, _, leaf = name.rpartition(".")
        layer = smaller.get_submodule(prefix)
        if not isinstance(layer, RESIZABLE):
            raise InputError(
                f"expected {name!r} of shape {full}, got {shape}; channels can be removed from linear, convolution, "
                f"batch and layer norm layers, not from {type(layer).__name__}"
            )
        if len(shape) != len(full) or not all(0 < n <= most for n, most in zip(shape, full, strict=True)):
            raise InputError(f"expected {name!r} of shape {full} or less in each dimension, got {shape}")
        zeros = torch.zeros(shape, dtype=state[name].dtype, device=state[name].device)
        if leaf in layer._parameters:
            layer._parameters[leaf] = nn.Parameter(zeros, requires_grad=state[name].requires_grad)
        else:
            layer._buffers[leaf] = zeros
        touched.add(prefix)
    for prefix in touched:
        _state_size(smaller.get_submodule(prefix))
    return smaller


def _state_size(layer: nn.Module) -> None:
    """Set the attributes of a layer that hold its sizes, from the shapes of its tensors."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
        if layer.groups > 1:  # depthwise: one filter per channel
            layer.in_channels = layer.groups = layer.out_channels
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, _NormBase):
        layer.num_features = len(next(t for t in (layer.running_mean, layer.weight) if t is not None))
