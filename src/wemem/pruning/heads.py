"""Removal of whole attention heads and of hidden neurons of a transformer.

The parts that are removed are found in the dependency graph of the model. *Neurons* are the outputs
of a linear layer that other linear layers alone read: the hidden width of a feed-forward part. A
*head* is a slice of the three linear layers of queries, keys and values, which one linear layer
reads. The width of tokens, which embeddings, norms and sums share, stays.

The number of heads is read off the module that holds the three projections. A model that computes
with a fixed number of heads would mix the rest anew; therefore a pruned model must give the same
logits as the dense one with the outputs of those heads and neurons set to zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.pruning.channels import Group, group_of, trace_channels, unremovable
from wemem.pruning.criterion import ChannelCriterion
from wemem.pruning.layers import LayerChoice
from wemem.pruning.masks import Scope
from wemem.training.ensemble import Ensemble

Parts = Literal["both", "heads", "neurons"]
#: Names under which attention modules keep the width of a head, and the number of heads.
HEAD_WIDTH = ("head_width", "head_dim", "attention_head_size", "dim_per_head")
HEADS = ("heads", "num_heads", "num_attention_heads", "n_heads", "nhead")
#: The largest difference of logits, as a share of 1 + the largest, by which removed parts may
#: differ from parts set to zero; sums of other lengths round differently.
ROUNDING = 1e-4


class UnitCriterion(ChannelCriterion):
    """Structured pruning of heads and of neurons; subclasses compute their importance."""

    scopes: ClassVar[tuple[Scope, ...]] = ("layer",)
    parts: Parts

    def groups(self, template: nn.Module, example: Shaped[Tensor, "B ..."], choice: LayerChoice) -> Sequence[Group]:
        """List the heads and neurons that may be removed.

        Raises:
            InputError: the model has none of the requested parts.
        """
        graph, tied, names = trace_channels(template, example, choice)
        groups = [group_of(graph, items, names) for items in tied if _only_linear(items, names)]
        neurons = [group for group in groups if len(group.makers) == 1]
        heads = [_by_head(template, group) for group in groups if len(group.makers) == 3]
        if self.parts != "neurons" and not heads:
            raise InputError(
                "expected attention with a linear layer each for queries, keys and values, got none"
                f"{unremovable(template)}; use pruning.method = {{ kind = ..., parts = 'neurons' }}"
            )
        if self.parts != "heads" and not neurons:
            raise InputError(
                "expected a hidden linear layer that linear layers alone read, got none; use parts = 'heads'"
            )
        return {"both": [*heads, *neurons], "heads": heads, "neurons": neurons}[self.parts]

    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."], choice: LayerChoice, scope: Scope
    ) -> Ensemble:
        pruned = super().prune(ensemble, sparsity, example, choice, scope)
        _require_equal_to_silence(ensemble, pruned, self.groups(ensemble.template, example, choice), example)
        return pruned


def _only_linear(items: Any, names: Mapping[nn.Module, str]) -> bool:
    """Return True if a group has no tensors but those of linear layers."""
    layers = [dep.target.module for dep, _ in items]
    return all(
        isinstance(layer, nn.Linear)
        or not (isinstance(layer, nn.Parameter) or (layer in names and any(True for _ in layer.parameters())))
        for layer in layers
    )


def _by_head(template: nn.Module, group: Group) -> Group:
    """Join the channels of each head.

    Raises:
        InputError: the module of the three projections does not state how wide a head is.
    """
    width = _head_width(template, group)

    def joined(cut: Any) -> Any:
        return replace(cut, channels=cut.channels // width)

    makers = {name: joined(cut) for name, cut in group.makers.items()}
    return Group(group.root, group.size // width, makers, tuple(map(joined, group.cuts)))


def _head_width(template: nn.Module, group: Group) -> int:
    path = group.root.split(".")[:-1]
    while True:
        holder = ".".join(path)
        if all(name.startswith(f"{holder}." if holder else "") for name in group.makers):
            fields = vars(template.get_submodule(holder))
            width = next((fields[name] for name in HEAD_WIDTH if isinstance(fields.get(name), int)), None)
            heads = next((fields[name] for name in HEADS if isinstance(fields.get(name), int)), None)
            width = group.size // heads if width is None and heads else width
            if width and group.size % width == 0:
                return int(width)
        if not path:
            raise InputError(
                f"expected the module of {group.root!r} to state its number of heads as num_heads, got none; use parts "
                "= 'neurons'"
            )
        path.pop()


@torch.no_grad()
def _require_equal_to_silence(
    before: Ensemble, pruned: Ensemble, groups: Sequence[Group], example: Shaped[Tensor, "B ..."]
) -> None:
    """Refuse a model that computes otherwise after removal than with the removed parts at zero."""
    silent = before.module(0)
    for group in groups:
        keep = pruned.channels[group.root][0]
        earlier = before.channels.get(group.root)
        kept = (keep if earlier is None else keep[earlier[0]]).view(group.size, -1).all(1)
        for cut in group.cuts:
            if cut.dimension == 1:  # a layer that reads the channels
                silent.get_parameter(cut.tensor)[:, cut.places[~kept[cut.channels]]] = 0
    expected, got = silent(example), pruned.module(0)(example)
    if not torch.allclose(got, expected, rtol=0, atol=ROUNDING * (1 + float(expected.abs().max()))):
        raise InputError(
            "the model computes otherwise without some of its heads, because its code fixes their number; use parts "
            "= 'neurons', or pruning.method = 'magnitude'"
        )
