"""The result of one arm of a study: models pruned under one defense, and what the attacks make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from wemem.audit.report import AuditReport
from wemem.data.split import Split
from wemem.defenses import Defense
from wemem.pipeline.artifacts import MemorizationScores, TrainedModels
from wemem.signals import SignalLayout, Signals
from wemem.tuning.search import TunedDefense


@dataclass(frozen=True, eq=False)
class Outcome:
    """One arm at one sparsity and seed; ``dense`` is the unpruned model.

    Args:
        label: the label of the arm in the study.
        defense: the defense under which the models were pruned; None for the unpruned model.
        seed: the seed of the study that was run.
        sparsity: the target sparsity.
        split: the roles of the records for the victim and its shadows; held-out records that a search has used are
            the victim's no longer.
        rounds: the stored rounds of pruning, the last one being the result; for ``dense`` the unpruned models.
        signals: the signals that the attacks saw, by layout.
        report: the results of the attacks.
        scores: the defender's memorization scores, if a defense of the study reads them.
        attack_seconds: the wall time of querying and attacking when it was computed.
        non_adaptive: the results of the same attacks by an adversary whose shadows were pruned without the defense.
        leave_one_out: by attack, a summary of attacking every model of the reference ensemble in turn.
        reference_accuracy: a summary of the accuracy of those models; None where they are not all attacked.
        tuned: the defense that was found for a budget, with a summary of how; None if the study names the defense.
        is_control: True for an arm of :mod:`wemem.config.controls`.
        altered_answers: True if the defense protects answers by altering them; the weights answer unaltered.
        unmatched: by kind of the adversary's models, their number of training records, if it is not the victim's.
    """

    label: str
    defense: Defense | None
    seed: int
    sparsity: float
    split: Split
    rounds: Sequence[TrainedModels]
    signals: Mapping[SignalLayout, Signals]
    report: AuditReport
    scores: MemorizationScores | None
    attack_seconds: float
    non_adaptive: AuditReport | None = None
    leave_one_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference_accuracy: Mapping[str, Any] | None = None
    tuned: TunedDefense | None = None
    is_control: bool = False
    altered_answers: bool = False
    unmatched: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of the arm, as results name it: ``dense``, a control, or the name of the defense."""
        if self.defense is None:
            return "dense"
        return self.label if self.is_control else self.defense.name

    @property
    def memorization(self) -> Float64[np.ndarray, " N"] | None:
        """The defender's scores by record, NaN for records that are not its own."""
        return None if self.scores is None else self.scores.memorization.score

    @property
    def victim(self) -> TrainedModels:
        """The models after the last round; model 0 is the victim."""
        return self.rounds[-1]
