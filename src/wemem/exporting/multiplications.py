"""Multiplications of a forward pass, one function per kind of layer.

A layer uses each of its weights once at every position: an output pixel of a convolution, an input
pixel of a transposed one, a time step of a recurrent layer, a token of attention. Padding and the
cropped edge of a transposed convolution count like any other position. The two products of
attention between tokens have no weights and count in full, and so do products in the code of a
model (:mod:`wemem.exporting.products`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from wemem.errors import InputError
from wemem.exporting.products import CountedProducts
from wemem.pruning.layers import CONVOLUTIONS, TRANSPOSED, WEIGHTED, first_line, outermost


@dataclass(frozen=True)
class Multiplications:
    """The multiply-accumulate operations for one record.

    Args:
        all: the number of operations.
        nonzero: the number of operations without a zero weight.
    """

    all: int = 0
    nonzero: int = 0

    def __add__(self, other: "Multiplications") -> "Multiplications":
        return Multiplications(self.all + other.all, self.nonzero + other.nonzero)


def multiplications(module: nn.Module, input_shape: tuple[int, ...]) -> Multiplications:
    """Count the multiplications of one record of zeros, of the type of :func:`accepted_zeros`.

    Raises:
        InputError: as :func:`accepted_zeros`.

    >>> multiplications(nn.Linear(3, 2), (3,)).all
    6
    """
    counts: list[Multiplications] = []

    def count(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object) -> None:
        counts.append(_layer_multiplications(layer, args, kwargs, output))

    hooks: list[RemovableHandle] = []
    was_training = module.training
    try:
        zeros = accepted_zeros(module.eval(), input_shape)
        hooks += [layer.register_forward_hook(count, with_kwargs=True) for _, layer in outermost(module, WEIGHTED)]
        with torch.no_grad(), CountedProducts() as products:
            module(zeros)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return sum(counts, Multiplications(products.total, products.total))


def accepted_zeros(module: nn.Module, input_shape: tuple[int, ...], batch: int = 1) -> Tensor:
    """Zeros ``(batch, *input_shape)`` of the first type that a module in evaluation mode computes
    with: float32 or int64.

    Raises:
        InputError: the module fails on both types.

    >>> accepted_zeros(nn.Embedding(5, 2), (3,), batch=2).dtype
    torch.int64
    """
    failures: list[Exception] = []
    for dtype in (torch.float32, torch.int64):
        zeros = torch.zeros(batch, *input_shape, dtype=dtype)
        try:
            with torch.no_grad():
                module(zeros)
        except InputError:
            raise
        except Exception as error:  # the code of the model is the user's and may raise anything
            failures.append(error)
        else:
            return zeros
    raise InputError(
        f"the model fails on input of shape {(batch, *input_shape)}: {first_line(failures[0])}; check its shape"
    ) from failures[0]


def _layer_multiplications(
    layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> Multiplications:
    if isinstance(layer, nn.MultiheadAttention):
        return _attention(layer, *(args[i] if i < len(args) else kwargs[name] for i, name in enumerate(_QUERIES)))
    rule = next(rule for kinds, rule in _POSITIONS.items() if isinstance(layer, kinds))
    return _uses(weights_of(layer), rule(layer, args[0] if args else next(iter(kwargs.values())), output))


def weights_of(layer: nn.Module) -> list[Tensor]:
    """The weight matrices and kernels of a layer after any parametrization, without its biases."""
    names = [name for name, _ in layer.named_parameters(recurse=False)] + list(getattr(layer, "parametrizations", ()))
    return [getattr(layer, name) for name in names if "weight" in name]


def _uses(weights: list[Tensor], positions: int) -> Multiplications:
    nonzero = sum(int(weight.count_nonzero()) for weight in weights)
    return Multiplications(sum(weight.numel() for weight in weights) * positions, nonzero * positions)


_QUERIES = ("query", "key", "value")


def _attention(layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Multiplications:
    """The multiplications of the four projections, of ``query @ key`` and of ``attention @ value``."""
    queries, keys = query.numel() // layer.embed_dim, key.numel() // key.shape[-1]
    if layer.in_proj_weight is None:
        projections = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    else:
        projections = list(layer.in_proj_weight.chunk(3))
    uses = (queries, keys, keys)
    products = 2 * queries * keys * layer.embed_dim
    return sum(
        (_uses([weight], positions) for weight, positions in zip(projections, uses, strict=True)),
        _uses([layer.out_proj.weight], queries) + Multiplications(products, products),
    )


def _of_outputs(layer: Any, _: Tensor, output: Tensor) -> int:
    return output.numel() // int(layer.out_features)


def _of_output_pixels(layer: Any, _: Tensor, output: Tensor) -> int:
    return output.numel() // int(layer.out_channels)


def _of_input_pixels(layer: Any, x: Tensor, _: object) -> int:
    return x.numel() // int(layer.in_channels)


def _of_steps(layer: Any, x: Any, _: object) -> int:
    data = x.data if isinstance(x, nn.utils.rnn.PackedSequence) else x
    return int(data.numel() // layer.input_size)


#: The number of positions at which a layer of each kind uses its weights, from the layer, its input
#: and its output.
_POSITIONS: Mapping[tuple[type[nn.Module], ...], Callable[[Any, Any, Any], int]] = {
    (nn.Linear, nn.Bilinear): _of_outputs,
    CONVOLUTIONS: _of_output_pixels,
    TRANSPOSED: _of_input_pixels,
    (nn.RNNBase, nn.RNNCellBase): _of_steps,
}
