"""What a defense is: a frozen value that says how fine-tuning differs from plain fine-tuning.

The training loop asks it a few things, each with a default that changes nothing::

    for epoch in range(defense.epochs(recipe.epochs)):
        groups = defense.plan(epoch, groups, records)        # which records, batched with whom, at which decay
        for batch in groups:
            inference_adversary.learn(outputs, reference outputs)       # of a defense that has an inference_adversary
            loss = defense.loss(batch)                       # what is minimized
            # or, with defense.clipping, each record's cross-entropy, its gradient clipped and the sum made noisy

Its fields are its hyperparameters, its keys in TOML and its search space at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wemem.data.batches import Group
from wemem.data.teachers import Teachers
from wemem.data.views import Views
from wemem.defenses.clipping import Clipping
from wemem.errors import InputError


@dataclass(frozen=True)
class Observation:
    """What one member shows of itself before a round of fine-tuning; no other model is asked.

    Args:
        train_confidence: mean probability of the true class on its train records.
        dev_confidence: the same on its dev records.
        dev_accuracy: share of its dev records that it gets right.
        dev_records: how many those are.
    """

    train_confidence: float
    dev_confidence: float
    dev_accuracy: float
    dev_records: int

    @property
    def gap(self) -> float:
        """How much surer it is of what it was trained on."""
        return self.train_confidence - self.dev_confidence


@dataclass(frozen=True, eq=False)
class TrainingRecords:
    """What a defense may know of one member's training data.

    Args:
        train: int64, shape ``(n,)``, the records the member trains on.
        labels: int64, shape ``(N,)``, labels of the whole data set.
        scores: float64, shape ``(N,)``, memorization scores, NaN where there is none; None if none were estimated.
        seed: for a defense that draws at random; the member's own.
        rounds: what was observed before each round up to this one, for a defense that observes; else empty.
    """

    train: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " N"]
    scores: Float64[np.ndarray, " N"] | None
    seed: int
    rounds: tuple[Observation, ...] = ()

    def scores_of(self, records: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Memorization scores of some training records.

        Raises:
            InputError: a record has no score.
        """
        if self.scores is None:
            raise InputError("expected memorization scores, got none; let the study estimate them or give a score file")
        scores = np.asarray(self.scores[records])
        if np.isnan(scores).any():
            missing = int(records[np.isnan(scores)][0])
            raise InputError(
                f"expected a memorization score for every training record, got none for record {missing}; "
                "use more subset models, or a score file that covers all records"
            )
        return scores


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's outputs of the ``S`` members that take part in it.

    Args:
        logits: shape ``(S, B, C)``, with gradient.
        labels: int64, shape ``(S, B)``.
        weights: float32, shape ``(S, B)``; 0 marks padding.
        epoch: epoch within the round.
        teacher_log_probs: shape ``(S, B, C)``, log-probabilities by each record's or view's teachers, for a defense
            that learns from them.
        risk: shape ``(S, B)``, what :meth:`Defense.risk` says of each record, for a defense that says it.
        membership_log_probability: shape ``(S, B)``, by the defense's :class:`InferenceAdversary`, with gradient.
    """

    logits: Float[Tensor, "S B C"]
    labels: Int64[Tensor, "S B"]
    weights: Float[Tensor, "S B"]
    epoch: int
    teacher_log_probs: Float[Tensor, "S B C"] | None = None
    risk: Float[Tensor, "S B"] | None = None
    membership_log_probability: Float[Tensor, "S B"] | None = None

    def mean(self, values: Float[Tensor, "S B"]) -> Float[Tensor, " S"]:
        """Mean over each member's records, padding left out."""
        return (values * self.weights).sum(1) / self.weights.sum(1)

    def cross_entropy(self) -> Float[Tensor, "S B"]:
        """Cross-entropy of each record, in nats."""
        s, b, c = self.logits.shape
        return cross_entropy(self.logits.reshape(s * b, c), self.labels.reshape(s * b), reduction="none").view(s, b)


@dataclass(frozen=True)
class OwnDenseModel:
    """Teacher of a member's records: the dense model that it was before it was pruned. Nothing is trained for it."""

    @property
    def trainings(self) -> int:
        """Of how many models on all of the records the work is: none."""
        return 0


