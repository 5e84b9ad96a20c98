"""The contract of a pruning criterion: a frozen value that decides which weights or channels are
pruned.

The fields of a criterion are its settings in TOML, ``method = { kind = "mymodule:MyCriterion",
power = 2 }``. A new criterion subclasses :class:`WeightCriterion` or :class:`ChannelCriterion` and
computes the importance; the least important weights or channels are pruned. A criterion depends on
the weights alone, or, if it :attr:`~Criterion.reads_gradients`, on the training records of its own
model too. It never reads another record, so that no audited non-member can influence the choice.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from wemem.pruning.channels import Group, coupled_channels, remove_least, restrict_channels
from wemem.pruning.layers import LayerChoice
from wemem.pruning.masks import Scope, weight_masks, with_masks
from wemem.training.ensemble import Ensemble


class Criterion(ABC):
    """A rule that decides which weights or channels are pruned.

    Attributes:
        structured: True if whole channels are removed, so that tensors become smaller; False if
            single weights are set to 0.
        scopes: the scopes that the criterion supports; the scope of a study must be one of them.
        packages: the distributions that influence the decision; their versions are part of the
            fingerprint of a result.
        reads_gradients: True if the criterion judges, in place of each weight, its product with the
            root mean square of its gradients on training records
            (:mod:`wemem.pruning.gradients`).
    """

    structured: ClassVar[bool]
    scopes: ClassVar[tuple[Scope, ...]]
    packages: ClassVar[tuple[str, ...]] = ()
    reads_gradients: ClassVar[bool] = False

    @abstractmethod
    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."], choice: LayerChoice, scope: Scope
    ) -> Ensemble:
        """Prune an ensemble to a sparsity; weights and channels that are already pruned count and
        stay pruned.

        Args:
            ensemble: the K models, which are not changed; under :attr:`reads_gradients` with the
                products in place of the weights.
            sparsity: the share of the prunable weights, or of each layer's channels, that is pruned
                afterwards.
            example: records of the form that the models accept.
            choice: the layers that are not pruned.
            scope: the weights that are compared with one another, those of a layer or of all
                layers.

        Raises:
            InputError: the models cannot be pruned by this criterion.
        """

    @abstractmethod
    def restrict(
        self, start: Ensemble, pruned: Ensemble, example: Shaped[Tensor, "B ..."], choice: LayerChoice
    ) -> Ensemble:
        """Prune an ensemble in the same places as one that is pruned further, for lottery-ticket
        rewinding and for criteria that read gradients.
        """


class WeightCriterion(Criterion):
    """Unstructured pruning by the importance of single weights."""

    structured: ClassVar[bool] = False
    scopes: ClassVar[tuple[Scope, ...]] = ("layer", "global")

    @abstractmethod
    def importance(self, weights: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        """Compute the importance of every weight of one layer of K models, at least 0; the lowest
        are pruned first.
        """

    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."], choice: LayerChoice, scope: Scope
    ) -> Ensemble:
        return with_masks(ensemble, weight_masks(ensemble, sparsity, self.importance, example, choice, scope))

    def restrict(
        self, start: Ensemble, pruned: Ensemble, example: Shaped[Tensor, "B ..."], choice: LayerChoice
    ) -> Ensemble:
        return with_masks(start, pruned.masks)


class ChannelCriterion(Criterion):
    """Structured pruning by the importance of channels."""

    structured: ClassVar[bool] = True
    #: Every model must lose the same number of channels of a layer, or the models no longer stack.
    scopes: ClassVar[tuple[Scope, ...]] = ("layer",)
    packages: ClassVar[tuple[str, ...]] = ("torch-pruning",)

    @abstractmethod
    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        """Compute the importance of the channels of a group; the lowest are removed first."""

    def groups(self, template: nn.Module, example: Shaped[Tensor, "B ..."], choice: LayerChoice) -> Sequence[Group]:
        """List the groups of channels that may be removed; by default all of them."""
        return coupled_channels(template, example, choice)

    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."], choice: LayerChoice, scope: Scope
    ) -> Ensemble:
        return remove_least(ensemble, sparsity, self.importance, example, choice, self.groups)

    def restrict(
        self, start: Ensemble, pruned: Ensemble, example: Shaped[Tensor, "B ..."], choice: LayerChoice
    ) -> Ensemble:
        return restrict_channels(start, pruned.channels, example, choice, self.groups)
