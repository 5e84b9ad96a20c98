"""The contract of a pruning criterion: a frozen value that decides which weights or channels go.

A criterion's fields are its settings in TOML, ``method = { kind = "mymodule:MyCriterion", power = 2 }``. A new one
subclasses :class:`WeightCriterion` or :class:`ChannelCriterion` and gives the importance; the least important are
pruned. A criterion sees the weights alone and never a record, so that nothing that is audited can decide what goes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, Shaped
from torch import Tensor

from wemem.pruning.channels import Group, remove_least, restrict_channels
from wemem.pruning.layers import LayerChoice
from wemem.pruning.masks import Scope, weight_masks, with_masks
from wemem.training.ensemble import Ensemble


class Criterion(ABC):
    """A rule by which models lose weights.

    Attributes:
        structured: whether whole channels are removed, so that tensors become smaller; else single weights become 0.
        scopes: where weights may compete with one another; a study's scope must be one of them.
        packages: distributions that take part in the decision; their versions belong to the fingerprint of a result.
    """

    structured: ClassVar[bool]
    scopes: ClassVar[tuple[Scope, ...]]
    packages: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."], choice: LayerChoice, scope: Scope
    ) -> Ensemble:
        """The ensemble at a sparsity; what it has lost already counts and never returns.

        Args:
            ensemble: K models; not changed.
            sparsity: share of the prunable weights, or of each layer's channels, that is gone afterwards.
            example: records that the models can be called with.
            choice: the layers to leave alone.
            scope: the weights that compete with one another.

        Raises:
            InputError: a model that cannot be pruned in this way.
        """

    @abstractmethod
    def restrict(
        self, start: Ensemble, pruned: Ensemble, example: Shaped[Tensor, "B ..."], choice: LayerChoice
    ) -> Ensemble:
        """The weights of an earlier ensemble, without what a pruned one has lost (lottery-ticket rewinding)."""


class WeightCriterion(Criterion):
    """Unstructured pruning by the importance of single weights."""

    structured: ClassVar[bool] = False
    scopes: ClassVar[tuple[Scope, ...]] = ("layer", "global")

    @abstractmethod
    def importance(self, weights: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        """The importance of every weight of one layer of K models, at least 0; the lowest go first."""

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
    #: Every model must lose as many channels of a layer, or the models no longer stack.
    scopes: ClassVar[tuple[Scope, ...]] = ("layer",)
    packages: ClassVar[tuple[str, ...]] = ("torch-pruning",)

    @abstractmethod
    def importance(self, ensemble: Ensemble, group: Group) -> Float[Tensor, "K C"]:
        """The importance of channels that must go together; the lowest go first."""

    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."], choice: LayerChoice, scope: Scope
    ) -> Ensemble:
        return remove_least(ensemble, sparsity, self.importance, example, choice)

    def restrict(
        self, start: Ensemble, pruned: Ensemble, example: Shaped[Tensor, "B ..."], choice: LayerChoice
    ) -> Ensemble:
        return restrict_channels(start, pruned.channels, example, choice)
