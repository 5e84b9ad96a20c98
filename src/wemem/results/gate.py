"""Release gate: limits on the leakage and the accuracy of models, for continuous integration.

A limit is compared with the unfavourable end of the interval: the upper end of a leak, the lower
end of accuracy. So an imprecise measurement fails. Every number in ``results.json`` that can be
recomputed is recomputed (:mod:`wemem.results.verify`). A measurement that may underestimate the
leak fails with its reason (:mod:`wemem.results.reservations`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.exporting.shards import weights_sha256
from wemem.metrics.intervals import Estimate
from wemem.metrics.registry import METRICS, fprs, tpr_metric
from wemem.results.arms import Arm, arms, require_labels
from wemem.results.canaries import worst_case
from wemem.results.reservations import Reservation, arm_of_file, other_file, require_known, reservations
from wemem.results.verify import verify
from wemem.results.wording import interval, per_cent, printable

#: Restriction on an interval that no correction widened.
HIGHEST_END = "the upper end is the highest of all attacks, not widened for the selection"


@dataclass(frozen=True)
class Limits:
    """Limits on one model, as fractions; None sets no limit.

    Args:
        max_tpr: the largest TPR of the strongest attack at the false positive rate ``at_fpr``.
        at_fpr: a false positive rate that results report, see :data:`wemem.metrics.registry.RATES`.
        min_accuracy: the smallest test accuracy.
        max_auc: the largest AUC of the strongest attack.
        max_balanced_accuracy: the largest balanced accuracy of the strongest attack.
        max_canary_tpr: the largest TPR on any kind of canary at ``at_fpr``; it needs results of a
            study with canaries.

    Raises:
        InputError: no limit, a limit outside [0, 1], a limit that every model meets, or a false
            positive rate that results do not report.
    """

    max_tpr: float | None = None
    at_fpr: float = 0.01
    min_accuracy: float | None = None
    max_auc: float | None = None
    max_balanced_accuracy: float | None = None
    max_canary_tpr: float | None = None

    def __post_init__(self) -> None:
        if self.at_fpr not in fprs():
            raise InputError(f"expected at-fpr {', '.join(map(str, fprs()))}, got {self.at_fpr}; results have no other")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "at_fpr"}
        for name, limit in given.items():
            if limit is not None and not 0 <= limit <= 1:
                raise InputError(f"expected {name.replace('_', '-')} between 0 and 1, got {limit}; 0.05 is 5 %")
            if limit == (0 if name == "min_accuracy" else 1):
                raise InputError(
                    f"expected {name.replace('_', '-')} that a model can miss, got {limit}, which every model meets; "
                    "limits are fractions, 0.01 is 1 %"
                )
        if all(limit is None for limit in given.values()):
            listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"expected a limit to check, got none; give one of {listed}")

    @classmethod
    def if_given(
        cls, max_tpr: float | None, at_fpr: float, min_accuracy: float | None, max_auc: float | None
    ) -> "Limits | None":
        """The limits of a report or of evidence, or None if there is none."""
        given = (max_tpr, min_accuracy, max_auc) != (None, None, None)
        return cls(max_tpr, at_fpr, min_accuracy, max_auc) if given else None

    @property
    def on_a_leak(self) -> bool:
        """True if a limit on a leak is among the limits."""
        return self.max_canary_tpr is not None or any(True for _ in self.of_leaks())

    def of_leaks(self) -> Iterator[tuple[str, str, float]]:
        """The name of the metric, its phrase and the limit, for every limit on a leak."""
        candidates = (
            (tpr_metric(self.at_fpr).name, self.max_tpr),
            ("auc", self.max_auc),
            ("balanced_accuracy", self.max_balanced_accuracy),
        )
        yield from ((name, METRICS[name].phrase, limit) for name, limit in candidates if limit is not None)


@dataclass(frozen=True)
class Check:
    """The comparison of one arm with one limit.

    Args:
        label: the label of the arm.
        sparsity: the sparsity of the arm.
        seeds: the number of runs of the arm.
        measure: the metric as a phrase.
        estimate: the measured value with its 95 % interval.
        limit: the largest upper end of a leak, or the smallest lower end of accuracy.
        passed: whether the limit holds.
        attack: the strongest attack; None for accuracy.
        caveats: restrictions on the measured value, as phrases.
    """

    label: str
    sparsity: float
    seeds: int
    measure: str
    estimate: Estimate
    limit: float
    passed: bool
    attack: str | None = None
    caveats: tuple[str, ...] = ()

    def __str__(self) -> str:
        end, must = ("lower", "at least") if self.attack is None else ("upper", "at most")
        decisive = self.estimate.low if self.attack is None else self.estimate.high
        return (
            f"{'passed' if self.passed else 'failed'}: {printable(self.label)}, {per_cent(self.sparsity)} sparsity, "
            f"{self.seeds} {'seed' if self.seeds == 1 else 'seeds'}: {self.measure} {interval(self.estimate)} %"
            + ("" if self.attack is None else f" by {printable(self.attack)}")
            + f", {end} end {100 * decisive:.4g} % must be {must} {100 * self.limit:.4g} %"
            + "".join(f"; {caveat}" for caveat in self.caveats)
        )


@dataclass(frozen=True)
class FolderGate:
    """The outcome of a gate for one folder.

    Args:
        folder: the folder of results.
        results_sha256: the SHA-256 of ``results.json``.
        limits: the limits that were checked.
        checks: the comparison of every arm with every limit.
        reservations: the reasons why a leak may be underestimated, with the waived ones.
    """

    folder: Path
    results_sha256: str
    limits: Limits
    checks: tuple[Check, ...]
    reservations: tuple[Reservation, ...]

    @property
    def passed(self) -> bool:
        """True if every limit holds and every reservation is waived."""
        return all(one.passed for one in self.checks) and all(one.waived for one in self.reservations)


def check_folder(
    folder: Path, limits: Limits, labels: Sequence[str] = (), waivers: Sequence[str] = (), shipped: Path | None = None
) -> FolderGate:
    """Verify a folder of results and check its arms against limits.

    Args:
        folder: the ``--out`` folder of a study or an audit.
        limits: the limits to check.
        labels: the labels of the arms to check; empty for all but controls and ``dense``.
        waivers: the names of the reservations that the user accepts.
        shipped: the model file that is to be released, if the user names one.

    Raises:
        InputError: the results were changed after they were written, a waiver is unknown, or the
            file to be released cannot be read; also all errors of :func:`check`.
    """
    require_known(waivers)
    verified = verify(folder, [name for name, _, _ in limits.of_leaks() if not METRICS[name].needs_threshold])
    if verified.forged:
        raise InputError(
            f"expected results in {folder} that follow from their records, got: {verified.forged[0].text}; "
            "run the study again"
        )
    checks = check(verified.results, limits, labels)
    fpr = None if limits.max_tpr is None else limits.at_fpr
    rows = _chosen(verified.results, labels)
    raised = list(reservations(verified, rows, fpr))
    if shipped is not None:
        digest = weights_sha256(shipped)
        checks += [one for arm in rows for one in _shipped_checks(arm, limits, digest, verified.results)]
        raised += [other_file(arm, shipped) for arm in rows if not arm_of_file(arm, digest, verified.results)]
    marked = tuple(replace(one, waived=one.waivable and one.name in waivers) for one in raised)
    return FolderGate(folder, verified.sha256, limits, tuple(checks), marked)


def check(results: Mapping[str, Any], limits: Limits, labels: Sequence[str] = ()) -> list[Check]:
    """Compare every arm with every limit, in the order of the study.

    Args:
        results: the content of ``results.json``.
        limits: the limits to check.
        labels: the labels of the arms to check; empty for all but controls and ``dense``.

    Raises:
        InputError: an unknown label, no arm to check, or an arm without attacks.
    """
    return [result for arm in _chosen(results, labels) for result in _checks(arm, limits)]


def _chosen(results: Mapping[str, Any], labels: Sequence[str]) -> list[Arm]:
    rows = arms(results)
    require_labels(rows, labels)
    chosen = [arm for arm in rows if (arm.label in labels if labels else not _is_control(arm))]
    if not chosen:
        raise InputError("expected a pruned model to check, got only the dense one; name it, --label dense")
    for arm in chosen:
        if any(not run["attacks"] for run in arm.runs):
            raise InputError(f"expected attacks on {arm.label!r}, got a run without any; run the study with attacks")
    return chosen


def _is_control(arm: Arm) -> bool:
    """True for a control arm of a study, and false for a dense model that was audited by itself."""
    return arm.is_control and arm.label == arm.defense


def _checks(arm: Arm, limits: Limits) -> Iterator[Check]:
    for metric, words, limit in limits.of_leaks():
        for attack, estimate, phrase, caveats in (_strongest(arm, metric), *_over_targets(arm, metric)):
            yield Check(
                arm.label, arm.sparsity, len(arm.runs), f"{words}{phrase}", estimate, limit, estimate.high <= limit,
                attack, caveats,
            )  # fmt: skip
    if limits.max_canary_tpr is not None:
        yield _canary_check(arm, limits.at_fpr, limits.max_canary_tpr)
    if limits.min_accuracy is not None:
        measured, least = arm.accuracy(), limits.min_accuracy
        reached = measured.low >= least
        yield Check(arm.label, arm.sparsity, len(arm.runs), "test accuracy", measured, least, reached)


def _shipped_checks(arm: Arm, limits: Limits, digest: str, results: Mapping[str, Any]) -> Iterator[Check]:
    """The limits on the file that ships by itself, which a mean over other seeds could hide."""
    own = arm_of_file(arm, digest, results)
    if own is not None and len(own.runs) < len(arm.runs):
        yield from (replace(one, measure=f"{one.measure} of the file to release") for one in _checks(own, limits))


def _canary_check(arm: Arm, fpr: float, limit: float) -> Check:
    metric = tpr_metric(fpr)
    worst = worst_case(arm, metric.name)
    if worst is None:
        raise InputError(
            f"expected canaries in the results of {arm.label!r}, got none; run the study or audit with canaries = 150"
        )
    words = f"{metric.phrase} on canaries ({worst.kind.replace('_', ' ')})"
    caveat = f"{worst.records} canaries of each kind, {worst.targets} targets"
    return Check(
        arm.label, arm.sparsity, len(arm.runs), words, worst.estimate, limit, worst.estimate.high <= limit,
        worst.attack, (caveat,),
    )  # fmt: skip


#: An attack, its estimate, a phrase on the targets, and caveats.
Measured = tuple[str, Estimate, str, tuple[str, ...]]


def _strongest(arm: Arm, metric: str) -> Measured:
    """The strongest attack on the audited models.

    The interval is widened for the selection of the attack. A run without a stored widened interval
    gets the highest upper end of all attacks in its place, with a caveat.
    """
    caveats: tuple[str, ...] = ()
    if len(arm.runs) > 1 or metric in arm.runs[0]["worst"]:
        attack, estimate = arm.strongest(metric)
    else:
        measured = {name: arm.measure(name, metric) for name in arm.attacks}
        attack = max(measured, key=lambda name: measured[name].value)
        highest = max(one.high for one in measured.values())
        estimate = Estimate(measured[attack].value, measured[attack].low, highest)
        if len(measured) > 1:
            caveats += (HIGHEST_END,)
    return attack, estimate, "", caveats


def _over_targets(arm: Arm, metric: str) -> Iterator[Measured]:
    """The strongest attack over leave-one-out targets, if there are any; its upper end is the
    highest of all attacks.
    """
    strongest = arm.leave_one_out(metric)
    if strongest is not None:
        name, estimate, targets = strongest
        attacks = arm.leave_one_out_attacks(metric)
        high = max(arm.over_targets(attack, metric).high for attack in attacks)
        phrase, caveats = f" over {targets} leave-one-out targets", (HIGHEST_END,) if len(attacks) > 1 else ()
        yield name, Estimate(estimate.value, estimate.low, high), phrase, caveats
