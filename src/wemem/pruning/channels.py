"""Structured pruning: removal of whole filters of convolution layers and of whole neurons of linear
layers.

Channels that a residual connection or a depthwise convolution couples are removed together, and
their importance is summed over the filters of all layers that compute them. The weights of layers
that read a channel do not count, unlike in the default of torch-pruning (Fang et al., CVPR 2023),
of which we use the dependency graph alone.

Sparsity is the share of the dense model's filters that each layer loses: ``round(sparsity *
filters)``, but at least one filter always stays. Every model of an ensemble loses the same number
of filters, though not the same ones, so that the models still stack. The classifier
(:mod:`wemem.pruning.layers`) and the inputs of a model are not pruned.
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

REMEDY = "use pruning.method = 'magnitude', or 'heads_and_neurons' for a transformer"
_FILTERS = (nn.Linear, *CONVOLUTIONS)


@dataclass(frozen=True, eq=False)
class Cut:
    """The indices of a group's channels in one dimension of one tensor.

    Args:
        tensor: the name of the tensor.
        dimension: the dimension of one model's tensor.
        places: the indices in that dimension.
        channels: the channel of the group to which each index belongs; in a flattened image several
            indices belong to one channel.
    """

    tensor: str
    dimension: int
    places: Int64[Tensor, " p"]
    channels: Int64[Tensor, " p"]


@dataclass(frozen=True, eq=False)
class Group:
    """A group of channels that must be removed together.

    Args:
        root: the name of a layer that computes exactly these channels.
        size: C, the number of channels, each of one filter of the root or, for heads of attention,
            of as many as a head is wide.
        makers: the cuts of the filters that compute the channels, by the name of their layer.
        cuts: the parts of all tensors that are removed with the channels, including those in
            ``makers``.
    """

    root: str
    size: int
    makers: Mapping[str, Cut]
    cuts: tuple[Cut, ...]


#: A function that computes the importance of a group's channels in every model.
ChannelImportance = Callable[[Ensemble, Group], Float[Tensor, "K C"]]
#: A function that lists the groups of a model, from the model, an example and the choice of layers.
FindGroups = Callable[[nn.Module, Shaped[Tensor, "B ..."], LayerChoice], Sequence[Group]]


def remove_least(
    ensemble: Ensemble, sparsity: float, importance: ChannelImportance, example: Shaped[Tensor, "B ..."],
    choice: LayerChoice | None = None, find: FindGroups | None = None,
) -> Ensemble:  # fmt: skip
    """Remove the least important channels of an ensemble; ties are decided by position.

    Args:
        ensemble: the K models; channels that they have already lost count towards the sparsity.
        sparsity: the share of the dense model's channels of each layer that is missing afterwards.
        importance: the function that computes the importance of a group's channels.
        example: records of the form that the models accept.
        choice: the layers that are not pruned; None leaves out the classifier, which the forward
            pass reveals.
        find: the function that lists the groups of channels; None means :func:`coupled_channels`.

    Raises:
        InputError: the models have already lost more, or the groups cannot be found.
    """
    groups = (find or coupled_channels)(ensemble.template, example, choice or LayerChoice())
    pruned = _without(ensemble, groups, [_least(ensemble, group, sparsity, importance) for group in groups])
    try:
        with torch.no_grad():
            pruned.module(0)(example)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"the model does not run with fewer channels: {first_line(error)}; its code fixes their number, so {REMEDY}"
        ) from error
    return pruned


def restrict_channels(
    start: Ensemble, keep: Mapping[str, Bool[Tensor, "K _"]], example: Shaped[Tensor, "B ..."],
    choice: LayerChoice | None = None, find: FindGroups | None = None,
) -> Ensemble:  # fmt: skip
    """Reduce an ensemble to the remaining channels of one that is pruned further
    (:attr:`Ensemble.channels`).
    """
    groups = (find or coupled_channels)(start.template, example, choice or LayerChoice())
    return _without(start, groups, [_lost_since(start, group, keep[group.root]) for group in groups])


def _lost_since(start: Ensemble, group: Group, keep: Bool[Tensor, "K F"]) -> Bool[Tensor, "K C"]:
    """A mask of the channels of a group that are not kept, of those that the ensemble still has."""
    before = start.channels.get(group.root)
    still_there = keep if before is None else keep[before].view(len(start), -1)
    return ~still_there.view(len(start), group.size, -1).all(2)


def sum_over_filters(
    ensemble: Ensemble, group: Group, value: Callable[[Float[Tensor, "K C n"]], Float[Tensor, "K C n"]]
) -> Float[Tensor, "K C"]:
    """Sum a function of each weight over all filters that compute a channel."""
    total = torch.zeros(len(ensemble), group.size, dtype=torch.float64)
    state = {**ensemble.parameters, **ensemble.buffers}
    for cut in group.makers.values():
        filters = state[cut.tensor].detach()[:, cut.places].flatten(2).double()
        total.index_add_(1, cut.channels, value(filters).sum(2))
    return total


def coupled_channels(
    template: nn.Module, example: Shaped[Tensor, "B ..."], choice: LayerChoice | None = None
) -> list[Group]:
    """List all channels of a model that can be removed, in groups that must be removed together.

    Raises:
        InputError: torch-pruning is not installed, the model has no hidden layer, or it has layers
            whose channels cannot be removed.
    """
    graph, tied, names = trace_channels(template, example, choice or LayerChoice())
    groups = [group_of(graph, items, names) for items in tied]
    if not groups:
        raise InputError(
            f"expected a hidden linear or convolution layer to prune, got none besides the classifier"
            f"{unremovable(template)}; {REMEDY}"
        )
    return groups


def unremovable(module: nn.Module) -> str:
    """A clause for messages that names the layers of a model whose channels cannot be removed: the
    sizes of recurrent layers and of packed attention are fixed in their code; empty without any.
    """
    layers = [
        f"{type(layer).__name__} {name!r}" for name, layer in module.named_modules()
        if isinstance(layer, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention)
    ]  # fmt: skip
    return f", and {', '.join(layers[:3])}, whose parts cannot be removed" if layers else ""


def trace_channels(
    template: nn.Module, example: Shaped[Tensor, "B ..."], choice: LayerChoice
) -> tuple[Any, list[Any], Mapping[nn.Module, str]]:
    """Trace the channels of a model: the dependency graph, the groups in it, and the names of the
    layers.

    Raises:
        InputError: torch-pruning is not installed, or the model cannot be traced.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise InputError(
            "expected torch-pruning for structured pruning, got none; pip install wemem[structured]"
        ) from error
    module = copy.deepcopy(template).eval()
    for parameter in module.parameters():
        parameter.requires_grad_()  # channels are traced through gradients
    _require_separate_weights(module)
    ignored = _ignored(module, example[:1], choice)
    with torch.enable_grad():
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(module, example[:1], verbose=False)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise InputError(
                f"expected a model whose channels can be traced, got {first_line(error)}{unremovable(module)}; {REMEDY}"
            ) from error
    names = {layer: name for name, layer in module.named_modules()}
    return graph, list(graph.get_all_groups(ignored_layers=ignored, root_module_types=_FILTERS)), names


