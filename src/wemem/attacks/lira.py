"""LiRA, the likelihood ratio attack: how the target's confidence in a record compares with that of
reference models.

Carlini et al., "Membership inference attacks from first principles", S&P 2022. The statistic is the
logit of the true-class probability (:func:`wemem.signals.logit_confidence`), of which every record
has one normal distribution over models trained with it and one over models trained without it.

The paper writes the mean for the centre of a normal, the authors' code takes the median, which
forgives a model that went astray. The paper gives each record a variance of its own from 64 models
on, and one for all records below that; between the two lies the shrunk variance of
:mod:`wemem.attacks.moments`. Which of them is stronger depends on the models and their number, so
both settings are chosen by attacking the other models, where they are not given.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float

from wemem.attacks.base import Scores
from wemem.attacks.copies import ChosenCopies, copies_to_try
from wemem.attacks.moments import Centre, Moments, Variance, overall_spread, side_moments
from wemem.attacks.reference import Attacked, Trained, require_models, trials
from wemem.attacks.tuned import EvidenceAttack, best_on_others
from wemem.settings import ADDED
from wemem.signals import Copies, Signals

Statistic = Float[np.ndarray, "K N"]
#: Statistics of every model and record by the query that gives them. A name is the same values in
#: all attacks.
Statistics = Mapping[str, Statistic]
PerRecord = Float[np.ndarray, " N"]

#: Reference models that every record must have on a side for a variance of its own to be
#: considered. Attacking one of them in the target's place takes at most one more away, and two
#: values are the fewest that have a spread.
PER_RECORD_SIDE = 3


def lira_online(
    references: Statistic, trained: Trained, target: PerRecord, *, variance: Variance, centre: Centre = "median"
) -> PerRecord:
    """``log N(s; in) - log N(s; out)`` of every record.

    Args:
        references: the reference models' statistic, shape ``(K, N)``.
        trained: which records each was trained on, shape ``(K, N)``.
        target: the target's statistic, shape ``(N,)``.
        variance: ``record``, each record's own on each side; ``shrunk``, each record's own drawn
            toward the usual one of its side; ``global``, one for all records and both sides, that
            of all in-values around their common mean. The last is the choice of the authors' code.
            With one width the score is ``((s - out)^2 - (s - in)^2) / 2 width^2``, and the width
            cannot change the order of the records.
        centre: ``median`` or ``mean`` of the reference models' values.

    Raises:
        InputError: a record with too few reference models on a side.

    In-values 2 and 4, out-values -1 and 1, so N(3, 1) against N(0, 1), at 4: -1/2 + 16/2 - 0 = 7.5:

    >>> members = np.array([[True], [True], [False], [False]])
    >>> values = np.array([[2.0], [4.0], [-1.0], [1.0]])
    >>> lira_online(values, members, np.array([4.0]), variance="record")
    array([7.5])
    """
    require_models(trained, True, False, fewest=1 if variance == "global" else 2)
    width = overall_spread(references, trained) if variance == "global" else None
    inside, outside = side_moments(references, trained), side_moments(references, ~trained)
    return log_ratio(target, inside, outside, variance=variance, centre=centre, width=width)


def log_ratio(
    target: PerRecord, inside: Moments, outside: Moments, *, variance: Variance, centre: Centre, width: float | None
) -> PerRecord:
    """:func:`lira_online` from the moments of both sides; ``width`` is the common one of
    ``global``.
    """
    member = _log_normal(target, inside.centre(centre), inside.spread(variance, width))
    return np.asarray(member - _log_normal(target, outside.centre(centre), outside.spread(variance, width)))


def lira_offline(
    references: Statistic, trained: Trained, target: PerRecord, *, variance: Variance, centre: Centre = "median"
) -> PerRecord:
    """``z = (s - centre) / spread`` over the models trained without the record, for every record.

    The paper's one-sided test scores ``1 - Pr[N(out) > s] = Phi(z)``; z is in the same order and
    does not saturate at 1. (The form ``-log N(s; out)``, which the authors' code and others
    compute, is two-sided: it calls a record a member for being *less* confident than models without
    it, too.)

    Args:
        references: the reference models' statistic, shape ``(K, N)``.
        trained: which records each was trained on, shape ``(K, N)``; only models trained without a
            record count for it.
        target: the target's statistic, shape ``(N,)``.
        variance: as in :func:`lira_online`; ``global`` is that of all out-values around their
            common mean.
        centre: ``median`` or ``mean`` of the reference models' values.

    Raises:
        InputError: a record that every reference model was trained on, or, but for ``global``, all
            but one.

    Out at -1 +- 1, seen 3:

    >>> lira_offline(np.array([[-2.0], [0.0]]), np.array([[False], [False]]), np.array([3.0]), variance="record")
    array([4.])
    """
    require_models(trained, False, fewest=1 if variance == "global" else 2)
    width = overall_spread(references, ~trained) if variance == "global" else None
    outside = side_moments(references, ~trained)
    return np.asarray((target - outside.centre(centre)) / outside.spread(variance, width))


def _log_normal(value: PerRecord, centre: PerRecord, spread: PerRecord) -> PerRecord:
    """Log-density but for ``-log(2 pi) / 2``, which cancels."""
    return np.asarray(-0.5 * np.square((value - centre) / spread) - np.log(spread))


def query_statistics(signals: Signals, *, augmented: bool, copies: Copies = "none") -> Statistics:
    """The logit confidence of every model and record by query; of the plain record alone if not
    ``augmented``.

    With copies it is the mean over the record and these copies. They are alike, so a mean of them
    says as much as scores of each.
    """
    if augmented and "queries" in signals.extras:
        each = np.moveaxis(signals.query_logit_confidence, 2, 0)
        return {f"query {i}": values for i, values in enumerate(each)}
    return {f"copies {copies}": signals.confidence_with(copies)}


@dataclass(frozen=True, eq=False)
class Sides:
    """The target's statistic of some records, and what reference models make of them, for one query
    each.

    Args:
        target: the target's statistic, shape ``(n,)``.
        outside: moments over the models trained without the records.
        width: the common standard deviation.
        inside: moments over the models trained with the records; None for an offline attack.
    """

    target: PerRecord
    outside: Moments
    width: float
    inside: Moments | None = None


@dataclass(frozen=True)
class ReferenceLikelihood(EvidenceAttack):
    """Base of both forms of LiRA.

    Args:
        variance: ``record``, ``shrunk``, ``global``, or ``auto``: the one with the highest mean AUC
            of attacks on the other models. ``record`` and ``shrunk`` are considered where every
            record has at least :data:`PER_RECORD_SIDE` = 3 reference models on each side that is
            used.
        centre: ``median``, ``mean``, or ``auto``: likewise.
    """

    variance: Literal["auto", "record", "shrunk", "global"] = "auto"
    centre: Literal["auto", "median", "mean"] = "auto"

    estimates_spread = True

    #: Variances that ``auto`` chooses among.
    variances: ClassVar[tuple[Variance, ...]] = ("global", "shrunk", "record")
    #: The sides that are used, True for the models trained with a record; the common width is that
    #: of the first.
    sides: ClassVar[tuple[bool, ...]]

    def tune(self, signals: Signals, target: int) -> Self:
        settings = self.settings_to_try(signals, target)
        candidates = [replace(form, variance=v, centre=c) for form in self.forms(signals) for v, c in settings]
        return candidates[0] if len(candidates) == 1 else best_on_others(candidates, trials(signals, target))

    @property
    def form(self) -> str:
        return ""

    def forms(self, signals: Signals) -> list[Self]:
        """The attack with every choice of queries, which the statistic depends on."""
        return [self]

    def settings_to_try(self, signals: Signals, target: int) -> list[tuple[Variance, Centre]]:
        """Every choice of variance and centre where they are ``auto``, the published ones first."""
        per_record = Attacked.on_all_rows(signals, target).fewest(*self.sides) >= PER_RECORD_SIDE
        allowed = self.variances if per_record else self.variances[:1]
        variances: tuple[Variance, ...] = allowed if self.variance == "auto" else (self.variance,)
        centres: tuple[Centre, ...] = ("median", "mean") if self.centre == "auto" else (self.centre,)
        return list(product(variances, centres))

    @abstractmethod
    def statistics(self, attacked: Attacked) -> Statistics:
        """The statistic of every model and record, higher for members, by query."""

    @property
    def settled(self) -> tuple[Variance, Centre]:
        """Variance and centre, neither of them ``auto``."""
        if self.variance == "auto" or self.centre == "auto":
            raise ValueError(f"expected chosen settings, got {self}; call tune() first")
        return self.variance, self.centre

    def collect(self, attacked: Attacked) -> list[Sides]:
        attacked.require(*self.sides, fewest=1 if self.variance in ("auto", "global") else 2)
        return [
            Sides(
                values[attacked.target, attacked.rows],
                attacked.moments(name, values, False),
                attacked.spread(name, values, self.sides[0]),
                attacked.moments(name, values, True) if True in self.sides else None,
            )
            for name, values in self.statistics(attacked).items()
        ]


@dataclass(frozen=True)
class OnlineLikelihood(ReferenceLikelihood):
    """:func:`lira_online` of a statistic that a subclass defines."""

    sides: ClassVar[tuple[bool, ...]] = (True, False)

    def compare(self, evidence: list[Sides]) -> Scores:
        variance, centre = self.settled
        scores = []
        for one in evidence:
            if one.inside is None:
                raise ValueError("expected moments of models trained with the records, got none")
            scores.append(
                log_ratio(one.target, one.inside, one.outside, variance=variance, centre=centre, width=one.width)
            )
        return np.asarray(np.mean(scores, axis=0))


@dataclass(frozen=True)
class LogitLikelihood(ReferenceLikelihood):
    """LiRA's statistic: the logit confidence of every query.

    Args:
        augmented: whether to use the augmented queries if the signals have them. The score is then
            the mean over queries of each one's score by normals of its own, as in the authors' code
            (the log of the product of normals, divided by their number).
        copies: which copies of a record of a table count besides it
            (:mod:`wemem.attacks.copies`); none if not ``augmented``.
    """

    augmented: bool = True
    copies: ChosenCopies = field(default="auto", metadata=ADDED)

    optional_signals = frozenset({"queries", "copies"})

    @property
    def form(self) -> str:
        return self.copies

    def forms(self, signals: Signals) -> list[Self]:
        choices = copies_to_try(signals, self.copies, augmented=self.augmented)
        return [replace(self, copies=copies) for copies in choices]

    def statistics(self, attacked: Attacked) -> Statistics:
        copies: Copies = "none" if self.copies == "auto" else self.copies
        return query_statistics(attacked.signals, augmented=self.augmented, copies=copies)


@dataclass(frozen=True)
class Lira(LogitLikelihood, OnlineLikelihood):
    """Likelihood ratio of models trained with the record and models trained without it.

    Online: :func:`lira_online`. Carlini et al., S&P 2022. Settings: :class:`ReferenceLikelihood`
    and :class:`LogitLikelihood`.
    """

    name = "lira"


@dataclass(frozen=True)
class LiraOffline(LogitLikelihood):
    """LiRA without models trained with the record.

    Offline: :func:`lira_offline`. Carlini et al., S&P 2022. Settings: as of :class:`Lira`.
    """

    name = "lira_offline"
    sides: ClassVar[tuple[bool, ...]] = (False,)

    def compare(self, evidence: list[Sides]) -> Scores:
        variance, centre = self.settled
        scores = [
            (one.target - one.outside.centre(centre)) / one.outside.spread(variance, one.width) for one in evidence
        ]
        return np.asarray(np.mean(scores, axis=0))
