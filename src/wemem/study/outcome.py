"""The result of one arm of a study: models pruned under one defense, and the results of the attacks
on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from wemem.auditing.canaries import CanaryRecords
from wemem.auditing.leave_one_out import TargetRecords
from wemem.auditing.report import AuditReport
from wemem.data.split import Split
from wemem.defenses import Defense
from wemem.pipeline.artifacts import MemorizationScores, TrainedModels
from wemem.signals import SignalLayout, Signals
from wemem.tuning.search import TunedDefense


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one arm at one sparsity and seed; the arm ``dense`` is the unpruned model.

    Args:
        label: the label of the arm in the study.
        defense: the defense under which the models were pruned; None for the unpruned model.
        seed: the seed of the study that was run.
        sparsity: the target sparsity.
        split: the roles of the records for the victim and its shadows, without held-out records
            that a search used.
        rounds: the stored rounds of pruning, of which the last is the result; for ``dense`` the
            unpruned models.
        signals: the signals that the attacks used, by layout.
        report: the results of the attacks.
        scores: the defender's memorization scores; None if no defense of the study uses them.
        attack_seconds: the wall time that querying and attacking took when it was computed, in
            seconds.
        non_adaptive: the results of the same attacks by an adversary whose shadows were pruned
            without the defense.
        leave_one_out: a summary of the leave-one-out audit of the reference ensemble, by attack.
        canaries: the rates of the attacks on canaries, by attack and kind of canary.
        canary_records: the records of the attacks on canaries; None without canaries.
        reference_accuracy: a summary of the accuracy of the reference models; None without a
            leave-one-out audit.
        targets: the records of the leave-one-out audit; None without one.
        tuned: the defense that a search chose within a budget, with a summary of the search; None
            if the study names the defense.
        is_control: True for an arm of :mod:`wemem.config.controls`.
        altered_answers: True if the defense alters the outputs of the models; their weights give
            unaltered outputs.
        unmatched: the number of training records of the adversary's models, by kind, where it
            differs from the victim's.
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
    canaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    canary_records: CanaryRecords | None = None
    reference_accuracy: Mapping[str, Any] | None = None
    targets: TargetRecords | None = None
    tuned: TunedDefense | None = None
    is_control: bool = False
    altered_answers: bool = False
    unmatched: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of the arm in results: ``dense``, the label of a control, or the name of the
        defense.
        """
        if self.defense is None:
            return "dense"
        return self.label if self.is_control else self.defense.name

    @property
    def memorization(self) -> Float64[np.ndarray, " N"] | None:
        """The defender's memorization scores by record; NaN for records that do not belong to the
        defender.
        """
        return None if self.scores is None else self.scores.memorization.score

    @property
    def victim(self) -> TrainedModels:
        """The models after the last round, of which model 0 is the victim."""
        return self.rounds[-1]