def _ignored(module: nn.Module, example: Tensor, choice: LayerChoice) -> list[nn.Module]:
    """The layers whose own channels are not removed: the classifier, and those that the choice
    names.
    """
    outputs = trace_layers(module, example, _FILTERS).outputs if choice.classifier is None else {choice.classifier}
    chosen = [name for name, _ in module.named_modules() if choice.ignores(name)]
    return [module.get_submodule(name) for name in sorted({*outputs, *chosen})]


def _require_separate_weights(module: nn.Module) -> None:
    weights = [p for layer in module.modules() for p in layer.parameters(recurse=False)]
    if len({id(p) for p in weights}) < len(weights):
        raise InputError("expected layers that share no weights for structured pruning, got two that share one")


def group_of(graph: Any, items: Any, names: Mapping[nn.Module, str]) -> Group:
    """Read one group of the dependency graph.

    Raises:
        InputError: the group has layers whose channels cannot be removed.
    """
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
        layer_cuts = _cuts_of(names[layer], layer, out, torch.tensor(places), torch.tensor(item.root_idxs))
        cuts += layer_cuts
        if out and isinstance(layer, _FILTERS):
            if not len(places) == len(layer.get_parameter("weight")) == size:
                raise InputError(
                    f"structured pruning removes as many filters of every model, but only some of {names[layer]!r} are "
                    f"tied to {root!r}, so that their number would vary; {REMEDY}"
                )
            makers[names[layer]] = layer_cuts[0]
    return Group(root, size, dict(sorted(makers.items())), tuple(cuts))


