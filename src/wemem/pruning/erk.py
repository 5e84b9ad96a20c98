"""Magnitude with the per-layer sparsity of ERK, "Erdos-Renyi kernel" (Mocanu et al., Nature
Communications 2018; Evci, Gale, Menick, Castro, Elsen, ICML 2020).

The share of a layer's weights that stays is proportional to the sum of its dimensions over their
product, at most 1::

    density(layer) = min(1, e (n_in + n_out + k_1 + ...) / (n_in n_out k_1 ...))

with one e for all layers, such that all together have the target sparsity. Small layers stay
denser. A lower target lowers the density of no layer, so that masks only grow over the rounds.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from typing import ClassVar

from jaxtyping import Float, Shaped
from torch import Tensor

from wemem.pruning.criterion import WeightCriterion
from wemem.pruning.layers import LayerChoice, prunable_weights
from wemem.pruning.masks import Scope, weight_masks, with_masks
from wemem.training.ensemble import Ensemble


@dataclass(frozen=True)
class Erk(WeightCriterion):
    """A criterion that prunes each layer by magnitude, to the sparsity that its shape gives.

    Of 16 + 4 weights 15 stay. In proportion the small layer would keep 5, so it keeps all 4:

    >>> Erk.densities([(4, 4), (2, 2)], 0.25)
    [0.6875, 1.0]
    """

    scopes: ClassVar[tuple[Scope, ...]] = ("layer",)

    def importance(self, weights: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        return weights.abs()

    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."], choice: LayerChoice, scope: Scope
    ) -> Ensemble:
        state = {**ensemble.parameters, **ensemble.buffers}
        names = prunable_weights(ensemble.template, example, choice)
        shapes = [tuple(state[name].shape[1:]) for name in names]
        # rounding the running sum, so that all layers together have the target to the weight
        gone = [(1 - d) * prod(shape) for d, shape in zip(self.densities(shapes, sparsity), shapes, strict=True)]
        counts = [later - earlier for earlier, later in pairwise([0, *map(round, accumulate(gone))])]
        shares = {name: count / prod(shape) for name, count, shape in zip(names, counts, shapes, strict=True)}
        return with_masks(ensemble, weight_masks(ensemble, shares, self.importance, example, choice))

    @staticmethod
    def densities(shapes: list[tuple[int, ...]], sparsity: float) -> list[float]:
        """Compute the share of weights that stays in each layer.

        Args:
            shapes: the shape of each layer's weights.
            sparsity: the share of all weights that is pruned.
        """
        sizes = [prod(shape) for shape in shapes]
        raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
        left, dense = (1 - sparsity) * sum(sizes), set[int]()
        # layers whose share would exceed 1 stay whole, the one of the largest share first
        for i in sorted(range(len(sizes)), key=lambda i: -raw[i]):
            others = [k for k in range(len(sizes)) if k not in dense]
            scale = (left - sum(sizes[k] for k in dense)) / sum(raw[k] * sizes[k] for k in others)
            if scale * raw[i] <= 1:
                break
            dense.add(i)
        else:
            return [1.0] * len(sizes)
        return [1.0 if k in dense else max(0.0, scale * raw[k]) for k in range(len(sizes))]
