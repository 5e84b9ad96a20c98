"""The interface of a defense: a frozen value that changes fine-tuning.

Its fields are its hyperparameters, its keys in TOML and its search space at once. The training loop
calls four methods, each with a default that changes nothing::

    for epoch in range(defense.epochs(recipe.epochs)):
        groups = defense.plan(epoch, groups, records)   # records, how they are batched, weight decay
        for batch in groups:
            loss = defense.loss(batch)                  # minimized
    reason = defense.incompatibility_reason(model)      # before any training

Everything else that only some defenses do is a value in :attr:`Defense.capabilities`
(:mod:`wemem.defenses.capabilities`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from wemem.data.batches import Group
from wemem.defenses.batch import Batch
from wemem.defenses.capabilities import Capability, Distillation
from wemem.defenses.training_records import TrainingRecords

C = TypeVar("C", bound=Capability)


@dataclass(frozen=True)
class Defense(ABC):
    """A way to fine-tune that leaks less. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Key in results and in TOML."""

    @property
    def settings(self) -> dict[str, Any]:
        """Hyperparameters by name, as they stand in results."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def needs_scores(self) -> bool:
        """True if the defense reads memorization scores."""
        return False

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Optional parts, at most one of each type. By default none."""
        return ()

    def epochs(self, most: int) -> int:
        """Number of epochs of a round, at most ``most``. By default all."""
        return most

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Choose and group the records of an epoch. By default the groups stay as they are.

        Args:
            epoch: 0-based epoch within the round.
            groups: the groups so far; at first one group of all training records.
            records: the training records of the model.
        """
        return groups

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Loss of each model that takes part in a step. By default the mean cross-entropy."""
        return batch.mean(batch.cross_entropy())

    def incompatibility_reason(self, model: nn.Module) -> str | None:
        """Reason why a model cannot be trained this way, with a remedy. By default None: it can."""
        return None

    def capability(self, kind: type[C]) -> C | None:
        """Capability of a type, or None.

        >>> from wemem.defenses import DPSGD, Clipping
        >>> DPSGD(clip=2.0, noise=0.5).capability(Clipping)
        Clipping(norm=2.0, noise=0.5)
        >>> Undefended().capability(Clipping)
        """
        return next((value for value in self.capabilities if isinstance(value, kind)), None)

    @property
    def replaces_loss(self) -> bool:
        """True if a step's gradient does not come from the mean cross-entropy."""
        return type(self).loss is not Defense.loss or any(value.replaces_loss for value in self.capabilities)

    @property
    def passes_per_epoch(self) -> int:
        """Number of times that an epoch shows each record that it shows."""
        distillation = self.capability(Distillation)
        return 1 if distillation is None else distillation.passes_per_epoch

    @property
    def inputs_per_record(self) -> int:
        """Number of inputs with targets that the defense knows for a record."""
        distillation = self.capability(Distillation)
        return 1 if distillation is None else distillation.inputs_per_record

    def inputs_shown(self, epoch: int) -> list[int]:
        """Inputs of each record that an epoch shows: 0 is the record, others are its views."""
        distillation = self.capability(Distillation)
        return [0] if distillation is None else distillation.shown(epoch)

    def teacher_trainings(self, tokens: bool) -> int:
        """Cost of the teachers of one model of token ids or other records, in trainings on all of
        its records.
        """
        distillation = self.capability(Distillation)
        return 0 if distillation is None else distillation.source.trainings(tokens)


@dataclass(frozen=True)
class Undefended(Defense):
    """Plain fine-tuning: the identity, and in every comparison."""

    @property
    def name(self) -> str:
        return "undefended"
