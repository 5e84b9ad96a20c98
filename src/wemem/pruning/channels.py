"""Structured pruning: whole filters of convolution layers and neurons of linear layers, really removed.

Channels that other layers tie together, by a residual connection or a depthwise convolution, go together, and their
importance is summed over the filters of all layers that make them. Weights of layers that read a channel do not
count, in which we differ from the default of the library that finds the ties (torch-pruning: Fang et al., CVPR 2023;
we use its dependency graph alone).

Sparsity is the share of each layer's filters that is removed, ``round(sparsity * filters)`` of the dense model's,
though one always stays. Every model of an ensemble loses as many, each its own, so that the models still stack. The
classifier is not pruned (:mod:`wemem.pruning.layers`), and neither are the inputs that a model reads.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.pruning.layers import CONVOLUTIONS, LayerChoice, first_line, trace_layers
from wemem.training.ensemble import Ensemble
from wemem.training.resize import RESIZABLE, resized

REMEDY = "use pruning.method = 'magnitude'"
_FILTERS = (nn.Linear, *CONVOLUTIONS)


@dataclass(frozen=True, eq=False)
class Cut:
    """Where the channels of a group lie in one dimension of one tensor.

    Args:
        tensor: name of the tensor.
        dimension: a dimension of one model's tensor.
        places: indices in that dimension.
        channels: the channel of the group that each index belongs to; a flattened image has several of one channel.
    """

    tensor: str
    dimension: int
    places: Int64[Tensor, " p"]
    channels: Int64[Tensor, " p"]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that must be removed together.

    Args:
        root: name of a layer that makes exactly these channels.
        size: C, the number of channels.
        makers: cuts of the filters that make the channels, by the layer's name.
        cuts: the parts of all tensors that go with the channels, those of the makers among them.
    """

    root: str
    size: int
    makers: Mapping[str, Cut]
    cuts: tuple[Cut, ...]


#: The importance of the channels of a group, of every model.
ChannelImportance = Callable[[Ensemble, Group], Float[Tensor, "K C"]]


def remove_least(
    ensemble: Ensemble, sparsity: float, importance: ChannelImportance, example: Shaped[Tensor, "B ..."],
    choice: LayerChoice | None = None,
) -> Ensemble:  # fmt: skip
    """The ensemble without its least important channels. Ties go by position.

    Args:
        ensemble: K models; channels that they have lost already count.
        sparsity: share of the dense model's channels of each layer that are gone afterwards.
        importance: of the channels of a group.
        example: records that the models can be called with.
        choice: the layers to leave alone; by default the classifier that the forward pass shows.

    Raises:
        InputError: more is gone already, or as :func:`coupled_channels`.
    """
    groups = coupled_channels(ensemble.template, example, choice)
    pruned = _without(ensemble, groups, [_least(ensemble, group, sparsity, importance) for group in groups])
    try:
        with torch.no_grad():
            pruned.module(0)(example)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"the model does not run with fewer channels: {first_line(error)}; it fixes their number, so {REMEDY}"
        ) from error
    return pruned


def restrict_channels(
    dense: Ensemble, kept: Mapping[str, Bool[Tensor, "K _"]], example: Shaped[Tensor, "B ..."],
    choice: LayerChoice | None = None,
) -> Ensemble:  # fmt: skip
    """A dense ensemble with only the channels that another one kept (:attr:`Ensemble.channels`)."""
    groups = coupled_channels(dense.template, example, choice)
    return _without(dense, groups, [~kept[group.root] for group in groups])


def sum_over_filters(
    ensemble: Ensemble, group: Group, value: Callable[[Float[Tensor, "K C n"]], Float[Tensor, "K C n"]]
) -> Float[Tensor, "K C"]:
    """The sum of a value of each weight over all filters that make a channel."""
    total = torch.zeros(len(ensemble), group.size, dtype=torch.float64)
    state = {**ensemble.parameters, **ensemble.buffers}
    for cut in group.makers.values():
        filters = state[cut.tensor].detach()[:, cut.places].flatten(2).double()
        total.index_add_(1, cut.channels, value(filters).sum(2))
    return total