def _has_state(layer: nn.Module) -> bool:
    """Return True if a layer has parameters or buffers that are indexed by channel."""
    return any(t.dim() for t in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))


def _cuts_of(name: str, layer: nn.Module, out: bool, places: Tensor, channels: Tensor) -> list[Cut]:
    """The parts of a layer's tensors that belong to channels that it computes (``out``) or reads."""
    if (
        isinstance(layer, CONVOLUTIONS)
        and layer.groups > 1
        and not layer.groups == layer.in_channels == layer.out_channels
    ):
        raise InputError(
            f"structured pruning supports plain and depthwise convolutions, got {name!r} with {layer.groups} groups; "
            f"{REMEDY}"
        )
    reads = not out and isinstance(layer, _FILTERS)
    tensors = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return []  # all channels share the parameter
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1:
        raise InputError(
            f"structured pruning supports layer norm over one dimension, got {name!r} over "
            f"{len(layer.normalized_shape)}; {REMEDY}"
        )
    return [
        Cut(f"{name}.{leaf}", int(reads), places, channels)
        for leaf in (("weight",) if reads else ("weight", "bias", "running_mean", "running_var"))
        if tensors.get(leaf) is not None and tensors[leaf].dim()
    ]


def _least(
    ensemble: Ensemble, group: Group, sparsity: float, importance: ChannelImportance
) -> Bool[Tensor, "K C"]:  # fmt: skip
    """A mask of the channels of a group to remove (True)."""
    remaining, filters = ensemble.channels.get(group.root), len(group.makers[group.root].places) // group.size
    dense = group.size if remaining is None else remaining.shape[1] // filters
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
    """The ensemble without the channels that are marked in ``gone``, a mask for each group."""
    state, channels = _state(ensemble), dict(ensemble.channels)
    keep: dict[tuple[str, int], Bool[Tensor, "K n"]] = {}
    for group, lost in zip(groups, gone, strict=True):
        for cut in group.cuts:
            where = (cut.tensor, cut.dimension)
            if where not in keep:
                keep[where] = torch.ones(len(ensemble), state[cut.tensor].shape[1 + cut.dimension], dtype=torch.bool)
            keep[where][:, cut.places] &= ~lost[:, cut.channels]
    for layer, cut in {name: cut for group in groups for name, cut in group.makers.items()}.items():
        channels[layer] = _narrowed(channels.get(layer), keep[cut.tensor, 0])
    for (name, dimension), mask in keep.items():
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


def _narrowed(before: Bool[Tensor, "K C"] | None, keep: Bool[Tensor, "K c"]) -> Bool[Tensor, "K C"]:
    """A mask of the dense model's remaining channels, from the mask before and the mask of those
    that remained then.
    """
    if before is None:
        return keep
    after = torch.zeros_like(before)
    after[before] = keep.flatten()  # both are ordered by model, then by channel
    return after
