"""Limits on what models may leak and must still achieve, checked for a pipeline that goes on or stops.

A limit is held by the end of the interval that speaks against it: the upper one of a leak, the lower one of accuracy.
What was measured too coarsely therefore fails. Nothing in ``results.json`` is believed that can be computed anew
(:mod:`wemem.results.verify`), and a leak that may have been measured too small fails for that reason
(:mod:`wemem.results.reservations`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.metrics.intervals import Estimate
from wemem.metrics.registry import METRICS, fprs, tpr_metric
from wemem.results.arms import Arm, arms, require_labels
from wemem.results.reservations import Reservation, require_known, reservations
from wemem.results.verify import verify
from wemem.results.wording import interval, per_cent, printable


@dataclass(frozen=True)
class Limits:
    """Limits on one model; None is no limit.

    Args:
        max_tpr: share of the members that the strongest attack may find at ``at_fpr``.
        at_fpr: a false positive rate that results have, see :data:`wemem.metrics.registry.RATES`.
        min_accuracy: on test records.
        max_auc: of the strongest attack.
        max_balanced_accuracy: of the strongest attack.

    Raises:
        InputError: no limit, one outside [0, 1], or an FPR that no results report.
    """

    max_tpr: float | None = None
    at_fpr: float = 0.01
    min_accuracy: float | None = None
    max_auc: float | None = None
    max_balanced_accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.at_fpr not in fprs():
            raise InputError(f"expected at-fpr {', '.join(map(str, fprs()))}, got {self.at_fpr}; results have no other")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "at_fpr"}
        for name, limit in given.items():
            if limit is not None and not 0 <= limit <= 1:
                raise InputError(f"expected {name.replace('_', '-')} between 0 and 1, got {limit}; 0.05 is 5 %")
        if all(limit is None for limit in given.values()):
            listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"expected a limit to check, got none; give one of {listed}")

    def of_leaks(self) -> Iterator[tuple[str, str, float]]:
        """The metric, its words and the limit, of each that was given."""
        found = (
            (tpr_metric(self.at_fpr).name, self.max_tpr),
            ("auc", self.max_auc),
            ("balanced_accuracy", self.max_balanced_accuracy),
        )
        yield from ((name, METRICS[name].phrase, limit) for name, limit in found if limit is not None)


@dataclass(frozen=True)
class Check:
    """One arm against one limit.

    Args:
        label: of the arm.
        sparsity: of the arm.
        seeds: how many runs it has.
        measure: in words.
        estimate: measured, with its 95 % interval.
        limit: that the upper end may not exceed, or, of accuracy, that the lower end must reach.
        passed: whether it does.
        attack: the strongest; none for accuracy.
        caveats: what the reader should know of the number.
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
class GateResult:
    """The outcome of a gate for one folder.

    Args:
        folder: the folder.
        results_sha256: SHA-256 of its ``results.json``.
        limits: the limits.
        checks: every arm against every limit.
        reservations: reasons not to rely on the measured leaks, waived ones included.
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
) -> GateResult:
    """Verify a folder of results and check its arms against limits.

    Args:
        folder: the ``--out`` folder of a study or an audit.
        limits: at least one.
        labels: of the arms to check; all but ``dense`` if empty.
        waivers: names of reservations that the user accepts.
        shipped: the model file that is to be released, if the user names it.

    Raises:
        InputError: as :func:`check`, results that were changed after they were written, or an unknown waiver.
    """
    require_known(waivers)
    verified = verify(folder)
    if verified.forged:
        raise InputError(
            f"expected results in {folder} that follow from their records, got: {verified.forged[0].text}; "
            "run the study again"
        )
    checks = check(verified.results, limits, labels)
    fpr = None if limits.max_tpr is None else limits.at_fpr
    found = reservations(verified, _chosen(verified.results, labels), fpr, shipped)
    waived = tuple(replace(one, waived=one.name in waivers) for one in found)
    return GateResult(folder, verified.sha256, limits, tuple(checks), waived)


def check(results: Mapping[str, Any], limits: Limits, labels: Sequence[str] = ()) -> list[Check]:
    """Every arm against every limit, in the order of the study.

    Args:
        results: the content of ``results.json``.
        limits: at least one.
        labels: of the arms to check; all but controls and ``dense`` if empty.

    Raises:
        InputError: an unknown label, no arm to check, or an arm that no attack was run on.
    """
    return [found for arm in _chosen(results, labels) for found in _checks(arm, limits)]


def _chosen(results: Mapping[str, Any], labels: Sequence[str]) -> list[Arm]:
    rows = arms(results)
    require_labels(rows, labels)
    chosen = [arm for arm in rows if (arm.label in labels if labels else not _is_beside(arm))]
    if not chosen:
        raise InputError("expected a pruned model to check, got only the dense one; name it, --label dense")
    for arm in chosen:
        if any(not run["attacks"] for run in arm.runs):
            raise InputError(f"expected attacks on {arm.label!r}, got a run without any; run the study with attacks")
    return chosen


def _is_beside(arm: Arm) -> bool:
    """True if an arm is a control of a study; a single model that was audited as it is, is none."""
    return arm.is_control and arm.label == arm.defense


def _checks(arm: Arm, limits: Limits) -> Iterator[Check]:
    for metric, words, limit in limits.of_leaks():
        attack, estimate, caveats = _strongest(arm, metric)
        yield Check(
            arm.label, arm.sparsity, len(arm.runs), words, estimate, limit, estimate.high <= limit, attack, caveats
        )
    if limits.min_accuracy is not None:
        measured, least = arm.accuracy(), limits.min_accuracy
        reached = measured.low >= least
        yield Check(arm.label, arm.sparsity, len(arm.runs), "test accuracy", measured, least, reached)


def _strongest(arm: Arm, metric: str) -> tuple[str, Estimate, tuple[str, ...]]:
    """With the interval for having been chosen, or, where one run does not tell it, the highest of all upper ends."""
    caveats: tuple[str, ...] = ()
    if len(arm.runs) > 1 or metric in arm.runs[0]["worst"]:
        attack, estimate = arm.strongest(metric)
    else:
        measured = {name: arm.measure(name, metric) for name in arm.attacks}
        attack = max(measured, key=lambda name: measured[name].value)
        highest = max(one.high for one in measured.values())
        estimate = Estimate(measured[attack].value, measured[attack].low, highest)
        if len(measured) > 1:
            caveats += ("the upper end is the highest of all attacks, not widened for the choice",)
    return attack, estimate, caveats
