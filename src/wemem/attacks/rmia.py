"""RMIA: how much more the target favours a record than it favours records of the population.

Zarifzadeh, Liu & Shokri, "Low-cost high-power membership inference attacks", ICML 2024. With ``p(x)`` the target's
probability of x's true class and ``prior(x)`` what a model is expected to give it,

``ratio(x) = p(x) / prior(x)``,  ``score(x) = share of z in the population with ratio(x) / ratio(z) >= gamma``.

Online, the prior is the mean of two means: over models trained with x, and over models trained without it. Offline
only the latter is known, and models trained with x are taken to give it ``a mean_out + (1 - a)``.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.special import expit

from wemem.attacks.base import CALIBRATION_MEMBERS, Attack, AttackOutput, Scores
from wemem.attacks.reference import Trained, references, require_models
from wemem.errors import InputError
from wemem.metrics.rates import auc
from wemem.signals import Signals

PerRecord = Float[np.ndarray, " N"]
Probabilities = Float[np.ndarray, "K N"]

#: Records taken at a time: the working copies of 64 models' values then fit the cache.
BLOCK = 2048
#: What is tried where nothing is given: the authors' grid for a; for gamma from the weakest claim up.
OFFLINE_A = tuple(i / 10 for i in range(11))
GAMMA = (1.0, 1.25, 1.5, 2.0, 3.0)
#: Settings are chosen on at most this many rows of each other member.
TUNING_ROWS = 10_000
#: A smaller prior is taken for this, so that nothing is divided by zero.
SMALLEST_PRIOR = 1e-300


def chosen_mean(probabilities: Probabilities, chosen: Bool[np.ndarray, "K N"]) -> PerRecord:
    """Mean over the chosen models, of which every record has at least one.

    >>> chosen_mean(np.array([[0.75], [0.25], [0.5]]), np.array([[True], [True], [False]]))
    array([0.5])
    """
    mean = np.empty(chosen.shape[1])
    for start in range(0, len(mean), BLOCK):
        here = slice(start, start + BLOCK)
        weight = chosen[:, here].astype(np.float64)  # a product is many times faster than a choice by a mask
        mean[here] = np.einsum("kn,kn->n", probabilities[:, here], weight) / weight.sum(axis=0)
    return mean


def offline_prior(mean_out: PerRecord, a: float) -> PerRecord:
    """``(mean_out + (a mean_out + 1 - a)) / 2``.

    >>> offline_prior(np.array([0.2]), a=0.5)
    array([0.4])
    """
    return np.asarray((1 + a) / 2 * mean_out + (1 - a) / 2)


def dominated(ratios: PerRecord, population: Float[np.ndarray, " P"], gamma: float) -> PerRecord:
    """Share of the population with ``ratio(x) / ratio(z) >= gamma``, in O((N + P) log P).

    Args:
        ratios: of the records, shape ``(N,)``.
        population: ratios of records in no model, shape ``(P,)``.
        gamma: above 0; the paper has 1 and more.

    4 is at least twice 1 and 2; 3 only twice 1:

    >>> dominated(np.array([4.0, 3.0]), np.array([1.0, 2.0, 5.0, 6.0]), 2.0)
    array([0.5 , 0.25])
    """
    return np.searchsorted(np.sort(population), ratios / gamma, side="right") / len(population)


def dominated_others(ratios: PerRecord, gamma: float) -> PerRecord:
    """The same without a population: each record against all the others.

    >>> dominated_others(np.array([4.0, 2.0, 1.0]), 2.0)
    array([1. , 0.5, 0. ])
    """
    itself = ratios / gamma >= ratios
    return (np.searchsorted(np.sort(ratios), ratios / gamma, side="right") - itself) / max(1, len(ratios) - 1)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of some records before any setting counts.

    Args:
        probability: the target's, of the true class, shape ``(n,)``.
        means: of the reference models' probabilities: ``(mean_in, mean_out)``, or ``(mean_out,)`` alone.
    """

    probability: PerRecord
    means: tuple[PerRecord, ...]


#: Evidence of attacks whose truth is known, and that truth.
Trials = list[tuple[tuple[Evidence, Evidence | None], Bool[np.ndarray, " n"]]]


