"""Which weights go: those of the smallest magnitude, in each layer or over all of them."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.training.ensemble import Ensemble

Scope = Literal["layer", "global"]
_PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prunable_parameters(ensemble: Ensemble) -> list[str]:
    """Names of the weights that may be pruned: of all linear and convolution layers but the last, the classifier.

    Raises:
        InputError: there is no such layer.
    """
    names = [
        f"{name}.weight" if name else "weight"
        for name, module in ensemble.template.named_modules()
        if isinstance(module, _PRUNABLE)
    ]
    hidden = [name for name in names[:-1] if name in ensemble.parameters]
    if not hidden:
        raise InputError("expected a hidden linear or convolution layer to prune, got none besides the classifier")
    return hidden


def prune(ensemble: Ensemble, sparsity: float, scope: Scope = "layer") -> dict[str, Bool[Tensor, "K ..."]]:
    """Masks (True = kept) that prune the smallest weights by |w| (L1), exactly ``round(sparsity * n)`` of ``n``.

    What was pruned stays pruned. Ties go by position.

    Args:
        ensemble: with its masks so far.
        sparsity: of each layer (scope ``layer``) or of all prunable weights together (``global``).
        scope: where weights compete.

    Raises:
        InputError: an unknown scope, or a sparsity below what is pruned already.
    """
    if scope not in ("layer", "global"):
        raise InputError(f"scope must be layer or global, got {scope!r}")
    names = prunable_parameters(ensemble)
    importance = [_importance(ensemble, name) for name in names]
    if scope == "layer":
        kept = [_keep_largest(values, sparsity) for values in importance]
    else:
        together = _keep_largest(torch.cat(importance, 1), sparsity)
        kept = list(torch.split_with_sizes(together, [values.shape[1] for values in importance], dim=1))
    return {name: mask.view_as(ensemble.parameters[name]) for name, mask in zip(names, kept, strict=True)}


def _importance(ensemble: Ensemble, name: str) -> Float[Tensor, "K n"]:
    """|w|, and -1 for what is pruned already, which therefore goes first."""
    weight = ensemble.parameters[name].detach().abs().flatten(1)
    mask = ensemble.masks.get(name)
    return weight if mask is None else weight.masked_fill(~mask.flatten(1), -1.0)


def _keep_largest(importance: Float[Tensor, "K n"], sparsity: float) -> Bool[Tensor, "K n"]:
    count = round(sparsity * importance.shape[1])
    already = int((importance < 0).sum(1).max())
    if already > count:
        least = already / importance.shape[1]
        raise InputError(f"expected a sparsity of at least {least:.4f}, got {sparsity}; masks only grow")
    order = importance.sort(dim=1, stable=True).indices
    return torch.ones_like(importance, dtype=torch.bool).scatter_(1, order[:, :count], value=False)


def sparsity_of(ensemble: Ensemble) -> float:
    """Share of pruned weights among the prunable ones, or of removed channels, over all members."""
    kept = [*ensemble.masks.values(), *ensemble.channels.values()]
    return sum(int((~mask).sum()) for mask in kept) / sum(mask.numel() for mask in kept) if kept else 0.0