def coupled_channels(
    template: nn.Module, example: Shaped[Tensor, "B ..."], choice: LayerChoice | None = None
) -> list[Group]:
    """All channels of a model that can be removed, in groups of those that must go together.

    Raises:
        InputError: torch-pruning is not installed, the model has no hidden layer, or it has layers whose channels
            cannot be removed.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise InputError(
            "expected torch-pruning for structured pruning, got none; pip install wemem[structured]"
        ) from error
    module = copy.deepcopy(template).eval()
    for parameter in module.parameters():
        parameter.requires_grad_()  # channels are followed by gradients
    _require_separate_weights(module)
    ignored = _ignored(module, example[:1], choice or LayerChoice())
    with torch.enable_grad():
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(module, example[:1], verbose=False)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"the model's channels cannot be traced: {first_line(error)}; {REMEDY}") from error
    names = {layer: name for name, layer in module.named_modules()}
    tied = graph.get_all_groups(ignored_layers=ignored, root_module_types=_FILTERS)
    groups = [_group(graph, items, names) for items in tied]
    if not groups:
        raise InputError("expected a hidden linear or convolution layer to prune, got none besides the classifier")
    return groups


def _ignored(module: nn.Module, example: Tensor, choice: LayerChoice) -> list[nn.Module]:
    """The layers that make no channels to remove: the classifier, and those that the choice names."""
    outputs = trace_layers(module, example, _FILTERS).outputs if choice.classifier is None else {choice.classifier}
    chosen = [name for name, _ in module.named_modules() if choice.ignores(name)]
    return [module.get_submodule(name) for name in sorted({*outputs, *chosen})]


def _require_separate_weights(module: nn.Module) -> None:
    owned = [p for layer in module.modules() for p in layer.parameters(recurse=False)]
    if len({id(p) for p in owned}) < len(owned):
        raise InputError("expected layers with weights of their own for structured pruning, got two that share one")


def _group(graph: Any, items: Any, names: Mapping[nn.Module, str]) -> Group:
    root, size = names[items[0].dep.target.module], len(items[0].idxs)
    makers: dict[str, Cut] = {}
    cuts: list[Cut] = []
    for item in items:
        dep, places = item
        layer = dep.target.module
        if not (isinstance(layer, nn.Parameter) or (layer in names and _has_state(layer))):
            continue
        if not isinstance(layer, RESIZABLE):
            raise InputError(
                f"structured pruning removes channels of linear, convolution, batch and layer norm layers, got "
                f"{type(layer).__name__} among them; {REMEDY}"
            )
        out = graph.is_out_channel_pruning_fn(dep.handler)
        own = _cuts_of(names[layer], layer, out, torch.tensor(places), torch.tensor(item.root_idxs))
        cuts += own
        if out and isinstance(layer, _FILTERS):
            if not len(places) == len(layer.get_parameter("weight")) == size:
                raise InputError(
                    f"structured pruning removes as many filters of every model, but only some of {names[layer]!r} are "
                    f"tied to {root!r}, so that their number would vary; {REMEDY}"
                )
            makers[names[layer]] = own[0]
    return Group(root, size, dict(sorted(makers.items())), tuple(cuts))


def _has_state(layer: nn.Module) -> bool:
    """Whether it has tensors of its own along channels."""
    return any(t.dim() for t in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))


def _cuts_of(name: str, layer: nn.Module, out: bool, places: Tensor, channels: Tensor) -> list[Cut]:
    """The parts of a layer's tensors that belong to channels it makes (``out``), or reads."""
    if (
        isinstance(layer, CONVOLUTIONS)
        and layer.groups > 1
        and not layer.groups == layer.in_channels == layer.out_channels
    ):
        raise InputError(
            f"structured pruning knows plain and depthwise convolutions, got {name!r} with {layer.groups} groups; use "
            "pruning.method = 'magnitude'"
        )
    reads = not out and isinstance(layer, _FILTERS)
    tensors = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return []  # all channels share it
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1:
        raise InputError(
            f"structured pruning knows layer norm over one dimension, got {name!r} over {len(layer.normalized_shape)}; "
            f"{REMEDY}"
        )
    return [
        Cut(f"{name}.{leaf}", int(reads), places, channels)
        for leaf in (("weight",) if reads else ("weight", "bias", "running_mean", "running_var"))
        if tensors.get(leaf) is not None and tensors[leaf].dim()
    ]


def _least(
    ensemble: Ensemble, group: Group, sparsity: float, importance: ChannelImportance
) -> Bool[Tensor, "K C"]:  # fmt: skip
    """The channels of a group that go, marked True."""
    kept = ensemble.channels.get(group.root)
    dense = group.size if kept is None else kept.shape[1]
    count = min(round(sparsity * dense), dense - 1) - (dense - group.size)
    if count < 0:
        least = (dense - group.size) / dense
        raise InputError(f"expected a sparsity of at least {least:.4f}, got {sparsity}; removed channels do not return")
    order = importance(ensemble, group).sort(dim=1, stable=True).indices
    gone = torch.zeros(len(ensemble), group.size, dtype=torch.bool)
    return gone.scatter_(1, order[:, :count], value=True)


def _state(ensemble: Ensemble) -> dict[str, Tensor]:
    return {**ensemble.parameters, **ensemble.buffers}


def _without(ensemble: Ensemble, groups: Sequence[Group], gone: Sequence[Bool[Tensor, "K _"]]) -> Ensemble:
    """The ensemble without the channels of each group that are gone."""
    state, channels = _state(ensemble), dict(ensemble.channels)
    kept: dict[tuple[str, int], Bool[Tensor, "K n"]] = {}
    for group, lost in zip(groups, gone, strict=True):
        for cut in group.cuts:
            where = (cut.tensor, cut.dimension)
            if where not in kept:
                kept[where] = torch.ones(len(ensemble), state[cut.tensor].shape[1 + cut.dimension], dtype=torch.bool)
            kept[where][:, cut.places] &= ~lost[:, cut.channels]
    for layer, cut in {name: cut for group in groups for name, cut in group.makers.items()}.items():
        channels[layer] = _narrowed(channels.get(layer), kept[cut.tensor, 0])
    for (name, dimension), mask in kept.items():
        state[name] = torch.stack([t[_along(dimension, m)] for t, m in zip(state[name], mask, strict=True)])
    return replace(
        ensemble,
        template=resized(ensemble.template, {name: tuple(t.shape[1:]) for name, t in state.items()}),
        parameters={name: state[name].contiguous() for name in ensemble.parameters},
        buffers={name: state[name].contiguous() for name in ensemble.buffers},
        masks={},
        channels=channels,
    )


def _along(dimension: int, mask: Bool[Tensor, " n"]) -> tuple[slice | Tensor, ...]:
    return (*[slice(None)] * dimension, mask)


def _narrowed(before: Bool[Tensor, "K C"] | None, kept: Bool[Tensor, "K c"]) -> Bool[Tensor, "K C"]:
    """The dense model's channels that are left when some of the earlier ones were kept."""
    if before is None:
        return kept
    after = torch.zeros_like(before)
    after[before] = kept.flatten()  # both in order of models, and of channels within one
    return after
