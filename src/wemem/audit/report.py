"""What an audit says: every attack's measures with intervals, and the worst of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from wemem.attacks.base import Attack, AttackOutput
from wemem.errors import InputError
from wemem.metrics.intervals import Estimate, auc_interval, balanced_accuracy, corrected_level, tpr_at_fpr
from wemem.metrics.rates import smallest_fpr
from wemem.signals import SignalLayout, Signals

#: False positive rates at which the true positive rate is reported.
FPRS = (0.1, 0.01, 0.001)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """One attack on one target.

    Args:
        name: of the attack.
        adaptive: every model the adversary used was made exactly as the target.
        reference_models: how many other models it used.
        output: its scores, thresholds and probabilities, one per audited row.
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
    def members(self) -> Float[np.ndarray, " m"]:
        """Scores of the members."""
        return np.asarray(self.output.score[self.member])

    @property
    def nonmembers(self) -> Float[np.ndarray, " n"]:
        """Scores of the non-members."""
        return np.asarray(self.output.score[~self.member])

    def balanced_accuracy(self, level: float = 0.95) -> Estimate:
        """Balanced accuracy at the thresholds that were chosen without the target."""
        calls = self.output.score >= self.output.threshold
        return balanced_accuracy(calls[self.member], calls[~self.member], level)

    def auc(self, level: float = 0.95) -> Estimate:
        """Area under the ROC curve."""
        return auc_interval(self.members, self.nonmembers, level)

    def tpr_at_fpr(self, fpr: float, level: float = 0.95) -> Estimate:
        """True positive rate at a false positive rate."""
        return tpr_at_fpr(self.members, self.nonmembers, fpr, level)

    def measure(self, metric: str, level: float = 0.95) -> Estimate:
        """A metric by its name in results: ``balanced_accuracy``, ``auc``, ``tpr_at_0.01``, ..."""
        if metric.startswith("tpr_at_"):
            return self.tpr_at_fpr(float(metric.removeprefix("tpr_at_")), level)
        return self.balanced_accuracy(level) if metric == "balanced_accuracy" else self.auc(level)


#: The metrics for which the worst attack is named.
WORST_METRICS = ("balanced_accuracy", "auc", *(f"tpr_at_{fpr}" for fpr in FPRS))


@dataclass(frozen=True, eq=False)
class AuditReport:
    """All attacks on one target."""

    results: tuple[AttackResult, ...]

    def __getitem__(self, name: str) -> AttackResult:
        return next(r for r in self.results if r.name == name)

    def worst(self, metric: str) -> tuple[AttackResult, Estimate]:
        """The strongest attack by a metric, its interval widened for having been chosen among all (Bonferroni)."""
        level = corrected_level(0.95, len(self.results))
        strongest = max(self.results, key=lambda r: r.measure(metric).value)
        return strongest, strongest.measure(metric, level)


def audit(
    signals: Mapping[SignalLayout, Signals], attacks: Sequence[Attack], target: int = 0, *, seed: int = 0
) -> AuditReport:
    """Run attacks on one target.

    Args:
        signals: by layout; each attack takes those of the layout it declares.
        attacks: what to run.
        target: which member is attacked.
        seed: for attacks that train something.

    Raises:
        InputError: signals of a needed layout are missing, two attacks share a name, or an attack refuses the signals.
    """
    names = [attack.name for attack in attacks]
    if len(set(names)) < len(names):
        raise InputError(f"expected attacks of different names, got {names}")
    return AuditReport(tuple(_run(signals, attack, target, seed) for attack in attacks))


def _run(signals: Mapping[SignalLayout, Signals], attack: Attack, target: int, seed: int) -> AttackResult:
    if attack.layout not in signals:
        raise InputError(f"attack {attack.name!r} needs {attack.layout} signals, got {sorted(signals)}; see its docs")
    seen = signals[attack.layout]
    return attack_result(attack, seen, target, attack.predict(seen, target, seed=seed))


def attack_result(attack: Attack, signals: Signals, target: int, output: AttackOutput) -> AttackResult:
    """A output beside the truth.

    Raises:
        InputError: scores of another number than the audited rows, or NaN.
    """
    rows = signals.audited(target)
    if output.score.shape != rows.shape or np.isnan(output.score).any():
        raise InputError(
            f"expected {len(rows)} scores without NaN from attack {attack.name!r}, got shape {output.score.shape} "
            f"with {int(np.isnan(output.score).sum())} NaN; mend the attack"
        )
    return AttackResult(
        attack.name, signals.adaptive, signals.num_models - 1, output, signals.is_member(target), signals.records[rows]
    )


def as_json(report: AuditReport) -> dict[str, object]:
    """The ``attacks`` and ``worst`` objects of ``results.json``."""
    attacks = {}
    for r in report.results:
        accuracy, area = r.balanced_accuracy(), r.auc()
        rates = {str(fpr): r.tpr_at_fpr(fpr) for fpr in FPRS}
        attacks[r.name] = {
            "adaptive": r.adaptive,
            "balanced_accuracy": accuracy.value,
            "balanced_accuracy_ci": [accuracy.low, accuracy.high],
            "auc": area.value,
            "auc_ci": [area.low, area.high],
            "tpr_at_fpr": {fpr: e.value for fpr, e in rates.items()},
            "tpr_at_fpr_ci": {fpr: [e.low, e.high] for fpr, e in rates.items()},
            "smallest_fpr": smallest_fpr(len(r.nonmembers)),
            "members": len(r.members),
            "nonmembers": len(r.nonmembers),
            "reference_models": r.reference_models,
        }
    worst = {}
    for metric in WORST_METRICS if report.results else ():
        strongest, estimate = report.worst(metric)
        worst[metric] = {"attack": strongest.name, "value": estimate.value, "ci": [estimate.low, estimate.high]}
    return {"attacks": attacks, "worst": worst}
