"""Optional parts of a defense, each a small frozen value that is looked up by its type.

Every defense chooses records and a loss. A few do more: they learn from teachers, train against an
adversary, bound gradients, change answers. Each of these is one class here, and a defense lists the
values that it has in :attr:`wemem.defenses.Defense.capabilities`::

    Distillation(source)          a step's batch holds soft targets                       oosd, radd
    FreshStart()                  the first round trains new weights                      oosd
    RecordRisk(of)                a step's batch holds a number for each record           radd
    AdversarialTraining(start)    an inference adversary trains along                     advreg
    Clipping(norm, noise)         every record's gradient is bounded                      dpsgd
    OutputPostprocessing(steps)   queries are answered with something else than logits    hamp
    RoundObservation()            confidence and accuracy are known before each round     online

A chain combines values of one type by :meth:`Capability.then` and takes all others as they are, so
that a new capability needs a class here and the one place that reads it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float32, Float64

from wemem.data.teachers import Teachers
from wemem.data.views import Views
from wemem.defenses.inference_adversary import InferenceAdversary
from wemem.defenses.training_records import TrainingRecords
from wemem.errors import InputError

Logits = Float32[np.ndarray, "N C"]


@dataclass(frozen=True)
class Capability:
    """Something that a defense does beyond choosing records and a loss."""

    #: True if a step's gradient comes from the capability and not from the loss.
    replaces_loss: ClassVar[bool] = False

    def then(self, later: Self) -> Self:
        """Combine this value with that of a later part of a chain.

        Raises:
            InputError: the two cannot be combined, which is the default.
        """
        name = type(self).__name__
        raise InputError(f"expected at most one part of a chain with {name}, got two; leave one part out")


@dataclass(frozen=True)
class OwnDenseModel:
    """Teacher of a model's records: the dense model from which it was pruned."""

    def trainings(self, tokens: bool) -> int:
        """Cost of training the teachers, in trainings on all records: none."""
        return 0


@dataclass(frozen=True)
class Distillation(Capability):
    """Learn from soft targets.

    Args:
        source: models that predict the targets. :class:`~wemem.data.teachers.Teachers` are trained
            first, on parts of the model's own training records.
    """

    source: Teachers | OwnDenseModel

    @property
    def views(self) -> Views | None:
        """Views that are trained on beside the training records; None for the records alone."""
        return self.source.views if isinstance(self.source, Teachers) else None

    @property
    def passes_per_epoch(self) -> int:
        """Number of times that an epoch shows a record: as itself and as some of its views."""
        return self.source.passes_per_epoch if isinstance(self.source, Teachers) else 1

    @property
    def inputs_per_record(self) -> int:
        """Number of inputs with targets for each record: the record and its views."""
        return self.source.inputs_per_record if isinstance(self.source, Teachers) else 1

    def shown(self, epoch: int) -> list[int]:
        """Inputs of each record that an epoch shows: 0 is the record, others are its views."""
        return self.source.shown(epoch) if isinstance(self.source, Teachers) else [0]


#: The weights from which the first round starts: new ones, or those of the dense model.
Start = Literal["fresh", "dense"]


@dataclass(frozen=True)
class FreshStart(Capability):
    """Train new weights in the first round; of the dense model only the architecture is used."""

    def then(self, later: Self) -> Self:
        """Combine two into one."""
        return later


@dataclass(frozen=True)
class RecordRisk(Capability):
    """Give the loss a number for each record.

    Args:
        of: function from a model's training records to float64 numbers for all N records of the
            data set; they reach the loss as ``Batch.risk``.
    """

    of: Callable[[TrainingRecords], Float64[np.ndarray, " N"]]


@dataclass(frozen=True)
class AdversarialTraining(Capability):
    """Train an inference adversary along with the models.

    Args:
        start: function from the number of classes and one seed per model to a new adversary.
    """

    start: Callable[[int, Sequence[int]], InferenceAdversary]


@dataclass(frozen=True)
class OutputPostprocessing(Capability):
    """Answer queries with altered logits. It does not bind an attacker who holds the weights.

    Args:
        steps: functions from logits ``(N, C)`` of one model and a generator to new logits, applied
            in this order.
    """

    steps: tuple[Callable[[Logits, np.random.Generator], Logits], ...]

    def __call__(self, logits: Logits, rng: np.random.Generator) -> Logits:
        """Apply all steps.

        Args:
            logits: logits of one model.
            rng: generator for steps that draw.
        """
        for step in self.steps:
            logits = step(logits, rng)
        return logits

    def then(self, later: Self) -> Self:
        """Apply these steps first and the later ones after them."""
        return type(self)((*self.steps, *later.steps))


@dataclass(frozen=True)
class RoundObservation(Capability):
    """Observe confidence and accuracy before every round, as ``TrainingRecords.rounds``."""

    def then(self, later: Self) -> Self:
        """Combine two into one."""
        return later


def combine(capabilities: Iterable[Capability]) -> tuple[Capability, ...]:
    """Combine the capabilities of the parts of a chain into one value of each type.

    Raises:
        InputError: two values of a type that cannot be combined.

    >>> combine([FreshStart(), RoundObservation(), FreshStart()])
    (FreshStart(), RoundObservation())
    """
    combined: dict[type[Capability], Capability] = {}
    for capability in capabilities:
        kind = type(capability)
        combined[kind] = combined[kind].then(capability) if kind in combined else capability
    return tuple(combined.values())
