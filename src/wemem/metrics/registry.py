"""The metrics that an audit reports, one entry each.

Results, tables, figures, files, comparisons and the gate all read this registry. To report the true
positive rate at another false positive rate, add the rate to :data:`RATES`; nothing else changes.

A higher value of a metric always means a larger leak.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from wemem.errors import InputError
from wemem.metrics.intervals import Estimate, auc_interval, balanced_accuracy, tpr_at_fpr
from wemem.metrics.permutation import Memberships, Values, auc_permuted, balanced_accuracy_permuted, tpr_permuted
from wemem.metrics.rates import Members, Nonmembers, auc, true_positive_rate

#: The most prominent place where a metric is shown. ``headline``: compared between defenses, drawn
#: against accuracy, and in all tables. ``table``: in tables. ``file``: in results and CSV files
#: only.
Place = Literal["headline", "table", "file"]
NO_CALLS = "expected calls at a threshold, got scores alone; use a metric that needs no threshold"


@dataclass(frozen=True, eq=False)
class ScoredRecords:
    """The output of one attack on one target, with the true membership.

    Args:
        score: the score of each record, higher = member, shape ``(n,)``.
        member: the membership of each record, true where the target was trained on it, shape
            ``(n,)``.
        called: the call on each record, true where the attack calls it a member, shape ``(n,)``;
            None if the attack has no threshold.
    """

    score: Float[np.ndarray, " n"]
    member: Bool[np.ndarray, " n"]
    called: Bool[np.ndarray, " n"] | None = None

    @property
    def members(self) -> Members:
        """The scores of the members."""
        return np.asarray(self.score[self.member])

    @property
    def nonmembers(self) -> Nonmembers:
        """The scores of the non-members."""
        return np.asarray(self.score[~self.member])

    def calls(self) -> tuple[Bool[np.ndarray, " m"], Bool[np.ndarray, " k"]]:
        """Split the calls into those on members and those on non-members.

        Raises:
            InputError: the attack has no threshold.
        """
        if self.called is None:
            raise InputError(NO_CALLS)
        return self.called[self.member], self.called[~self.member]


@dataclass(frozen=True)
class Metric:
    """A measure of the success of an attack; a higher value means a larger leak.

    Args:
        name: the name of the metric in results, CSV columns and options.
        label: the name of the metric in tables, figures and sentences.
        chance: the mean value for scores that are independent of membership.
        place: the most prominent place where the metric is shown.
        value: a function that computes the metric from scored records.
        interval: a function that computes the metric with its interval, at a confidence level.
        permuted: a function that computes the metric for each row of memberships ``(B, n)``, with
            the scores unchanged.
        path: the keys of the metric in the object that ``results.json`` has for each attack; the
            first key with ``_ci`` appended gives the interval.
        fpr: the false positive rate of the metric; None for other kinds of metric.
        needs_threshold: true if the metric needs the attack's calls, false if it needs only scores.
    """

    name: str
    label: str
    chance: float
    place: Place
    value: Callable[[ScoredRecords], float] = field(repr=False, compare=False)
    interval: Callable[[ScoredRecords, float], Estimate] = field(repr=False, compare=False)
    permuted: Callable[[ScoredRecords, Memberships], Values] = field(repr=False, compare=False)
    path: tuple[str, ...]
    fpr: float | None = None
    needs_threshold: bool = False

    @property
    def phrase(self) -> str:
        """The label within a sentence; its first letter is lower case unless it begins with an
        abbreviation.
        """
        return self.label if self.label[:2].isupper() else f"{self.label[0].lower()}{self.label[1:]}"

    def read(self, audit: Mapping[str, Any]) -> Estimate | None:
        """Read the metric of one attack from ``results.json``; None if the file does not have it."""
        value, ends = audit.get(self.path[0]), audit.get(f"{self.path[0]}_ci")
        for key in self.path[1:]:
            value, ends = (value or {}).get(key), (ends or {}).get(key)
        return None if value is None or ends is None else Estimate(value, ends[0], ends[1])

    def write(self, audit: dict[str, Any], estimate: Estimate) -> None:
        """Add the metric to the object that ``results.json`` has for one attack."""
        first, *rest = self.path
        for name, content in ((first, estimate.value), (f"{first}_ci", [estimate.low, estimate.high])):
            keys, place = [name, *rest], audit
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = content


def tpr_metric(fpr: float, place: Place = "table") -> Metric:
    """Build the metric of the TPR at an FPR of ``fpr``.

    >>> tpr_metric(0.05).name, tpr_metric(0.05).label
    ('tpr_at_0.05', 'TPR at 5 % FPR')
    """
    return Metric(
        f"tpr_at_{fpr}", f"TPR at {100 * fpr:.3g} % FPR", fpr, place,
        lambda records: true_positive_rate(records.members, records.nonmembers, fpr),
        partial(_tpr_interval, fpr=fpr), lambda records, members: tpr_permuted(records.score, members, fpr),
        ("tpr_at_fpr", str(fpr)), fpr,
    )  # fmt: skip


def _tpr_interval(records: ScoredRecords, level: float, fpr: float) -> Estimate:
    return tpr_at_fpr(records.members, records.nonmembers, fpr, level)


def _balanced_accuracy(records: ScoredRecords) -> float:
    members, nonmembers = records.calls()
    return float((members.mean() + 1 - nonmembers.mean()) / 2)


def _balanced_accuracy_permuted(records: ScoredRecords, members: Memberships) -> Values:
    if records.called is None:
        raise InputError(NO_CALLS)
    return balanced_accuracy_permuted(records.called, members)


#: The false positive rates at which the true positive rate is reported, with the place where each
#: is shown.
RATES: dict[float, Place] = {0.1: "file", 0.01: "headline", 0.001: "headline"}

#: Every metric by name, in the order of results and tables.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "balanced_accuracy", "Balanced accuracy", 0.5, "headline", _balanced_accuracy,
            lambda records, level: balanced_accuracy(*records.calls(), level), _balanced_accuracy_permuted,
            ("balanced_accuracy",),
            needs_threshold=True,
        ),
        Metric(
            "auc", "AUC", 0.5, "table", lambda records: auc(records.members, records.nonmembers),
            lambda records, level: auc_interval(records.members, records.nonmembers, level),
            lambda records, members: auc_permuted(records.score, members), ("auc",),
        ),
        *(tpr_metric(fpr, place) for fpr, place in RATES.items()),
    )
}  # fmt: skip

#: The metric by which the paper compares defenses.
PAPER = "balanced_accuracy"
#: The low false positive rate that a summary uses, and the name of its metric. It counts the
#: records whose membership is revealed almost with certainty.
LOW_RATE = 0.01
LOW_FPR = f"tpr_at_{LOW_RATE}"


def fprs() -> tuple[float, ...]:
    """List the false positive rates at which a true positive rate is reported, highest first."""
    return tuple(sorted((metric.fpr for metric in METRICS.values() if metric.fpr is not None), reverse=True))


def metrics_for(place: Place, audits: Iterable[Mapping[str, Any]] = ()) -> list[Metric]:
    """List the metrics that belong in a place and that all given attacks of ``results.json`` have.

    Results of another version may lack a metric that was registered later.

    >>> [metric.name for metric in metrics_for("headline")]
    ['balanced_accuracy', 'tpr_at_0.01', 'tpr_at_0.001']
    """
    places = {"headline": ("headline",), "table": ("headline", "table"), "file": ("headline", "table", "file")}[place]
    known = list(audits)
    return [
        metric
        for metric in METRICS.values()
        if metric.place in places and all(metric.read(audit) is not None for audit in known)
    ]
