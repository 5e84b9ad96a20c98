"""The report of an audit: every attack's metrics with intervals, and the worst of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from wemem.attacks.base import Attack, AttackOutput
from wemem.errors import InputError
from wemem.metrics.intervals import Estimate
from wemem.metrics.null import chance_of_strongest
from wemem.metrics.rates import smallest_fpr
from wemem.metrics.registry import METRICS, Metric, ScoredRecords
from wemem.metrics.strongest import strongest
from wemem.randomness import generator
from wemem.signals import SignalLayout, Signals


@dataclass(frozen=True, eq=False)
class AttackResult:
    """One attack on one target.

    Args:
        name: the attack's label in the study.
        adaptive: True if every model that the adversary used was made exactly as the target.
        reference_models: the number of other models that it used.
        output: the attack's scores, thresholds and probabilities, one per audited row.
        member: bool, shape ``(n,)``: the truth of those rows.
        records: int64, shape ``(n,)``: their indices in the data set.
    """

    name: str
    adaptive: bool
    reference_models: int
    output: AttackOutput
    member: Bool[np.ndarray, " n"]
    records: np.ndarray

    @property
    def scored(self) -> ScoredRecords:
        """Scores, calls at the thresholds that were chosen without the target, and the truth."""
        return ScoredRecords(self.output.score, self.member, self.output.score >= self.output.threshold)

    def measure(self, metric: Metric, level: float = 0.95) -> Estimate:
        """A metric with its interval."""
        return metric.interval(self.scored, level)


@dataclass(frozen=True, eq=False)
class AuditReport:
    """All attacks on one target."""

    results: tuple[AttackResult, ...]

    def __getitem__(self, name: str) -> AttackResult:
        return next(r for r in self.results if r.name == name)

    def worst(self, metric: Metric) -> tuple[AttackResult, Estimate]:
        """The strongest attack by a metric, its interval widened for having been chosen among all
        (Bonferroni).
        """
        attacks = {result.name: result.scored for result in self.results}
        measured = {result.name: result.measure(metric) for result in self.results}
        name, estimate = strongest(attacks, measured, metric)
        return self[name], estimate


def run_attacks(
    signals: Mapping[SignalLayout, Signals], attacks: Mapping[str, Attack], target: int = 0, *, seed: int = 0
) -> AuditReport:
    """Run attacks on one target.

    Args:
        signals: by layout; each attack takes those of the layout it declares.
        attacks: the attacks to run, by the labels that results name them by.
        target: the model that is attacked.
        seed: for attacks that train something.

    Raises:
        InputError: signals of a needed layout are missing, or an attack refuses the signals.
    """
    results = []
    for name, attack in attacks.items():
        if attack.layout not in signals:
            raise InputError(f"attack {name!r} needs {attack.layout} signals, got {sorted(signals)}; see its docs")
        seen = signals[attack.layout]
        results.append(attack_result(name, seen, target, attack.predict(seen, target, seed=seed)))
    return AuditReport(tuple(results))


def attack_result(name: str, signals: Signals, target: int, output: AttackOutput) -> AttackResult:
    """An attack's output beside the truth.

    Args:
        name: the attack's label in the study.
        signals: the signals that were attacked.
        target: the model that was attacked.
        output: the attack's output for it.

    Raises:
        InputError: scores of another number than the audited rows, or NaN.
    """
    rows = signals.audited(target)
    if output.score.shape != rows.shape or np.isnan(output.score).any():
        raise InputError(
            f"expected {len(rows)} scores without NaN from attack {name!r}, got shape {output.score.shape} "
            f"with {int(np.isnan(output.score).sum())} NaN; mend the attack"
        )
    return AttackResult(
        name, signals.adaptive, signals.num_models - 1, output, signals.is_member(target), signals.records[rows]
    )


def as_json(report: AuditReport, *, seed: int = 0) -> dict[str, object]:
    """The ``attacks`` and ``worst`` objects of ``results.json``.

    Args:
        report: of one target.
        seed: for the permutations that give the chance level of the strongest attack.
    """
    attacks = {}
    for r in report.results:
        audit: dict[str, object] = {"adaptive": r.adaptive}
        for metric in METRICS.values():
            metric.write(audit, r.measure(metric))
        members = int(r.member.sum())
        attacks[r.name] = {
            **audit,
            "smallest_fpr": smallest_fpr(len(r.member) - members),
            "members": members,
            "nonmembers": len(r.member) - members,
            "reference_models": r.reference_models,
        }
    return {"attacks": attacks, "worst": _worst_as_json(report, seed) if report.results else {}}


def _worst_as_json(report: AuditReport, seed: int) -> dict[str, object]:
    """The strongest attack by each metric, beside what the strongest reaches on a model that leaks
    nothing.
    """
    rng = generator(seed, "chance of the strongest")
    chance = chance_of_strongest(list(METRICS.values()), [result.scored for result in report.results], rng)
    worst: dict[str, object] = {}
    for metric in METRICS.values():
        strongest, estimate = report.worst(metric)
        worst[metric.name] = {
            "attack": strongest.name,
            "value": estimate.value,
            "ci": [estimate.low, estimate.high],
            "chance": chance[metric.name].expected,
            "chance_high": chance[metric.name].high,
        }
    return worst
