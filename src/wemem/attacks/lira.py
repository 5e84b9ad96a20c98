"""LiRA, the likelihood ratio attack: how the target's confidence in a record compares with that of reference models.

Carlini et al., "Membership inference attacks from first principles", S&P 2022. The statistic is the logit of the
true-class probability (:func:`wemem.signals.logit_confidence`), of which every record has one normal distribution over
models trained with it and one over models trained without it.

As in the authors' code, the centre of a normal is the *median* of the reference models' values (the paper writes mean;
the median forgives a model that went astray), its width their standard deviation with divisor n, plus 1e-30 so that
values all equal do not divide by zero.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64

from wemem.attacks.base import Attack, AttackOutput, Scores
from wemem.attacks.reference import Trained, references, require_models
from wemem.signals import Signals

Statistic = Float[np.ndarray, "K N"]
PerRecord = Float[np.ndarray, " N"]
Variance = Literal["record", "global"]

#: Records taken at a time: the working copies of 64 models' values then fit the cache.
BLOCK = 2048
#: Models, the target among them, from which on every record has a variance of its own: the paper's number. With fewer
#: its estimate is so noisy that the attack is weaker (on Location with 17 models, under every defense; benchmarks/).
PER_RECORD_MODELS = 64
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
    require_models(trained, True, False, fewest=1 if variance == "global" else 2)
    width = overall_spread(references, trained) if variance == "global" else None
    score = np.empty(len(target))
    for here, values, inside in _blocks(references, trained):
        score[here] = _log_normal(target[here], *centre_and_spread(values, inside, width))
        score[here] -= _log_normal(target[here], *centre_and_spread(values, 1 - inside, width))
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
    require_models(trained, False, fewest=1 if variance == "global" else 2)
    width = overall_spread(references, ~trained) if variance == "global" else None
    score = np.empty(len(target))
    for here, values, inside in _blocks(references, trained):
        centre, spread = centre_and_spread(values, 1 - inside, width)
        score[here] = (target[here] - centre) / spread
    return score


def centre_and_spread(
    values: Float[np.ndarray, "n K"], chosen: Float[np.ndarray, "n K"], width: float | None = None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Median and standard deviation (divisor n, plus 1e-30) of each row's chosen values.

    Args:
        values: finite, shape ``(n, K)``.
        chosen: 1 where a value counts, 0 elsewhere, shape ``(n, K)``; at least one in every row. (Products with it are
            many times faster than a choice by a mask.)
        width: a standard deviation to use for every row instead of its own.

    >>> centre, spread = centre_and_spread(np.array([[1.0, 2.0, 9.0, 5.0]]), np.array([[1.0, 1.0, 1.0, 0.0]]))
    >>> centre.tolist(), (spread**2).tolist()  # deviations from the mean 4: -3, -2, 5
    ([2.0], [12.666666666666666])
    """
    count = chosen.sum(axis=1)
    # Sorting some dozen neighbours is the fastest median; what does not count goes beyond any statistic, to the end.
    ordered = values + (1 - chosen) * 1e300
    ordered.sort(axis=1)
    row, middle = np.arange(len(values)), count.astype(np.int64)
    centre = 0.5 * (ordered[row, (middle - 1) // 2] + ordered[row, middle // 2])
    if width is not None:
        return centre, np.full_like(centre, width)
    deviation = values - (np.einsum("nk,nk->n", values, chosen) / count)[:, None]
    deviation *= chosen
    return centre, np.sqrt(np.einsum("nk,nk->n", deviation, deviation) / count) + 1e-30


def _blocks(
    statistic: Statistic, trained: Trained
) -> Iterator[tuple[slice, Float[np.ndarray, "n K"], Float[np.ndarray, "n K"]]]:
    """Some records at a time, one row each: where, their values, and 1 for models trained on them."""
    for start in range(0, statistic.shape[1], BLOCK):
        here = slice(start, start + BLOCK)
        yield here, np.ascontiguousarray(statistic[:, here].T), trained[:, here].T.astype(np.float64, order="C")


def overall_spread(statistic: Statistic, chosen: Bool[np.ndarray, "K N"]) -> float:
    """Standard deviation (divisor n, plus 1e-30) of all chosen values around their common mean."""
    count = int(chosen.sum())
    total, squares = 0.0, 0.0
    for _, values, weight in _blocks(statistic, chosen):
        total += float(np.einsum("nk,nk->", values, weight))
    for _, values, weight in _blocks(statistic, chosen):
        squares += float(np.einsum("nk,nk->", np.square(values - total / count), weight))
    return float(np.sqrt(squares / count)) + 1e-30


def _log_normal(value: PerRecord, centre: PerRecord, spread: PerRecord) -> PerRecord:
    """Log-density but for ``-log(2 pi) / 2``, which cancels."""
    return np.asarray(-0.5 * np.square((value - centre) / spread) - np.log(spread))


@dataclass(frozen=True)
class ReferenceLikelihood(Attack):
    """What both forms of LiRA share.

    Args:
        variance: ``record``, ``global``, or ``auto``: per record from :data:`PER_RECORD_MODELS` = 64 models on, the
            target counted, provided that every record has at least :data:`PER_RECORD_SIDE` = 3 reference models on each
            side that is used; else global.
            The target and the models its threshold is chosen on are treated alike.
        augmented: use the augmented queries if the signals have them: the mean over queries of each one's score by
            normals of its own, as in the authors' code (the log of the product of normals, divided by their number).
    """

    variance: Literal["auto", "record", "global"] = "auto"
    augmented: bool = True

    layout = "shared"
    optional_signals = frozenset({"queries"})

    def predict(self, signals: Signals, target: int = 0, *, seed: int = 0) -> AttackOutput:
        if self.variance != "auto":
            return super().predict(signals, target, seed=seed)
        self.check(signals, target)
        return replace(self, variance=self._choose(signals, target)).predict(signals, target, seed=seed)

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        rows = signals.audited(target)
        others, trained = references(signals, target, rows)
        variance = self._choose(signals, target) if self.variance == "auto" else self.variance
        if self.augmented and "queries" in signals.extras:
            queries = np.moveaxis(signals.query_logit_confidence, 2, 0)
        else:
            queries = signals.logit_confidence[None]
        scores = [self.compare(q[np.ix_(others, rows)], trained, q[target, rows], variance) for q in queries]
        return np.asarray(np.mean(scores, axis=0))

    def _choose(self, signals: Signals, target: int) -> Variance:
        _, trained = references(signals, target, signals.audited(target))
        fewest = self.fewest(trained.sum(axis=0), (~trained).sum(axis=0))
        return "record" if signals.num_models >= PER_RECORD_MODELS and fewest >= PER_RECORD_SIDE else "global"

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
    """Offline: :func:`lira_offline`, no model trained with the record is needed. Carlini et al., S&P 2022."""

    name = "lira_offline"

    def compare(self, references: Statistic, trained: Trained, target: PerRecord, variance: Variance) -> PerRecord:
        return lira_offline(references, trained, target, variance=variance)

    def fewest(self, with_record: Int64[np.ndarray, " N"], without_record: Int64[np.ndarray, " N"]) -> int:
        return int(without_record.min(initial=PER_RECORD_SIDE))
