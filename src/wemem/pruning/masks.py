"""Unstructured pruning: exact masks of single weights, in each layer or over all layers together."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from wemem.errors import InputError
from wemem.pruning.layers import LayerChoice, prunable_weights
from wemem.training.ensemble import Ensemble

Scope = Literal["layer", "global"]
Masks = Mapping[str, Bool[Tensor, "K ..."]]
#: A function that computes the importance of every weight of one tensor of K models; the lowest are
#: pruned.
WeightImportance = Callable[[Float[Tensor, "K ..."]], Float[Tensor, "K ..."]]


def weight_masks(
    ensemble: Ensemble, sparsity: float | Mapping[str, float], importance: WeightImportance,
    example: Shaped[Tensor, "B ..."], choice: LayerChoice | None = None, scope: Scope = "layer",
) -> dict[str, Bool[Tensor, "K ..."]]:  # fmt: skip
    """Compute masks (True = kept) that prune the ``round(sparsity * n)`` of ``n`` weights of the
    lowest importance.

    Pruned weights stay pruned, so that a model that is already pruned further loses no weight. Ties
    are decided by position.

    Args:
        ensemble: the models, with their masks so far.
        sparsity: the share of each layer's weights (scope ``layer``), or of all prunable weights
            (``global``); or a share for each tensor by its name, in scope ``layer``.
        importance: the function that computes the importance of weights.
        example: records of the form that the models accept.
        choice: the layers that are not pruned; None leaves out the classifier, which the forward
            pass reveals.
        scope: the weights that are compared with one another, those of a ``layer`` or all
            (``global``).

    Raises:
        InputError: the scope is unknown, or there is no prunable weight.
    """
    if scope not in ("layer", "global"):
        raise InputError(f"scope must be layer or global, got {scope!r}")
    state = {**ensemble.parameters, **ensemble.buffers}
    names = prunable_weights(ensemble.template, example, choice or LayerChoice())
    values = [_importance(ensemble, name, importance) for name in names]
    if isinstance(sparsity, Mapping):
        masks = [_keep_largest(of_layer, sparsity[name]) for name, of_layer in zip(names, values, strict=True)]
    elif scope == "layer":
        masks = [_keep_largest(of_layer, sparsity) for of_layer in values]
    else:
        joined = _keep_largest(torch.cat(values, 1), sparsity)
        masks = list(torch.split_with_sizes(joined, [of_layer.shape[1] for of_layer in values], dim=1))
    return {name: mask.view_as(state[name]) for name, mask in zip(names, masks, strict=True)}


def with_masks(ensemble: Ensemble, masks: Masks) -> Ensemble:
    """Apply masks to an ensemble, and set its pruned weights to zero.

    >>> from torch import nn
    >>> layer = Ensemble.from_modules([nn.Linear(2, 1)])
    >>> with_masks(layer, {"weight": torch.tensor([[[True, False]]])}).parameters["weight"][0, 0, 1].item()
    0.0
    """

    def masked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: t.masked_fill(~masks[name], 0.0) if name in masks else t for name, t in state.items()}

    return replace(
        ensemble, masks=dict(masks), parameters=masked(ensemble.parameters), buffers=masked(ensemble.buffers)
    )


def masks_of_zeros(ensemble: Ensemble, example: Shaped[Tensor, "B ..."], choice: LayerChoice) -> Ensemble:
    """Turn the exact zeros among the prunable weights of an ensemble into masks; without zeros it
    gets no masks.
    """
    state = {**ensemble.parameters, **ensemble.buffers}
    masks = {name: state[name] != 0 for name in prunable_weights(ensemble.template, example, choice)}
    return with_masks(ensemble, masks) if any(not mask.all() for mask in masks.values()) else ensemble


def _importance(ensemble: Ensemble, name: str, importance: WeightImportance) -> Float[Tensor, "K n"]:
    """The importance of a tensor's weights; it is -1 for weights that are already pruned, so that
    they stay pruned.
    """
    values = importance(_effective(ensemble, name)).flatten(1)
    mask = ensemble.masks.get(name)
    return values if mask is None else values.masked_fill(~mask.flatten(1), -1.0)


def _effective(ensemble: Ensemble, name: str) -> Float[Tensor, "K ..."]:
    """The weights that a layer uses, which a parametrization may compute from the tensor of that
    name.
    """
    layer, parametrized, rest = name.rpartition("parametrizations.")
    if not parametrized:
        return {**ensemble.parameters, **ensemble.buffers}[name].detach()
    leaf = rest.partition(".")[0]
    modules = [ensemble.module(k).get_submodule(layer.rstrip(".")) for k in range(len(ensemble))]
    return torch.stack([getattr(module, leaf).detach() for module in modules])


def _keep_largest(importance: Float[Tensor, "K n"], sparsity: float) -> Bool[Tensor, "K n"]:
    """A mask of all but the ``round(sparsity * n)`` weights of the lowest importance; pruned
    weights stay pruned.
    """
    count = round(sparsity * importance.shape[1])
    already = (importance < 0).sum(1, keepdim=True)
    order = importance.sort(dim=1, stable=True).indices
    keep = torch.arange(importance.shape[1]) >= already.clamp(min=count)
    return torch.empty_like(keep.expand_as(importance)).scatter_(1, order, keep.expand_as(importance))


def pruned_share(ensemble: Ensemble) -> float:
    """Compute the share of pruned weights among the prunable ones, or of removed channels, over all
    models.
    """
    masks = [*ensemble.masks.values(), *ensemble.channels.values()]
    return sum(int((~mask).sum()) for mask in masks) / sum(mask.numel() for mask in masks) if masks else 0.0


def pruned_share_of_all(ensemble: Ensemble, dense: int) -> float:
    """Compute the share of all parameters of a model that pruning removed, over all models.

    Biases, norms, the classifier and all other parameters that no mask covers count as kept.

    Args:
        ensemble: the pruned models.
        dense: the number of parameters of one model before pruning.

    >>> from torch import nn
    >>> layer = Ensemble.from_modules([nn.Linear(3, 1)])
    >>> pruned_share_of_all(with_masks(layer, {"weight": torch.tensor([[[True, False, True]]])}), dense=4)
    0.25
    """
    named = dict(ensemble.template.named_parameters())
    left = sum(parameter.numel() for parameter in named.values()) * len(ensemble)
    zeros = sum(int((~mask).sum()) for name, mask in ensemble.masks.items() if name in named)
    return 1 - (left - zeros) / (dense * len(ensemble))