@dataclass(frozen=True)
class PopulationRatio(Attack):
    """What both forms of RMIA share.

    The population is every row that no member uses in any role. All models are out-models there, and ``mean_out`` is
    over all of them. (The authors' code takes those with the highest half of the probabilities: it sorts in-models away
    as zeros, which a population record has not.) Where there is no such row, the other audited rows stand in, each
    with a prior like x's own.

    A score never falls when ``ratio(x)`` rises: the population makes scores of different targets comparable, and gamma
    decides which records are tied.

    Args:
        gamma: how many times more; None chooses among :data:`GAMMA`, by the mean AUC of attacks on the other members.
    """

    gamma: float | None = None

    layout = "shared"

    def __post_init__(self) -> None:
        if self.gamma is not None and not self.gamma > 0:
            raise InputError(f"attack {self.name!r} expected gamma above 0, got {self.gamma}; the paper has 1 to 2")

    def predict(self, signals: Signals, target: int = 0, *, seed: int = 0) -> AttackOutput:
        if self.tuned:
            return super().predict(signals, target, seed=seed)
        self.check(signals, target)
        return self.tune(signals, target).predict(signals, target, seed=seed)

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        attack = self if self.tuned else self.tune(signals, target)
        return attack.share(*attack.collect(signals, target, signals.audited(target)))

    def collect(self, signals: Signals, target: int, rows: Int64[np.ndarray, " n"]) -> tuple[Evidence, Evidence | None]:
        """Evidence of the rows, and of the population if there is one."""
        confidence, population = signals.logit_confidence, signals.population
        others, trained = references(signals, target, rows)
        means = self.means(expit(confidence[np.ix_(others, rows)]), trained)
        evidence = Evidence(expit(confidence[target, rows]), means)
        if len(population) == 0:
            return evidence, None
        everywhere = expit(confidence[np.ix_(others, population)]).mean(axis=0)
        return evidence, Evidence(expit(confidence[target, population]), (everywhere,))

    def ratio(self, evidence: Evidence) -> PerRecord:
        """``p(x) / prior(x)``."""
        return np.asarray(evidence.probability / np.maximum(self.prior(evidence.means), SMALLEST_PRIOR))

    def share(self, evidence: Evidence, population: Evidence | None) -> Scores:
        """Share of the population that each record dominates."""
        gamma = 1.0 if self.gamma is None else self.gamma
        if population is None:
            return dominated_others(self.ratio(evidence), gamma)
        return dominated(self.ratio(evidence), self.ratio(population), gamma)

    def tune(self, signals: Signals, target: int) -> Self:
        """The same attack, with what is None chosen by attacking the other members in the target's place.

        Raises:
            InputError: too few reference models to attack one of them with the others.
        """
        parties = signals.without(target)
        trials = []
        for k in range(min(parties.num_models, CALIBRATION_MEMBERS)):
            rows = parties.audited(k)
            some = slice(None, None, -(-len(rows) // TUNING_ROWS))
            trials.append((self.collect(parties, k, rows[some]), parties.is_member(k)[some]))
        attack = self.tune_prior(trials)
        if attack.gamma is not None:
            return attack
        return max((replace(attack, gamma=g) for g in GAMMA), key=lambda tried: mean_auc(tried.share, trials))

    @property
    def tuned(self) -> bool:
        """Whether no setting is None."""
        return self.gamma is not None

    def tune_prior(self, trials: Trials) -> Self:
        """The same attack, with the settings of its prior chosen."""
        return self

    @abstractmethod
    def means(self, probabilities: Probabilities, trained: Trained) -> tuple[PerRecord, ...]:
        """The means that the prior is made of.

        Raises:
            InputError: a record without the models that takes.
        """

    @abstractmethod
    def prior(self, means: tuple[PerRecord, ...]) -> PerRecord:
        """What a model is expected to give the record's true class."""


def mean_auc(score: Callable[[Evidence, Evidence | None], Scores], trials: Trials) -> float:
    """Mean AUC of a way to score over attacks whose truth is known."""
    scores = [(score(evidence, population), member) for (evidence, population), member in trials]
    return float(np.mean([auc(values[member], values[~member]) for values, member in scores]))


@dataclass(frozen=True)
class Rmia(PopulationRatio):
    """Online: ``prior = (mean_in + mean_out) / 2``, each side weighing the same however many models it has.

    Zarifzadeh, Liu & Shokri, ICML 2024.
    """

    name = "rmia"

    def means(self, probabilities: Probabilities, trained: Trained) -> tuple[PerRecord, ...]:
        require_models(trained, True, False)
        return chosen_mean(probabilities, trained), chosen_mean(probabilities, ~trained)

    def prior(self, means: tuple[PerRecord, ...]) -> PerRecord:
        return np.asarray(np.mean(means, axis=0))


@dataclass(frozen=True)
class RmiaOffline(PopulationRatio):
    """Offline: ``prior = (mean_out + (a mean_out + 1 - a)) / 2``, no model trained with the record is needed.

    Zarifzadeh, Liu & Shokri, ICML 2024.

    Args:
        gamma: as in :class:`Rmia`.
        a: in [0, 1]: 1 takes models trained with a record to be no surer of it, 0 to be certain. None chooses among
            0, 0.1, ..., 1, by the mean AUC of attacks on the other members.
    """

    a: float | None = None

    name = "rmia_offline"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.a is not None and not 0 <= self.a <= 1:
            raise InputError(
                f"attack {self.name!r} expected a between 0 and 1, got {self.a}; leave it out to have it chosen"
            )

    @property
    def tuned(self) -> bool:
        return super().tuned and self.a is not None

    def tune_prior(self, trials: Trials) -> Self:
        if self.a is not None:
            return self
        tried = (replace(self, a=a) for a in OFFLINE_A)
        return max(tried, key=lambda attack: mean_auc(lambda evidence, _: attack.ratio(evidence), trials))

    def means(self, probabilities: Probabilities, trained: Trained) -> tuple[PerRecord, ...]:
        require_models(trained, False)
        return (chosen_mean(probabilities, ~trained),)

    def prior(self, means: tuple[PerRecord, ...]) -> PerRecord:
        return offline_prior(means[0], OFFLINE_A[-1] if self.a is None else self.a)
