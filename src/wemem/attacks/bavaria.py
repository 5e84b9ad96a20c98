"""BaVarIA: a likelihood ratio whose variances are inferred by Bayes' rule instead of estimated
record by record.

Brännvall, "Exponential-family membership inference: from LiRA and RMIA to BaVarIA", arXiv
2603.11799 (2026): the reference models' logit-scaled confidences of a record are normal, mean and
variance have a conjugate normal-inverse-gamma prior, and the score is the log-ratio of two
predictive densities, Student's t (BaVarIA-t) or a normal with the stabilized variance (BaVarIA-n).

Known to us are the abstract and the introduction of the paper, which state the conjugate family and
both predictive forms. The prior and its estimation below are our own choice, on each side by itself,
from the reference models, so this attack's figures need not agree with the paper's:

``sigma_i^2 ~ d_0 s_0^2 / chi^2(d_0)``,  ``mu_i | sigma_i ~ N(m_0, sigma_i^2 / k_0)``,

with ``d_0`` and ``s_0^2`` by the moments of the records' log-variances
(:func:`wemem.attacks.moments.variance_prior`), ``m_0`` the mean of the records' means, and ``k_0``
the usual variance within a record over that of the means between records. With n values of mean x
and sum of squared deviations S the posterior is

``k = k_0 + n``,  ``m = (k_0 m_0 + n x) / k``,  ``d = d_0 + n``,  ``V = d_0 s_0^2 + S + k_0 n (x - m_0)^2 / k``

and the predictive density of the next value is Student's t with d degrees of freedom, centre m and
squared scale ``V / d * (1 + 1 / k)``; the normal form has the same centre and the posterior mean of
the variance, ``V / (d - 2)``.
"""

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal, Self

import numpy as np
from scipy.special import gammaln

from wemem.attacks.base import Scores
from wemem.attacks.copies import ChosenCopies, copies_to_try
from wemem.attacks.lira import query_statistics
from wemem.attacks.moments import Moments, PerRecord, Statistic, variance_prior
from wemem.attacks.reference import Attacked, trials
from wemem.attacks.tuned import EvidenceAttack, best_on_others
from wemem.settings import ADDED
from wemem.signals import Copies, Signals

Predictive = Literal["student", "normal"]

#: Degrees of freedom beyond which the prior of the variance is as good as certain.
MOST_FREEDOM = 1e6
#: Means that differ between records by less than this share of the variance within a record count
#: as different by it.
LEAST_BETWEEN = 1e-6


@dataclass(frozen=True, eq=False)
class Posterior:
    """The normal-inverse-gamma posterior of every record on one side, arrays of shape ``(N,)``.

    Args:
        centre: m, the posterior mean of the mean.
        strength: k, the number of values that would determine the mean equally well.
        freedom: d, the degrees of freedom of the variance.
        squares: V, the sum of squares of the variance.
    """

    centre: PerRecord
    strength: PerRecord
    freedom: PerRecord
    squares: PerRecord

    def log_predictive(self, value: PerRecord, form: Predictive) -> PerRecord:
        """Log-density of the next value, but for ``-log(2 pi) / 2``."""
        if form == "normal":
            variance = self.squares / (self.freedom - 2)
            return np.asarray(-0.5 * np.square(value - self.centre) / variance - 0.5 * np.log(variance))
        scale = self.squares / self.freedom * (1 + 1 / self.strength)
        half = self.freedom / 2
        tail = np.log1p(np.square(value - self.centre) / (self.freedom * scale))
        return np.asarray(gammaln(half + 0.5) - gammaln(half) - 0.5 * np.log(half * scale) - (half + 0.5) * tail)


def posterior(moments: Moments) -> Posterior:
    """The posterior of every record under the prior that all records of a side give together.

    A prior that one record of two values follows exactly leaves its centre where it is:

    >>> one = posterior(Moments(np.array([2, 2]), np.array([0.0, 4.0]), np.array([0.0, 4.0]), np.array([2.0, 2.0])))
    >>> one.centre.round(3), one.strength.round(3)  # within 2, between 8 - 1 = 7, so k_0 = 2 / 7
    (array([0.25, 3.75]), array([2.286, 2.286]))
    """
    count = moments.count.astype(np.float64)
    freedom, usual = variance_prior(moments.squares, moments.count)
    freedom = min(freedom, MOST_FREEDOM)
    within = max(float(moments.squares.sum() / (count - 1).sum()), 1e-300)
    between = float(moments.mean.var(ddof=1)) - within / float(count.mean()) if len(count) > 1 else 0.0
    prior_strength = within / max(between, LEAST_BETWEEN * within)
    prior_mean = float(moments.mean.mean())
    strength = prior_strength + count
    pull = prior_strength * count / strength * np.square(moments.mean - prior_mean)
    return Posterior(
        (prior_strength * prior_mean + count * moments.mean) / strength,
        strength,
        freedom + count,
        np.maximum(freedom * usual + moments.squares + pull, 1e-300),
    )


@dataclass(frozen=True)
class Bavaria(EvidenceAttack):
    """Log-ratio of two predictive densities, of models trained with the record and of models
    trained without it.

    Args:
        predictive: ``student`` (BaVarIA-t), ``normal`` (BaVarIA-n), or ``auto``: the one with the
            higher mean AUC of attacks on the other models.
        augmented: whether to use the augmented queries if the signals have them: the mean over
            queries of their scores.
        copies: which copies of a record of a table count besides it
            (:mod:`wemem.attacks.copies`); none if not ``augmented``.
    """

    predictive: Literal["auto", "student", "normal"] = "auto"
    augmented: bool = True
    copies: ChosenCopies = field(default="auto", metadata=ADDED)

    name = "bavaria"
    estimates_spread = True
    optional_signals = frozenset({"queries", "copies"})

    @property
    def form(self) -> str:
        return self.copies

    def tune(self, signals: Signals, target: int) -> Self:
        densities: tuple[Predictive, ...] = ("student", "normal") if self.predictive == "auto" else (self.predictive,)
        copies = copies_to_try(signals, self.copies, augmented=self.augmented)
        candidates = [replace(self, predictive=one, copies=which) for which, one in product(copies, densities)]
        return candidates[0] if len(candidates) == 1 else best_on_others(candidates, trials(signals, target))

    def collect(self, attacked: Attacked) -> list[tuple[PerRecord, Posterior, Posterior]]:
        """The target's statistic of its rows and the posteriors of both sides, query by query.

        Raises:
            InputError: a record with fewer than two reference models on a side.
        """
        attacked.require(True, False, fewest=2)
        copies: Copies = "none" if self.copies == "auto" else self.copies
        queries = query_statistics(attacked.signals, augmented=self.augmented, copies=copies)
        return [
            (
                values[attacked.target, attacked.rows],
                _posterior_of(attacked, name, values, True),
                _posterior_of(attacked, name, values, False),
            )
            for name, values in queries.items()
        ]

    def compare(self, evidence: list[tuple[PerRecord, Posterior, Posterior]]) -> Scores:
        form = self.predictive
        if form == "auto":
            raise ValueError("expected predictive student or normal to compare with, got auto; call tune() first")
        scores = [
            inside.log_predictive(own, form) - outside.log_predictive(own, form) for own, inside, outside in evidence
        ]
        return np.asarray(np.mean(scores, axis=0))


def _posterior_of(attacked: Attacked, name: str, values: Statistic, side: bool) -> Posterior:
    """The posterior of one side, which several targets share."""
    return attacked.once(("posterior", name, side), lambda: posterior(attacked.moments(name, values, side)))
