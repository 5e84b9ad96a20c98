"""Leakage by arm, group and round from the outputs of all models, and the effects of the scenario."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64

from wemem.diagnosis.arms import Trace
from wemem.diagnosis.design import BASE, NEVER, Exposures
from wemem.diagnosis.scenario import Effect, Scenario
from wemem.diagnosis.within_record import Cell, compare, contrast, higher, levelled, surplus
from wemem.metrics.intervals import Estimate, corrected_level

#: Confidence level of the controls, where nothing can leak; a high level makes false alarms rare.
CONTROL = 0.99
Records = Bool[np.ndarray, " N"]
Pairs = Bool[np.ndarray, "K N"]
Parts = Int64[np.ndarray, "K N"]


@dataclass(frozen=True)
class Measured:
    """Leakage and memorization of some records after a round.

    Args:
        arm: the name of the arm.
        group: ``all`` records, the ``low`` half of the scores, or the ``high`` top.
        round: 0 before the first round, then 1 to R.
        sparsity: the sparsity after the round.
        exposures: the number of rounds that have shown the records; None where the dense model was
            trained on them too.
        leakage: the within-record AUC.
        memorization: the mean counterfactual memorization, a difference of probabilities.
        pairs: the number of pairs of a model and a record.
    """

    arm: str
    group: str
    round: int
    sparsity: float
    exposures: int | None
    leakage: Estimate
    memorization: Estimate
    pairs: int


def groups(scores: Float64[np.ndarray, " N"], top: float) -> dict[str, Bool[np.ndarray, " N"]]:
    """Records of each group: ``all``, the ``low`` half of the scores, the ``high`` top; NaN in
    neither.

    >>> {name: mask.astype(int).tolist() for name, mask in groups(np.array([.4, .1, np.nan, .9, .2]), 0.25).items()}
    {'all': [1, 1, 1, 1, 1], 'low': [0, 1, 0, 0, 1], 'high': [0, 0, 0, 1, 0]}
    """
    scored = np.flatnonzero(~np.isnan(scores))
    ranked = scored[np.argsort(scores[scored], kind="stable")]
    masks = {name: np.zeros(len(scores), bool) for name in ("low", "high")}
    masks["low"][ranked[: len(ranked) // 2]] = True
    masks["high"][ranked[len(ranked) - max(1, round(top * len(ranked))) :]] = True
    return {"all": np.ones(len(scores), bool), **masks}


@dataclass(eq=False)
class Findings:
    """Collection of the measurements of all arms.

    Args:
        exposures: the records that each round showed to each model.
        groups: the mask of each group over the records of the pool.
        measured: the measurements of the arms that were added.
        accuracy: the accuracy by arm after the last round, on records that a model was not trained
            on.
    """

    exposures: Exposures
    groups: Mapping[str, Records]
    measured: list[Measured] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    _cells: dict[tuple[str, str, int], tuple[Cell, Cell]] = field(default_factory=dict)

    def add(self, arm: str, trace: Trace, sparsities: Sequence[float]) -> None:
        """Measure an arm and add it.

        Args:
            arm: the name of the arm.
            trace: the outputs of its models.
            sparsities: the sparsity of each round.
        """
        part = self._part(trace)
        for index, sparsity in enumerate((0.0, *sparsities)):
            if arm == "dosed" and index < len(sparsities):
                continue  # doses are compared after the last round alone
            for exposures, shown in _targets(arm, index, part, self.exposures.rounds):
                cells = self._cells_of(trace, index, part == NEVER, shown)
                for group, (leak, memory) in cells.items():
                    self._cells[arm, group, (exposures or 0) if arm == "dosed" else index] = leak, memory
                    estimates = contrast([(1, leak)]), contrast([(1, memory)])
                    self.measured.append(Measured(arm, group, index, sparsity, exposures, *estimates, leak.pairs))
        self.accuracy[arm] = float(trace.right[-1][part == NEVER].mean())
        if arm == "as_run":
            self.accuracy["dense"] = float(trace.right[0][part == NEVER].mean())

    def _part(self, trace: Trace) -> Parts:
        """Parts of the pool's records for the models of an arm, of which there may be fewer than
        were drawn.
        """
        return self.exposures.part[: trace.confidence.shape[1], self.exposures.pool]

    def _levelled(self, confidence: Float64[np.ndarray, "K N"], never: Pairs) -> Float64[np.ndarray, "K N"]:
        return levelled(confidence, never, self.exposures.labels[self.exposures.pool])

    def _cells_of(self, trace: Trace, index: int, never: Pairs, shown: Pairs) -> dict[str, tuple[Cell, Cell]]:
        """Leakage and memorization of each group of the shown records after a round."""
        targets = [shown & mask for mask in self.groups.values()]
        leakage = compare(self._levelled(trace.confidence[index], never), never, targets, higher)
        memorization = compare(trace.probability[index], never, targets, surplus)
        return dict(zip(self.groups, zip(leakage, memorization, strict=True), strict=True))

    def _leak(self, arm: str, group: str, index: int) -> Cell:
        return self._cells[arm, group, index][0]

    def scenario(self, relevant: float) -> Scenario:
        """The three effects on leakage after the last round, with intervals that hold at once."""
        end, level = self.exposures.rounds, corrected_level(0.95, 3)
        fresh_low, fresh_high = (self._leak("fresh", group, end) for group in ("low", "high"))
        reused_low, reused_high = (self._leak("reused", group, end) for group in ("low", "high"))
        return Scenario(
            Effect("reuse", contrast([(1, reused_low), (-1, fresh_low)], level), relevant),
            Effect("memorability", contrast([(1, fresh_high), (-1, fresh_low)], level), relevant),
            Effect(
                "interaction",
                contrast([(1, reused_high), (-1, fresh_high), (-1, reused_low), (1, fresh_low)], level),
                relevant,
            ),
        )

    def comparisons(self) -> dict[str, tuple[Estimate, Estimate]]:
        """Differences of leakage and of memorization over all records, 95 % each."""
        end = self.exposures.rounds
        pairs = {
            "reused - fresh": (("reused", end), ("fresh", end)),
            f"shown in {end} rounds - in 1, within a model": (("dosed", end), ("dosed", 1)),
            "iterative - one_shot": (("iterative", end), ("one_shot", end)),
            "iterative - unpruned": (("iterative", end), ("unpruned", end)),
            "unpruned - dense": (("unpruned", end), ("unpruned", 0)),
            "iterative - dense": (("iterative", end), ("iterative", 0)),
        }
        return {name: self._difference(more, less) for name, (more, less) in pairs.items()}

    def _difference(self, more: tuple[str, int], less: tuple[str, int]) -> tuple[Estimate, Estimate]:
        first, second = self._cells[more[0], "all", more[1]], self._cells[less[0], "all", less[1]]
        return contrast([(1, first[0]), (-1, second[0])]), contrast([(1, first[1]), (-1, second[1])])

    def controls(self, reused: Trace) -> dict[str, Estimate]:
        """Leakage where none is possible; an interval that excludes 0.5 shows a fault in the
        experiment.
        """
        part = self._part(reused)
        never, held_back = part == NEVER, np.isin(part, range(self.exposures.rounds - 1))
        never_shown = compare(self._levelled(reused.confidence[-1], never), never, [held_back], higher)[0]
        return {
            "held back, before the first round": contrast([(1, self._leak("reused", "all", 0))], CONTROL),
            "held back, and never shown": contrast([(1, never_shown)], CONTROL),
        }


def _targets(arm: str, index: int, part: Parts, rounds: int) -> list[tuple[int | None, Pairs]]:
    """The pairs to measure after a round, with how often each was shown; before the first, the last
    to be shown.
    """
    if arm == "fresh":
        return [(min(index, 1), part == (index - 1 if index else rounds - 1))]
    if arm == "reused":
        return [(index, part == rounds - 1)]
    if arm == "dosed":
        return [(dose, part == dose - 1) for dose in range(1, rounds + 1)]
    return [(None, part >= BASE)]