class InferenceAdversary(ABC):
    """Who plays against the members that train together. It has state, and every call of ``fit`` makes one anew.

    Args:
        warm_up: turns that it takes before the members' first step.
        turns: turns that it takes before every step of theirs.
    """

    warm_up: int = 0
    turns: int = 1

    def to(self, device: torch.device) -> None:  # noqa: B027
        """Move its state there, before its first turn, for that is where outputs come from. By default: it has none."""

    @abstractmethod
    def learn(
        self, rows: Sequence[int], members: Float[Tensor, "S M C"], member_labels: Int64[Tensor, "S M"],
        others: Float[Tensor, "S M C"], other_labels: Int64[Tensor, "S M"],
    ) -> None:  # fmt: skip
        """Take one turn.

        Args:
            rows: the ``S`` members whose opponents take it; what the others know stays as it is.
            members: logits on some of each one's train records, as an attacker sees them: in evaluation mode.
            member_labels: their labels.
            others: logits on some of its dev records.
            other_labels: their labels.
        """

    @abstractmethod
    def membership_log_probability(
        self, rows: Sequence[int], logits: Float[Tensor, "S B C"], labels: Int64[Tensor, "S B"]
    ) -> Float[Tensor, "S B"]:
        """What it makes of the outputs of a step, with gradient with respect to them."""


@dataclass(frozen=True)
class Defense(ABC):
    """A way to fine-tune that leaks less. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Key in results and in TOML."""

    @property
    def needs_scores(self) -> bool:
        """True if :meth:`plan` reads memorization scores."""
        return False

    @property
    def teacher_source(self) -> Teachers | OwnDenseModel | None:
        """Whose predictions of a member's train records :attr:`Batch.teacher_log_probs` are; by default nobody's.

        :class:`Teachers` are trained beforehand on parts of the member's own records.
        """
        return None

    @property
    def augmentation_views(self) -> Views | None:
        """Views of the train records that are trained on beside them, by what the teachers predict of each."""
        by = self.teacher_source
        return by.views if isinstance(by, Teachers) else None

    @property
    def passes_per_epoch(self) -> int:
        """How often an epoch shows a record that it shows."""
        by = self.teacher_source
        return by.passes_per_epoch if isinstance(by, Teachers) else 1

    @property
    def starts_fresh(self) -> bool:
        """True if the first round trains new weights, and nothing of the dense model is left but its architecture."""
        return False

    def risk(self, records: TrainingRecords) -> Float64[np.ndarray, " N"] | None:
        """What the loss is to know of each record of the data set, as :attr:`Batch.risk`. By default: nothing."""
        return None

    def inference_adversary(self, classes: int, seeds: Sequence[int]) -> InferenceAdversary | None:
        """A new inference adversary of the members that train together, one seed each. By default: none."""
        return None

    @property
    def observes(self) -> bool:
        """True if :meth:`plan` reads what was observed of the member before each round."""
        return False

    def epochs(self, most: int) -> int:
        """How many epochs of a round to train, of at most ``most``. By default: all."""
        return most

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Which records a member is shown in an epoch of a round, in which groups. By default: what came in.

        Args:
            epoch: 0-based within the round.
            groups: the groups so far; at first one group of all training records.
            records: what is known of them.
        """
        return groups

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of each member that takes part in a step. By default: mean cross-entropy."""
        return batch.mean(batch.cross_entropy())

    def postprocess_logits(
        self, logits: Float32[np.ndarray, "N C"], rng: np.random.Generator
    ) -> Float32[np.ndarray, "N C"]:
        """What a query of the model is answered with. By default: its logits. Who holds the weights is not bound by it.

        Args:
            logits: of one member.
            rng: for answers that are drawn.
        """
        return logits

    @property
    def alters_outputs(self) -> bool:
        """True if queries are answered with something else than the model's logits."""
        return type(self).postprocess_logits is not Defense.postprocess_logits

    @property
    def clipping(self) -> Clipping | None:
        """A bound on what each record does to a step, which then takes the loss's place; by default none."""
        return None

    def incompatibility_reason(self, model: nn.Module) -> str | None:
        """Why a model cannot be trained this way, and what to do about it; None if it can. By default: None."""
        return None

    @property
    def replaces_loss(self) -> bool:
        """True if this defense has a loss of its own."""
        return type(self).loss is not Defense.loss

    @property
    def settings(self) -> dict[str, Any]:
        """Hyperparameters by name, as they stand in results."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Undefended(Defense):
    """Plain fine-tuning: the identity, and in every comparison."""

    @property
    def name(self) -> str:
        return "undefended"
