"""LiRA, the likelihood ratio attack: how the target's confidence in a record compares with that of reference models.

Carlini et al., "Membership inference attacks from first principles", S&P 2022. The statistic is the logit of the true-class
probability (:func:`wemem.signals.logit_confidence`), of which every record has one normal distribution over models trained
with it and one over models trained without it.

As in the authors' code, the centre of a normal is the *median* of the reference models' values (the paper writes mean; the
median forgives a model that went astray), its width their standard deviation with divisor n, plus 1e-30 so that values
all equal do not divide by zero.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64

from wemem.attacks.base import Attack, Scores, Verdict
from wemem.attacks.reference import Trained, references, require_both_sides
from wemem.signals import Signals

Statistic = Float[np.ndarray, "K N"]
PerRecord = Float[np.ndarray, " N"]
Variance = Literal["record", "global"]

#: Records taken at a time: the working copies of 64 models' values then fit the cache.
BLOCK = 2048
#: Models, the target among them, from which on every record has a variance of its own.
PER_RECORD_MODELS = 16
#: Reference models that every record must have on a side for that. Attacking one of them in the target's place
#: takes at most one more away, and two values are the fewest that have a spread.
PER_RECORD_SIDE = 3


def lira_online(references: Statistic, trained: Trained, target: PerRecord, *, variance: Variance) -> PerRecord:
    """``log N(s; in) - log N(s; out)`` of every record.

    Args:
        references: the reference models' statistic, shape ``(K, N)``.
        trained: which records each was trained on, shape ``(K, N)``.
        target: the target's statistic, shape ``(N,)``.
        variance: ``record``, each record's own on each side; ``global``, one for all records and both sides, that
            of all in-values around their common mean. That is the authors' choice; with one width the score is
            ``((s - out)^2 - (s - in)^2) / 2 width^2`` and the width cannot change the order of the records.

    Raises:
        InputError: a record that every or no reference model was trained on, or, with ``record``, one with a single
            model on a side.

    In at 3 +- 1, out at -1 +- 1, seen 3: the exponents differ by 4^2 / 2.

    >>> values = np.array([[2.0], [4.0], [-2.0], [0.0]])
    >>> trained = np.array([[True], [True], [False], [False]])
    >>> lira_online(values, trained, np.array([3.0]), variance="record")
    array([8.])
    """
    count = trained.sum(axis=0)
    require_both_sides(count, len(trained) - count, 1 if variance == "global" else 2)
    width = overall_spread(references, trained) if variance == "global" else None
    score = np.empty(len(target))
    for start in range(0, len(target), BLOCK):
        here = slice(start, start + BLOCK)
        score[here] = _log_normal(target[here], *centre_and_spread(references[:, here], trained[:, here], width))
        score[here] -= _log_normal(target[here], *centre_and_spread(references[:, here], ~trained[:, here], width))
    return score


def lira_offline(references: Statistic, trained: Trained, target: PerRecord, *, variance: Variance) -> PerRecord:
    """``z = (s - centre) / spread`` over the models trained without the record, for every record.

    The paper's one-sided test scores ``1 - Pr[N(out) > s] = Phi(z)``; z is in the same order and does not
    saturate at 1. (The form ``-log N(s; out)``, which the authors' code and others compute, is two-sided: it calls
    a record a member for being *less* confident than models without it, too.)

    Args:
        references: the reference models' statistic, shape ``(K, N)``.
        trained: which records each was trained on, shape ``(K, N)``; only models trained without a record count for it.
        target: the target's statistic, shape ``(N,)``.
        variance: ``record``, each record's own; ``global``, that of all out-values around their common mean.

    Raises:
        InputError: a record that every reference model was trained on, or, with ``record``, all but one.

    Out at -1 +- 1, seen 3:

    >>> lira_offline(np.array([[-2.0], [0.0]]), np.array([[False], [False]]), np.array([3.0]), variance="record")
    array([4.])
    """
    out = len(trained) - trained.sum(axis=0)
    require_both_sides(out, out, 1 if variance == "global" else 2)
    width = overall_spread(references, ~trained) if variance == "global" else None
    score = np.empty(len(target))
    for start in range(0, len(target), BLOCK):
        here = slice(start, start + BLOCK)
        centre, spread = centre_and_spread(references[:, here], ~trained[:, here], width)
        score[here] = (target[here] - centre) / spread
    return score


def centre_and_spread(
    statistic: Statistic, chosen: Bool[np.ndarray, "K N"], width: float | None = None
) -> tuple[PerRecord, PerRecord]:
    """Median and standard deviation (divisor n, plus 1e-30) over the chosen models, one of each per record.

    Args:
        statistic: shape ``(K, N)``.
        chosen: shape ``(K, N)``, at least one model for every record.
        width: a standard deviation to use for every record instead of its own.
    """
    count, record = chosen.sum(axis=0), np.arange(chosen.shape[1])
    # One row per record: sorting rows of some dozen neighbours is the fastest median of a part of them.
    values = np.ascontiguousarray(np.where(chosen, statistic, np.inf).T)
    values.sort(axis=1)
    centre = 0.5 * (values[record, (count - 1) // 2] + values[record, count // 2])
    if width is not None:
        return centre, np.full_like(centre, width)
    mean = np.where(chosen, statistic, 0.0).sum(axis=0) / count
    deviation = np.where(chosen, statistic - mean, 0.0)
    return centre, np.sqrt(np.einsum("kn,kn->n", deviation, deviation) / count) + 1e-30


def overall_spread(statistic: Statistic, chosen: Bool[np.ndarray, "K N"]) -> float:
    """Standard deviation (divisor n, plus 1e-30) of all chosen values around their common mean."""
    count = int(chosen.sum())
    mean = sum(float(row[mask].sum()) for row, mask in zip(statistic, chosen, strict=True)) / count
    squares = sum(float(np.square(row[mask] - mean).sum()) for row, mask in zip(statistic, chosen, strict=True))
    return float(np.sqrt(squares / count)) + 1e-30


def _log_normal(value: PerRecord, centre: PerRecord, spread: PerRecord) -> PerRecord:
    """Log-density but for ``-log(2 pi) / 2``, which cancels."""
    return -0.5 * np.square((value - centre) / spread) - np.log(spread)


@dataclass(frozen=True)
class ReferenceLikelihood(Attack):
    """What both forms of LiRA share.

    Args:
        variance: ``record``, ``global``, or ``auto``: per record from :data:`PER_RECORD_MODELS` = 16 models on, the target
            counted (16 attacked in turn, or a victim with 15 and more reference models), provided that every
            record has at least :data:`PER_RECORD_SIDE` = 3 reference models on each side that is used; else global.
            The target and the models its threshold is chosen on are treated alike.
        augmented: use the augmented queries if the signals have them: the mean over queries of each one's score with
            each one's own normals, as in the authors' code (the paper's spherical normal, divided by their number).
    """

    variance: Literal["auto", "record", "global"] = "auto"
    augmented: bool = True

    layout = "shared"

    def judge(self, signals: Signals, target: int = 0, *, seed: int = 0) -> Verdict:
        if self.variance != "auto":
            return super().judge(signals, target, seed=seed)
        self.check(signals, target)
        return replace(self, variance=self._choose(signals, target)).judge(signals, target, seed=seed)

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        rows = signals.audited(target)
        others, trained = references(signals, target, rows)
        variance = self._choose(signals, target) if self.variance == "auto" else self.variance
        if not (self.augmented and "queries" in signals.extras):
            values = signals.logit_confidence
            return self.compare(values[np.ix_(others, rows)], trained, values[target, rows], variance)
        queries = signals.query_logit_confidence
        each = queries.shape[2]
        scores = self.compare(
            queries[np.ix_(others, rows)].reshape(len(others), -1),
            np.repeat(trained, each, axis=1),
            queries[target, rows].reshape(-1),
            variance,
        )
        return np.asarray(scores.reshape(len(rows), each).mean(axis=1))

    def _choose(self, signals: Signals, target: int) -> Variance:
        _, trained = references(signals, target, signals.audited(target))
        fewest = self.fewest(trained.sum(axis=0), (~trained).sum(axis=0))
        return "record" if signals.members >= PER_RECORD_MODELS and fewest >= PER_RECORD_SIDE else "global"

    @abstractmethod
    def compare(self, references: Statistic, trained: Trained, target: PerRecord, variance: Variance) -> PerRecord:
        """The score of each record."""

    @abstractmethod
    def fewest(self, with_record: Int64[np.ndarray, " N"], without_record: Int64[np.ndarray, " N"]) -> int:
        """The fewest reference models that a record has on a side that is used."""


@dataclass(frozen=True)
class Lira(ReferenceLikelihood):
    """Online: :func:`lira_online`. Carlini et al., S&P 2022."""

    name = "lira"

    def compare(self, references: Statistic, trained: Trained, target: PerRecord, variance: Variance) -> PerRecord:
        return lira_online(references, trained, target, variance=variance)

    def fewest(self, with_record: Int64[np.ndarray, " N"], without_record: Int64[np.ndarray, " N"]) -> int:
        return int(np.minimum(with_record, without_record).min(initial=PER_RECORD_SIDE))


@dataclass(frozen=True)
class LiraOffline(ReferenceLikelihood):
    """Offline: :func:`lira_offline`, no model trained with the record is needed. Carlini et al., S&P 2022, section VI-D."""

    name = "lira_offline"

    def compare(self, references: Statistic, trained: Trained, target: PerRecord, variance: Variance) -> PerRecord:
        return lira_offline(references, trained, target, variance=variance)

    def fewest(self, with_record: Int64[np.ndarray, " N"], without_record: Int64[np.ndarray, " N"]) -> int:
        return int(without_record.min(initial=PER_RECORD_SIDE))
