"""The layers of a model that can be pruned, determined from its structure and from one forward
pass.

The weight matrices and kernels of linear, convolution (also transposed), recurrent and attention
layers that run are prunable, and on request those of embeddings. The classifier is not pruned. It
consists of the layers whose output reaches the model's output without passing through another
layer. It is determined by tracing the computation back from the output, so that the order in which
a model defines its layers does not matter.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from wemem.errors import InputError
from wemem.resolve import did_you_mean

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
#: Layers that are pruned unless they are the classifier.
WEIGHTED = (nn.Linear, nn.Bilinear, *CONVOLUTIONS, *TRANSPOSED, *RECURRENT, nn.MultiheadAttention)
#: The name of the tensor whose zeros become zeros of the weight, by parametrization.
_ZERO_PRESERVING: Mapping[type[nn.Module], str] = {
    parametrizations._WeightNorm: "original1",
    parametrizations._SpectralNorm: "original",
}


@dataclass(frozen=True)
class LayerChoice:
    """A choice of the layers that are not pruned.

    Args:
        classifier: the name of the layer that computes the logits; None determines it from a
            forward pass.
        ignored_layers: the names of further layers that are not pruned, or of modules of which no
            layer is pruned.
        embeddings: True to prune embedding tables too.
    """

    classifier: str | None = None
    ignored_layers: tuple[str, ...] = ()
    embeddings: bool = False

    @property
    def kinds(self) -> tuple[type[nn.Module], ...]:
        """The types of the layers that may be pruned."""
        return (*WEIGHTED, *EMBEDDINGS) if self.embeddings else WEIGHTED

    def ignores(self, name: str) -> bool:
        """Return True if a layer of this name is ignored, or lies in an ignored module."""
        return any(name == ignored or name.startswith(f"{ignored}.") for ignored in self.ignored_layers)


@dataclass(frozen=True)
class TracedLayers:
    """The names of the layers of one forward pass.

    Args:
        ran: the layers that ran, in the order in which the model defines them.
        outputs: the layers whose output reaches the model's output through no other layer.
    """

    ran: tuple[str, ...]
    outputs: frozenset[str]


def trace_layers(
    module: nn.Module, example: Shaped[Tensor, "B ..."], kinds: tuple[type[nn.Module], ...] = (*WEIGHTED, *EMBEDDINGS)
) -> TracedLayers:
    """Trace the layers of given types that run on an example, and those among them that compute the
    output.

    Args:
        module: the network, of which a copy is run in evaluation mode.
        example: records of the form that the network accepts.
        kinds: the types of layers to trace; a layer inside another one of these types is part of
            that layer.

    Raises:
        InputError: the model fails on the example.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> trace_layers(network, torch.zeros(1, 4))
    TracedLayers(ran=('0', '2'), outputs=frozenset({'2'}))
    """
    module = copy.deepcopy(module).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # the path is traced through gradients
    names = {layer: name for name, layer in outermost(module, kinds)}
    origin: dict[Any, str] = {}
    ran: list[str] = []

    def note(layer: nn.Module, _: object, output: object) -> None:
        ran.append(names[layer])
        origin.update({tensor.grad_fn: names[layer] for tensor in _tensors(output) if tensor.grad_fn is not None})

    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        with torch.enable_grad():
            ends = [tensor.grad_fn for tensor in _tensors(module(example))]
    except InputError:
        raise
    except Exception as error:  # the code of the model is the user's and may raise anything
        raise InputError(
            f"the model fails on input of shape {tuple(example.shape)}: {first_line(error)}; check its input"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    outputs = _first_met(ends, origin) or set(ran[-1:])
    return TracedLayers(tuple(name for name in names.values() if name in ran), frozenset(outputs))


def outermost(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over the layers of given types, each once, without those inside another one of these
    types.
    """
    inside: set[nn.Module] = set()
    for name, layer in module.named_modules():
        if isinstance(layer, kinds) and layer not in inside:
            inside.update(layer.modules())
            yield name, layer


def _tensors(output: object) -> list[Tensor]:
    """All tensors of a layer's output: a tensor, or tuples, lists and mappings of them."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in _tensors(value)]
    return [tensor for value in output for tensor in _tensors(value)] if isinstance(output, tuple | list) else []


def _first_met(ends: list[Any], origin: Mapping[Any, str]) -> set[str]:
    """The names of the layers that a path back from the output meets first."""
    ahead, seen, first = list(ends), set(), set()
    while ahead:
        step = ahead.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in origin:
            first.add(origin[step])
        else:
            ahead += [before for before, _ in step.next_functions]
    return first


def hidden_layers(module: nn.Module, example: Shaped[Tensor, "B ..."], choice: LayerChoice) -> list[str]:
    """List the names of the layers that run and are neither the classifier nor ignored, in the
    order of definition.

    Raises:
        InputError: a name in the choice is no layer of the model, or no layer remains to prune.
    """
    layers = dict(module.named_modules())
    for name in (*choice.ignored_layers, *([] if choice.classifier is None else [choice.classifier])):
        if name not in layers:
            raise InputError(
                f"expected names of the model's layers in [pruning], got {name!r}{did_you_mean(name, layers)}"
            )
    traced = trace_layers(module, example)
    output = traced.outputs if choice.classifier is None else {choice.classifier}
    of_classifier = {id(p) for name in output for p in layers[name].parameters()}
    hidden = [
        name for name in traced.ran
        if isinstance(layers[name], choice.kinds)
        and name not in output
        and not choice.ignores(name)
        and not of_classifier & {id(p) for p in layers[name].parameters()}  # a weight shared with the classifier
    ]  # fmt: skip
    if not hidden:
        raise InputError(
            "expected a hidden linear, convolution, recurrent or attention layer to prune, got none besides the "
            "classifier; name another layer by pruning.classifier, or add one to the model"
        )
    return hidden


def prunable_weights(module: nn.Module, example: Shaped[Tensor, "B ..."], choice: LayerChoice) -> list[str]:
    """List the names of the tensors that masks may prune, each once, including those of frozen
    layers.

    Raises:
        InputError: :func:`hidden_layers` refuses the model, or the parametrization of a weight does
            not preserve zeros.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    names = []
    for layer in hidden_layers(module, example, choice):
        submodule = module.get_submodule(layer)
        _require_zeros_preserved(submodule, layer)
        names += [name for name in _weights_of(submodule, layer) if name in state]
    return list(dict.fromkeys(names))


def _weights_of(layer: nn.Module, prefix: str) -> Iterator[str]:
    """The names of a layer's weight matrices and kernels, without biases."""
    for name, module in layer.named_modules(prefix=prefix):
        start = f"{name}." if name else ""
        for leaf, tensor in module.named_parameters(recurse=False):
            if tensor.ndim > 1 and "weight" in leaf:
                yield f"{start}{leaf}"
        for leaf, steps in getattr(module, "parametrizations", {}).items():
            if "weight" in leaf:
                yield f"{start}parametrizations.{leaf}.{_ZERO_PRESERVING[type(steps[0])]}"


def _require_zeros_preserved(layer: nn.Module, name: str) -> None:
    """Refuse a layer with a weight whose parametrization does not preserve zeros."""
    for leaf, steps in getattr(layer, "parametrizations", {}).items():
        if len(steps) > 1 or type(steps[0]) not in _ZERO_PRESERVING:
            kinds = ", ".join(type(step).__name__ for step in steps)
            raise InputError(
                f"expected weights that can be set to zero, got {leaf!r} of layer {name!r} computed by {kinds}; "
                f"add {name!r} to pruning.ignored_layers, or remove the parametrization"
            )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its type."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
